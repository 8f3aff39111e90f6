"""Which checkpoints stay."""

from collections.abc import Sequence
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies


class _Best:
    """Preserves the checkpoint with the best figure; one without a figure is none of them.

    The figures are looked up and not taken from Orbax, which would read them from every
    checkpoint at its start and fail where one is damaged.
    """

    def __init__(self, figures: dict[int, float], largest: bool):
        self._figures, self._largest = figures, largest

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """For every checkpoint whether it is the best."""
        del context
        judged = [info.step for info in checkpoints if info.step in self._figures]
        choose = max if self._largest else min
        best = choose(judged, key=self._figures.__getitem__) if judged else None
        return [info.step == best for info in checkpoints]


def manager_options(
    keep: int,
    keep_every: int,
    figures: dict[int, float],
    *,
    largest: bool,
    temporary_path_class: type,
) -> ocp.CheckpointManagerOptions:
    """Orbax's options: asynchronous, sealed, and what stays.

    Args:
      keep: so many of the newest.
      keep_every: those of every so manieth step; 0: none.
      figures: of judged steps; may grow while the run goes on.
      largest: whether the largest of them is the best.
      temporary_path_class: what commits a checkpoint.
    """
    kept: list = [policies.LatestN(keep), _Best(figures, largest)]
    if keep_every:
        kept.append(policies.EveryNSteps(keep_every))
    return ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(kept),
        enable_async_checkpointing=True,
        create=True,
        temporary_path_class=temporary_path_class,
    )
