"""The loss by tenths of t: it shows where between noise and image the network errs."""

from collections import deque

import jax.numpy as jnp
import numpy as np
from jax import Array

BINS = 10
# Steps whose values may still be in flight; the loop itself is never further ahead.
_AT_ONCE = 2


def loss_by_time(losses: Array, t: Array) -> Array:
    """Sums and counts of the rows' losses by tenth of t; rows that are not finite are left out.

    Args:
      losses: [B].
      t: [B] in [0, 1].

    Returns:
      [2, 10] float32: sums, counts.
    """
    tenth = jnp.clip(jnp.floor(t * BINS).astype(jnp.int32), 0, BINS - 1)
    finite = jnp.isfinite(losses)
    inside = (tenth == jnp.arange(BINS)[:, None]) & finite
    sums = jnp.sum(jnp.where(inside, losses, 0.0), axis=1)
    return jnp.stack([sums, jnp.sum(inside, axis=1)]).astype(jnp.float32)


class LossByTime:
    """Sum the steps' losses until they are taken; `see` does not wait for steps in flight."""

    def __init__(self):
        self._under_way: deque[Array] = deque()
        self._total = np.zeros((2, BINS))

    def see(self, metrics: dict[str, Array]) -> None:
        """Add a started step."""
        found = metrics["loss_by_t"]
        found.copy_to_host_async()
        self._under_way.append(found)
        if len(self._under_way) > _AT_ONCE:
            self._total += np.asarray(self._under_way.popleft())

    def take(self) -> dict[str, float]:
        """Means loss_t0 to loss_t9 of all rows since the last call, without empty tenths."""
        sums, counts = self._total + sum(map(np.asarray, self._under_way))
        self._under_way.clear()
        self._total = np.zeros((2, BINS))
        means = enumerate(zip(sums, counts, strict=True))
        return {f"loss_t{i}": float(total / count) for i, (total, count) in means if count}
