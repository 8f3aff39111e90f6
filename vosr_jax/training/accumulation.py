"""Accumulate gradients over microbatches.

By default the compiler sums gradients over `data` after every microbatch. Between slices, where
the network is slow, one sum per update saves the others. `Replicas` are then a leading axis that
is sharded over `data`: every device adds up its own gradients in the memory that it uses anyway.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vosr_jax.training.sharding import parameter_spec

_AXIS = "data"


@dataclasses.dataclass(frozen=True)
class Replicas:
    """Computes sums of each replica's rows and adds them up.

    Attributes:
      mesh: of the parameters.
      dtype: in which the sums are sent; each replica's own sum is float32 before.
    """

    mesh: Mesh
    dtype: jnp.dtype

    @property
    def count(self) -> int:
        """Number of replicas."""
        return self.mesh.shape[_AXIS]

    def apart(self, part: Callable[..., Any]) -> Callable[..., Any]:
        """Let a function of rows run on each replica's rows, without any sum over `data`.

        Args:
          part: (rows, others) -> (sums, metrics), trees; metrics have one value per row.

        Returns:
          (rows, others) -> the same trees, with a leading axis of replicas in the sums.
        """

        def own(rows: dict[str, Array], others: Any) -> Any:
            sums, metrics = part(rows, others)
            return jax.tree.map(lambda x: x[None], sums), metrics

        return jax.shard_map(
            own,
            mesh=self.mesh,
            in_specs=(P(_AXIS), P()),
            out_specs=(P(_AXIS), P(_AXIS)),
            axis_names={_AXIS},
            check_vma=False,
        )

    def zeros(self, like: Any) -> Any:
        """Sums of no rows; `like` is a tree of one replica's."""
        return self._placed(jax.tree.map(lambda x: jnp.zeros((self.count, *x.shape)), like))

    def mean(self, sums: Any) -> Any:
        """The mean over the replicas: one sum over `data` for each array."""

        def mean(value: Array) -> Array:
            dtype = self.dtype if value.ndim > 1 else value.dtype  # the loss is exact
            # jnp.sum would widen a short type before it is sent.
            total = jax.lax.reduce(value.astype(dtype), jnp.zeros((), dtype), jax.lax.add, (0,))
            return total.astype(value.dtype) / self.count

        return jax.tree.map(mean, sums)

    def _placed(self, sums: Any) -> Any:
        def placed(path: tuple, value: Array) -> Array:
            name = str(getattr(path[-1], "key", ""))
            spec = P(_AXIS, *parameter_spec(name, value.shape[1:], self.mesh))
            return jax.lax.with_sharding_constraint(value, NamedSharding(self.mesh, spec))

        return jax.tree_util.tree_map_with_path(placed, sums)


def accumulate(
    part: Callable[..., Any],
    batch: dict[str, Array],
    others: Any,
    like: Any,
    microbatches: int,
    replicas: Replicas | None = None,
) -> tuple[Any, Any]:
    """Compute the mean of a function's sums over the microbatches, and collect its metrics.

    Args:
      part: (rows, others) -> (sums, metrics), as `Replicas.apart` takes it; sums are means over
        the rows.
      batch: all rows.
      others: arrays that every part needs.
      like: a tree of the sums' shapes.
      microbatches: number of parts. Row i goes to part i % microbatches, so that every part spans
        all devices.
      replicas: sum over `data` at the end alone; None: after every part.

    Returns:
      (sums, metrics in the order of the rows).
    """
    zeros = jax.tree.map(jnp.zeros_like, like)
    if replicas is not None:
        part, zeros = replicas.apart(part), replicas.zeros(like)

    def add(total: Any, rows: dict[str, Array]) -> tuple[Any, Any]:
        sums, metrics = part(rows, others)
        return jax.tree.map(jnp.add, total, sums), metrics

    n = microbatches
    parts = jax.tree.map(lambda x: x.reshape(-1, n, *x.shape[1:]).swapaxes(0, 1), batch)
    total, metrics = jax.lax.scan(add, zeros, parts)
    if replicas is not None:
        total = replicas.mean(total)
    metrics = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), metrics)
    return jax.tree.map(lambda x: x / n, total), metrics
