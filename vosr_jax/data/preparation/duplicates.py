"""Near duplicates among many pictures, without comparing each with each."""

from collections.abc import Iterable, Iterator

from vosr_jax.data.preparation.measures import hash_distance

_BITS = 64


def bands(hash_value: int, distance: int) -> Iterator[tuple[int, int]]:
    """Keys of which two hashes share one at least if they differ in `distance` bits at most.

    Cut into distance + 1 pieces, the differing bits cannot touch all of them.

    Yields:
      (number of the piece, its bits).
    """
    count = distance + 1
    for piece in range(count):
        start, stop = _BITS * piece // count, _BITS * (piece + 1) // count
        yield piece, (hash_value >> start) & ((1 << (stop - start)) - 1)


def duplicates_in(group: Iterable[tuple[int, str, int]], distance: int) -> Iterator[tuple]:
    """Pictures of one group that repeat an earlier one.

    A picture is a duplicate of the first before it, in the order of the sources, that is near
    enough, whether that one is kept or not; so nothing depends on how the work was shared out.

    Args:
      group: (rank, name, hash) of pictures that share a band; rank is the order.
      distance: bits that may differ.

    Yields:
      (rank, name, name of the earlier one).
    """
    earlier: list[tuple[str, int]] = []
    for rank, name, hash_value in sorted(group):
        for before, other in earlier:
            if hash_distance(hash_value, other) <= distance:
                yield rank, name, before
                break
        earlier.append((name, hash_value))
