"""Sharded parameters come to the devices that compute with them, and their gradients go back.

A block's slice is cast to the matrix products' dtype, gathered over `fsdp` where the block reads
it, and forgotten; no program holds a gathered stack. Its gradient is scattered in float32, or in
the products' dtype where that is asked for.
"""

import dataclasses
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vosr_jax.training.sharding import PARAMETER_RULES, Rules, axes_of, parameter_spec, sharded_over

# What the networks compute in their matrix products' dtype anyway, so that casting it beforehand
# changes nothing: all kernels and biases but those of times, of norms and of the first patches.
_IN_PRODUCTS = re.compile(
    r"(patch_embed|token_mlp\.\w+|final\.linear|blocks\.(attn|cross_attn|mlp)\.\w+"
    r"|detailer\.(embed|out|out\.(spread|refine|out)|refine\.(first|second)"
    r"|(stem_)?blocks\.\d+\.(first|second))"
    r"|blocks\.(qkv|proj|ffn_in|ffn_out))\.(kernel|bias)"  # the visual encoder's
    r"|blocks\.(attn|cross_attn|mlp)\.\w+\.lora\.(down|up)"
)
_BLOCKS = "blocks."


def is_matmul_param(name: str) -> bool:
    """Whether a parameter is read in the matrix products' dtype alone."""
    return _IN_PRODUCTS.fullmatch(name) is not None


@dataclasses.dataclass(frozen=True)
class Gather:
    """Brings parameters to every device of the fsdp axis.

    Attributes:
      mesh: where they lie.
      dtype: of the matrix products; what travels for them is in it.
      rules: where they lie.
      short_gradients: gradients of what travels in `dtype` come back in it: each device's sum
        over its rows is made in float32 and rounded, then summed over the devices.
    """

    mesh: Mesh
    dtype: jnp.dtype
    rules: Rules = PARAMETER_RULES
    short_gradients: bool = False

    def __call__(self, name: str, value: Array) -> Array:
        """One block's slice of a stacked parameter, without the depth axis."""
        return self._gathered(
            name, value, P(*parameter_spec(name, (1, *value.shape), self.mesh, self.rules)[1:])
        )

    def others(self, parameters: Mapping[str, Array]) -> dict[str, Array]:
        """All parameters, those outside the blocks gathered."""
        gathered = dict(parameters)
        for name, value in parameters.items():
            if not name.startswith(_BLOCKS):
                spec = parameter_spec(name, value.shape, self.mesh, self.rules)
                gathered[name] = self._gathered(name, value, spec)
        return gathered

    def _gathered(self, name: str, value: Array, spec: P) -> Array:
        if not sharded_over(spec, "fsdp"):
            return value
        parts = NamedSharding(self.mesh, spec)
        without = (tuple(axis for axis in axes_of(entry) if axis != "fsdp") for entry in spec)
        whole = NamedSharding(self.mesh, P(*without))
        dtype = self.dtype if is_matmul_param(name) else value.dtype
        return _gather(value, jnp.dtype(dtype), self.short_gradients, parts, whole)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _gather(
    value: Array, dtype: jnp.dtype, short: bool, parts: NamedSharding, whole: NamedSharding
) -> Array:
    cast = jax.lax.with_sharding_constraint(value.astype(dtype), parts)
    gathered = jax.lax.with_sharding_constraint(cast, whole)
    # Back in its own dtype, which costs nothing, so that the gradient arrives in it.
    return gathered if short else gathered.astype(value.dtype)


def _forward(value, dtype, short, parts, whole):
    # An empty array keeps the parameter's dtype.
    return _gather(value, dtype, short, parts, whole), jnp.zeros(0, value.dtype)


def _backward(dtype, short, parts, whole, like, cotangent):
    return (jax.lax.with_sharding_constraint(cotangent, parts).astype(like.dtype),)


_gather.defvjp(_forward, _backward)


def cast_frozen(parameters: Mapping[str, Any], dtype: jnp.dtype) -> dict[str, Any]:
    """Frozen parameters as they lie on the devices: products' operands in `dtype`, others float32.

    The network's output is the same bit for bit.
    """
    return {k: v.astype(dtype) if is_matmul_param(k) else v for k, v in parameters.items()}
