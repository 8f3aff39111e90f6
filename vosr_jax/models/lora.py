"""Low-rank adapters of the blocks' matrices (LoRA, arXiv 2106.09685).

A matrix W of a block that has an adapter acts as W + alpha / rank * down @ up. In training the
two thin matrices are applied one after the other, so that W needs no gradient; for use they are
added to W once (`merged_kernel`), and the network is one without adapters again.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from vosr_jax.models.layers import Linear, linear_product
from vosr_jax.parameters.initial import normal

Value = TypeVar("Value")
Module = TypeVar("Module", bound=nnx.Module)
_MARK = ".lora."
# Of cross-attention query and value alone, the two that the paper adapts: with all four, rank 16
# would train 2.2% of the released 0.5B network.
_LEFT_OUT = {("cross_attn", "key"), ("cross_attn", "proj")}
DOWN, UP = "lora.down", "lora.up"


class LowRank(nnx.Module):
    """x @ down @ up * alpha / rank; up starts as zero, so that nothing is changed at first.

    Args:
      shape: of the kernel beside it, [inputs, *outputs].
      rank: columns of down [inputs, rank] and rows of up [rank, *outputs].
      alpha: see above.
      rngs: source of down, N(0, 1 / inputs).
    """

    def __init__(self, shape: tuple[int, ...], rank: int, alpha: float, *, rngs: nnx.Rngs):
        inputs, *outputs = shape
        self.scale = alpha / rank
        self.down = nnx.Param(normal(rngs, (inputs, rank), inputs**-0.5))
        self.up = nnx.Param(jnp.zeros((rank, *outputs)))

    def __call__(self, x: Array, dtype: DTypeLike) -> Array:
        """What is added to the product of x [..., inputs]: [..., *outputs] in dtype."""
        thin = linear_product(x.astype(dtype), self.down[...])
        return linear_product(thin, self.up[...]) * self.scale


def with_adapters(block: Module, rank: int, alpha: float, *, rngs: nnx.Rngs) -> Module:
    """The block, whose linear maps but those `_LEFT_OUT` have got adapters; rank 0 gives none.

    Args:
      block: its own random values are drawn already.
      rank, alpha, rngs: of `LowRank`.
    """
    if rank:
        # Found first: those that are put in are modules too.
        maps = [(path, m) for path, m in nnx.iter_modules(block) if isinstance(m, Linear)]
        for path, linear in maps:
            if path in _LEFT_OUT:
                continue
            linear.lora = LowRank(linear.kernel.shape, rank, alpha, rngs=rngs)
    return block


def is_adapter(name: str) -> bool:
    """Whether a parameter of this dotted path belongs to an adapter."""
    return _MARK in name


def adapters_of(parameters: Mapping[str, Value]) -> dict[str, Value]:
    """The adapters among parameters by dotted path."""
    return {name: value for name, value in parameters.items() if is_adapter(name)}


def base_of(parameters: Mapping[str, Value]) -> dict[str, Value]:
    """All but the adapters."""
    return {name: value for name, value in parameters.items() if not is_adapter(name)}


def trained_of(parameters: Mapping[str, Value]) -> dict[str, Value]:
    """What is trained of a network: its adapters where it has some, or else everything."""
    return adapters_of(parameters) or dict(parameters)


def with_base(trained: dict[str, Array], frozen: Mapping[str, Any]) -> dict[str, Array]:
    """All parameters of a network of which these are trained.

    Args:
      trained: parameters or their average; all of the network's, or adapters.
      frozen: a step's frozen weights; those around adapters are its "base".
    """
    return frozen.get("base", {}) | trained


def kernels_of(adapters: Iterable[str]) -> dict[str, tuple[str, str]]:
    """{kernel's path: (down's, up's)} of adapters' paths."""
    stems = sorted({name.rpartition(_MARK)[0] for name in adapters})
    return {f"{stem}.kernel": (f"{stem}.{DOWN}", f"{stem}.{UP}") for stem in stems}


def merged_kernel(kernel: np.ndarray, down: np.ndarray, up: np.ndarray, scale: float) -> np.ndarray:
    """kernel + scale * down @ up, float32.

    Args:
      kernel: [depth, inputs, *outputs].
      down: [depth, inputs, rank].
      up: [depth, rank, *outputs].
      scale: alpha / rank.
    """
    depth, rank = up.shape[:2]
    flat = np.float32(scale) * np.asarray(up, np.float32).reshape(depth, rank, -1)
    change = np.matmul(np.asarray(down, np.float32), flat)
    return cast(np.ndarray, np.asarray(kernel, np.float32) + change.reshape(kernel.shape))


def share_of(shapes: Mapping[str, np.ndarray]) -> float:
    """Parameters of the adapters over all parameters.

    Args:
      shapes: by dotted path, whatever has a shape.
    """
    sizes = {name: math.prod(value.shape) for name, value in shapes.items()}
    return sum(adapters_of(sizes).values()) / sum(sizes.values())
