"""LightningDiT's block and final layer: attention, cross-attention and MLP, modulated by time."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from vosr_jax.models.attention.dispatch import Attention, attention, masked_attention
from vosr_jax.models.layers import LayerNorm, Linear, RMSNorm
from vosr_jax.models.lightning_dit.settings import LightningDiTSettings
from vosr_jax.models.rotary import RotaryTable, rotate
from vosr_jax.parameters.initial import normal


class SelfAttention(nnx.Module):
    """Attention among the image's tokens; qkv is one matrix [width, 3, heads, head_width]."""

    def __init__(
        self, settings: LightningDiTSettings, *, rngs: nnx.Rngs, attention: Attention = attention
    ):
        self.attention = attention
        heads, head_width = settings.heads, settings.head_width
        norm = RMSNorm if settings.rms_norm else LayerNorm
        self.qkv = Linear(settings.width, (3, heads, head_width), rngs=rngs)
        self.q_norm = norm(head_width) if settings.qk_norm else None
        self.k_norm = norm(head_width) if settings.qk_norm else None
        self.proj = Linear(settings.width, settings.width, rngs=rngs)

    def __call__(
        self,
        x: Array,
        table: RotaryTable | None,
        dtype: DTypeLike,
        unpadded: Array | None = None,
    ) -> Array:
        """Attend from x [B, N, width] to its unpadded tokens ([B, N] bool; None: all)."""
        query, key, value = jnp.moveaxis(self.qkv(x, dtype), 2, 0)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query).astype(dtype), self.k_norm(key).astype(dtype)
        if table is not None:
            query, key = rotate(query, table), rotate(key, table)
        if unpadded is None:
            y = self.attention(query, key, value)
        else:
            y = masked_attention(query, key, value, unpadded)
        return self.proj(y.reshape(*x.shape[:2], -1), dtype)


class CrossKV(NamedTuple):
    """Cross-attention's keys and values of the visual tokens; they do not depend on time.

    Attributes:
      keys, values: [..., B, N, heads, head_width]; for a network the leading axis is its depth.
    """

    keys: Array
    values: Array


# Keys and values of every block, or the tokens from which each block computes its own.
Context = CrossKV | Array


class TimeFeatures(NamedTuple):
    """The network's modulations from a batch of times.

    Attributes:
      blocks: [B, 6, width] modulation, one for all blocks.
      final: [B, 2, width] modulation of the final layer.
      detail: [B, 3, detail_width] modulations of the detailer's blocks; empty without one.
    """

    blocks: Array
    final: Array
    detail: list[Array]


class CrossAttention(nnx.Module):
    """Attention of the image's tokens to the visual tokens."""

    def __init__(
        self, settings: LightningDiTSettings, *, rngs: nnx.Rngs, attention: Attention = attention
    ):
        self.attention = attention
        heads = (settings.heads, settings.head_width)
        self.query = Linear(settings.width, heads, rngs=rngs)
        self.key = Linear(settings.width, heads, rngs=rngs)
        self.value = Linear(settings.width, heads, rngs=rngs)
        self.q_norm = RMSNorm(settings.head_width) if settings.qk_norm else None
        self.k_norm = RMSNorm(settings.head_width) if settings.qk_norm else None
        self.proj = Linear(settings.width, settings.width, rngs=rngs)

    def __call__(self, x: Array, context: Array, dtype: DTypeLike) -> Array:
        """Attend from x [B, n, width] to context [B, N, width]; the plain formula."""
        return self.attend(x, self.kv(context, dtype), dtype)

    def kv(self, context: Array, dtype: DTypeLike) -> CrossKV:
        """Compute values and normed keys of context [B, N, width]."""
        key, value = self.key(context, dtype), self.value(context, dtype)
        return CrossKV(key if self.k_norm is None else self.k_norm(key).astype(dtype), value)

    def attend(self, x: Array, kv: CrossKV, dtype: DTypeLike) -> Array:
        """Attend from x [k B, n, width] to keys and values of B images.

        The k rows of an image lie side by side and share its keys and values.
        """
        query = self.query(x, dtype)
        if self.q_norm is not None:
            query = self.q_norm(query).astype(dtype)
        query = query.reshape(kv.keys.shape[0], -1, *query.shape[2:])
        y = self.attention(query, kv.keys, kv.values)
        return self.proj(y.reshape(*x.shape[:2], -1), dtype)

    def constant(self, context: Array, dtype: DTypeLike) -> Array:
        """The result for every x if all tokens equal context [width], for any weights."""
        return self.proj(self.value(context, dtype).reshape(-1), dtype)


class SwiGLU(nnx.Module):
    """out(silu(a) * b) with (a, b) = gate_up(x); the hidden axis may have zero padding."""

    def __init__(self, settings: LightningDiTSettings, *, rngs: nnx.Rngs):
        unpadded, padded = settings.swiglu_width, settings.padded_swiglu_width
        self.gate_up = Linear(settings.width, (2, padded), rngs=rngs, unpadded=unpadded)
        self.out = Linear(unpadded, settings.width, rngs=rngs)
        if padded > unpadded:
            kernel = jnp.pad(self.out.kernel[...], ((0, padded - unpadded), (0, 0)))
            self.out.kernel = nnx.Param(kernel)

    def __call__(self, x: Array, dtype: DTypeLike) -> Array:
        gate, up = jnp.moveaxis(self.gate_up(x, dtype), -2, 0)
        return self.out(jax.nn.silu(gate) * up, dtype)


class Mlp(nnx.Module):
    """Two linear maps with tanh-approximated GELU between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, rngs: nnx.Rngs):
        self.hidden = Linear(inputs, hidden, rngs=rngs)
        self.out = Linear(hidden, outputs, rngs=rngs)

    def __call__(self, x: Array, dtype: DTypeLike) -> Array:
        return self.out(jax.nn.gelu(self.hidden(x, dtype), approximate=True), dtype)


def token_norm(settings: LightningDiTSettings) -> RMSNorm | LayerNorm:
    """The norm over a token's channels that the settings name."""
    if settings.rms_norm:
        return RMSNorm(settings.width)
    return LayerNorm(settings.width, affine=False, epsilon=1e-6)


class Block(nnx.Module):
    """Modulated attention, plain cross-attention, modulated MLP.

    The residual stream and the modulation keep the types of their inputs.
    """

    def __init__(
        self, settings: LightningDiTSettings, *, rngs: nnx.Rngs, attention: Attention = attention
    ):
        width = settings.width
        self.norm1 = token_norm(settings)
        self.attn = SelfAttention(settings, rngs=rngs, attention=attention)
        self.norm2 = token_norm(settings)
        if settings.swiglu:
            self.mlp: SwiGLU | Mlp = SwiGLU(settings, rngs=rngs)
        else:
            self.mlp = Mlp(width, int(width * settings.mlp_ratio), width, rngs=rngs)
        self.scale_shift_table = nnx.Param(normal(rngs, (6, width)) / math.sqrt(width))
        has_tokens = settings.token_width is not None
        self.cross_attn = (
            CrossAttention(settings, rngs=rngs, attention=attention) if has_tokens else None
        )

    def __call__(
        self,
        x: Array,
        modulation: Array,
        cross: Callable[[Array], Array] | None,
        table: RotaryTable | None,
        dtype: DTypeLike,
        unpadded: Array | None = None,
    ) -> Array:
        """Run the block; `cross` computes its cross-attention, None for none.

        unpadded: [B, N] bool, true for real tokens; None: all.
        """
        # modulation: [B, 6, width], one for all blocks; each block adds its own table.
        parts = self.scale_shift_table[...].astype(modulation.dtype) + modulation
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(parts, 6, axis=1)
        stream = x.dtype
        y = self.norm1(x).astype(stream) * (1 + scale1) + shift1
        x = (x + gate1 * self.attn(y, table, dtype, unpadded)).astype(stream)
        if cross is not None:
            x = (x + cross(x)).astype(stream)
        y = self.norm2(x).astype(stream) * (1 + scale2) + shift2
        return (x + gate2 * self.mlp(y, dtype)).astype(stream)


class FinalLayer(nnx.Module):
    """Modulated norm and a linear map to patches; it starts at zero unless a detailer follows."""

    def __init__(self, settings: LightningDiTSettings, outputs: int, *, rngs: nnx.Rngs):
        self.norm = token_norm(settings)
        init = "xavier" if settings.detail_width else "zeros"
        self.linear = Linear(settings.width, outputs, rngs=rngs, init=init)
        self.modulation = Linear(settings.width, (2, settings.width), rngs=rngs, init="zeros")

    def __call__(self, x: Array, modulation: Array, dtype: DTypeLike) -> Array:
        shift, scale = jnp.split(modulation, 2, axis=1)
        return self.linear(self.norm(x).astype(x.dtype) * (1 + scale) + shift, dtype)
