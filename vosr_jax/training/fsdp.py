"""Gather sharded parameters for compute, and scatter their gradients.

A block's slice is cast to the matrix products' dtype, gathered over `fsdp` where the block reads
it, and then dropped; no program holds a gathered stack. Its gradient is scattered in float32, or
on request in the products' dtype.
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

# Parameters that the networks cast to their matrix products' dtype anyway, so casting them early
# changes nothing: all kernels and biases except those of times, norms and the encoder's patches.
_IN_PRODUCTS = re.compile(
    r"(patch_embed|token_mlp\.\w+|final\.linear|blocks\.(attn|cross_attn|mlp)\.\w+"
    r"|detailer\.(embed|out|out\.(spread|refine|out)|refine\.(first|second)"
    r"|(stem_)?blocks\.\d+\.(first|second))"
    r"|blocks\.(qkv|proj|ffn_in|ffn_out))\.(kernel|bias)"  # the visual encoder's
    r"|blocks\.(attn|cross_attn|mlp)\.\w+\.lora\.(down|up)"
)
_BLOCKS = "blocks."


def is_matmul_param(name: str) -> bool:
    """Whether a parameter is read only in the matrix products' dtype."""
    return _IN_PRODUCTS.fullmatch(name) is not None


@dataclasses.dataclass(frozen=True)
class Gather:
    """Gather parameters over the fsdp axis.

    Attributes:
      mesh: of the parameters.
      dtype: of the matrix products; their parameters are gathered in it.
      rules: that shard the parameters.
      short_gradients: gradients of parameters gathered in `dtype` return in it. Each device sums
        over its rows in float32 and rounds; these are then summed over the devices.
    """

    mesh: Mesh
    dtype: jnp.dtype
    rules: Rules = PARAMETER_RULES
    short_gradients: bool = False

    def __call__(self, name: str, value: Array) -> Array:
        """Gather one block's slice of a stacked parameter, without the depth axis."""
        return self._gathered(
            name, value, P(*parameter_spec(name, (1, *value.shape), self.mesh, self.rules)[1:])
        )

    def others(self, parameters: Mapping[str, Array]) -> dict[str, Array]:
        """All parameters; those outside the blocks are gathered."""
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
    # Cast back to its own dtype, which costs nothing, so that the gradient arrives in that dtype.
    return gathered if short else gathered.astype(value.dtype)


def _forward(value, dtype, short, parts, whole):
    # An empty array carries the parameter's dtype to the backward pass.
    return _gather(value, dtype, short, parts, whole), jnp.zeros(0, value.dtype)


def _backward(dtype, short, parts, whole, like, cotangent):
    return (jax.lax.with_sharding_constraint(cotangent, parts).astype(like.dtype),)


_gather.defvjp(_forward, _backward)


def cast_frozen(parameters: Mapping[str, Any], dtype: jnp.dtype) -> dict[str, Any]:
    """Cast frozen parameters for the devices: products' operands to `dtype`, others stay float32.

    The network's output is the same, bit for bit.
    """
    return {k: v.astype(dtype) if is_matmul_param(k) else v for k, v in parameters.items()}
