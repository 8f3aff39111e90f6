"""The denoiser's number format, with a float32 fallback for values that are not finite.

"float32": everything, with matrix products at the hardware's highest precision. "float16" and
"mixed": matrix products in float16 or bfloat16; residual stream, norms, modulation and gates in
float32. "bfloat16": everything in bfloat16, parameters and time too, as is common for speed.
docs/sampling.md lists what each costs in grey levels.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vosr_jax.models.lightning_dit.network import LightningDiT

_PRODUCTS = {"float16": jnp.float16, "mixed": jnp.bfloat16, "bfloat16": jnp.bfloat16}


def at_precision(denoiser: LightningDiT, precision: str) -> LightningDiT:
    """The denoiser at a precision; parameters that it reads in a short type are cast once.

    Args:
      denoiser: in float32.
      precision: one of `precisions.PRECISIONS` except "auto".
    """
    if precision == "float32":
        return denoiser.with_dtype(jnp.float32)
    short = _PRODUCTS[precision]
    everything = precision == "bfloat16"
    other = denoiser.with_dtype(short, *((short, short) if everything else ()))
    # The blocks' matrices are nearly all of the parameters, and every step reads them.
    for part in (other,) if everything else _matrices(other):
        nnx.update(part, jax.tree.map(lambda x: x.astype(short), nnx.state(part)))
    return other


def _matrices(denoiser: LightningDiT) -> list[nnx.Module]:
    blocks = denoiser.blocks
    layers = [blocks.attn.qkv, blocks.attn.proj]
    if blocks.cross_attn is not None:
        cross = blocks.cross_attn
        layers += [cross.query, cross.key, cross.value, cross.proj]
    return [*layers, blocks.mlp]


def first_finite(velocity: Array, in_float32: Callable[[], Array] | None) -> tuple[Array, Array]:
    """Replace rows that are not finite by those of a second call, made only if there are any.

    Args:
      velocity: [B, h, w, C], of a denoiser below float32.
      in_float32: the same call of the denoiser in float32; None without a fallback.

    Returns:
      (velocity [B, h, w, C], rows that were replaced [B] bool).
    """
    if in_float32 is None:
        return velocity, jnp.zeros(len(velocity), bool)
    bad = ~jnp.isfinite(velocity).all((1, 2, 3))
    again = jax.lax.cond(jnp.any(bad), in_float32, lambda: velocity)
    return jnp.where(bad[:, None, None, None], again, velocity), bad
