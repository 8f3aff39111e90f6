"""Near duplicates among many images, without comparing all pairs."""

from collections.abc import Iterable, Iterator

from vosr_jax.data.preparation.measures import hash_distance

_BITS = 64


def bands(hash_value: int, distance: int) -> Iterator[tuple[int, int]]:
    """Yield keys; hashes that differ in at most `distance` bits share at least one key.

    A hash is cut into distance + 1 pieces, and the differing bits cannot touch all of them.

    Yields:
      (index of the piece, its bits).
    """
    count = distance + 1
    for piece in range(count):
        start, stop = _BITS * piece // count, _BITS * (piece + 1) // count
        yield piece, (hash_value >> start) & ((1 << (stop - start)) - 1)


def duplicates_in(group: Iterable[tuple[int, str, int]], distance: int) -> Iterator[tuple]:
    """Yield images of one group that repeat an earlier one.

    An image is a duplicate of the first earlier one, in the order of the sources, that is near
    enough. It does not matter whether that one is kept, so the result does not depend on how the
    work is distributed.

    Args:
      group: (rank, name, hash) of images that share a band; rank gives the order.
      distance: most bits that may differ.

    Yields:
      (rank, name, name of the earlier image).
    """
    earlier: list[tuple[str, int]] = []
    for rank, name, hash_value in sorted(group):
        for before, other in earlier:
            if hash_distance(hash_value, other) <= distance:
                yield rank, name, before
                break
        earlier.append((name, hash_value))
