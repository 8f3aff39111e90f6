"""Low-rank adapters of the blocks' matrices (LoRA, arXiv 2106.09685).

A block's matrix W with an adapter acts as W + alpha / rank * down @ up. In training the two thin
matrices are applied one after the other, so W needs no gradient. For inference they are added to W
once (`merged_kernel`), which gives a network without adapters.
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
# In cross-attention only query and value are adapted, as in the paper: with all four, rank 16 would
# train 2.2% of the released 0.5B network.
_LEFT_OUT = {("cross_attn", "key"), ("cross_attn", "proj")}
DOWN, UP = "lora.down", "lora.up"


class LowRank(nnx.Module):
    """x @ down @ up * alpha / rank; up starts at zero, so the network is unchanged at first.

    Args:
      shape: of the adapted kernel, [inputs, *outputs].
      rank: columns of down [inputs, rank] and rows of up [rank, *outputs].
      alpha: as in the module's formula.
      rngs: source of down, N(0, 1 / inputs).
    """

    def __init__(self, shape: tuple[int, ...], rank: int, alpha: float, *, rngs: nnx.Rngs):
        inputs, *outputs = shape
        self.scale = alpha / rank
        self.down = nnx.Param(normal(rngs, (inputs, rank), inputs**-0.5))
        self.up = nnx.Param(jnp.zeros((rank, *outputs)))

    def __call__(self, x: Array, dtype: DTypeLike) -> Array:
        """The adapter's addition to the product of x [..., inputs]: [..., *outputs] in dtype."""
        thin = linear_product(x.astype(dtype), self.down[...])
        return linear_product(thin, self.up[...]) * self.scale


def with_adapters(block: Module, rank: int, alpha: float, *, rngs: nnx.Rngs) -> Module:
    """Add adapters to the block's linear maps, except `_LEFT_OUT`; rank 0 adds none.

    Args:
      block: with its own random values already drawn.
      rank, alpha, rngs: of `LowRank`.
    """
    if rank:
        # Collected first, because the adapters that are added are modules too.
        maps = [(path, m) for path, m in nnx.iter_modules(block) if isinstance(m, Linear)]
        for path, linear in maps:
            if path in _LEFT_OUT:
                continue
            linear.lora = LowRank(linear.kernel.shape, rank, alpha, rngs=rngs)
    return block


def is_adapter(name: str) -> bool:
    """Whether the parameter at this dotted path belongs to an adapter."""
    return _MARK in name


def adapters_of(parameters: Mapping[str, Value]) -> dict[str, Value]:
    """The adapters' parameters by dotted path."""
    return {name: value for name, value in parameters.items() if is_adapter(name)}


def base_of(parameters: Mapping[str, Value]) -> dict[str, Value]:
    """All but the adapters."""
    return {name: value for name, value in parameters.items() if not is_adapter(name)}


def trained_of(parameters: Mapping[str, Value]) -> dict[str, Value]:
    """The trained parameters: the adapters if there are any, otherwise all."""
    return adapters_of(parameters) or dict(parameters)


def with_base(trained: dict[str, Array], frozen: Mapping[str, Any]) -> dict[str, Array]:
    """Combine trained and frozen parameters to all parameters of a network.

    Args:
      trained: parameters or their average; all of the network's, or adapters.
      frozen: a step's frozen weights; its "base" holds the parameters that adapters are added to.
    """
    return frozen.get("base", {}) | trained


def kernels_of(adapters: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Map each adapted kernel's path to its adapter's paths: {kernel: (down, up)}."""
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
    """The adapters' share of all parameters.

    Args:
      shapes: by dotted path, any values with a shape.
    """
    sizes = {name: math.prod(value.shape) for name, value in shapes.items()}
    return sum(adapters_of(sizes).values()) / sum(sizes.values())
