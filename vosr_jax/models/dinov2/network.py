"""DINOv2 (arXiv 2304.07193): the frozen encoder whose patch tokens guide the restoration."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from vosr_jax.models.attention.dispatch import Attention, attention
from vosr_jax.models.bicubic import bicubic_matrix
from vosr_jax.models.layers import LayerNorm, Linear
from vosr_jax.parameters.blueprint import Prepare, prepared
from vosr_jax.parameters.initial import normal

_HIGHEST = jax.lax.Precision.HIGHEST

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DINOv2Settings:
    """Sizes and variants of a DINOv2 network.

    Attributes:
      width, depth, heads: of the transformer. The released networks have heads of 64 channels.
      ffn_width: hidden width of the feed-forward layer; if gated, after the gate.
      swiglu: gated feed-forward (ViT-g) instead of GELU.
      patch_size: side of a patch in pixels.
      grid: side, in patches, of the position embedding's training grid.
      registers: number of register tokens.
      layer_scale: whether each branch is scaled channel by channel.
      interpolate_offset, interpolate_antialias: how the position embedding is resized; the
        released networks use (0.1, False) without registers and (0.0, True) with them.
      kept_blocks: number of leading blocks whose parameters exist; None for all.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    ffn_width: int = 3072
    swiglu: bool = False
    patch_size: int = 14
    grid: int = 37
    registers: int = 0
    layer_scale: bool = True
    interpolate_offset: float = 0.1
    interpolate_antialias: bool = False
    kept_blocks: int | None = None

    @classmethod
    def vit_s(cls, registers: int = 0) -> "DINOv2Settings":
        """ViT-S/14, 21 million parameters."""
        return cls(width=384, depth=12, heads=6, ffn_width=1536)._with_registers(registers)

    @classmethod
    def vit_b(cls, registers: int = 0) -> "DINOv2Settings":
        """ViT-B/14, 86 million parameters; its block 8 serves the 0.5B model."""
        return cls(width=768, depth=12, heads=12, ffn_width=3072)._with_registers(registers)

    @classmethod
    def vit_l(cls, registers: int = 0) -> "DINOv2Settings":
        """ViT-L/14, 300 million parameters; its block 17 serves the 1.4B model."""
        return cls(width=1024, depth=24, heads=16, ffn_width=4096)._with_registers(registers)

    @classmethod
    def vit_g(cls, registers: int = 0) -> "DINOv2Settings":
        """ViT-g/14, 1.1 billion parameters, gated feed-forward."""
        giant = cls(width=1536, depth=40, heads=24, ffn_width=4096, swiglu=True)
        return giant._with_registers(registers)

    def _with_registers(self, registers: int) -> "DINOv2Settings":
        if not registers:
            return self
        return replace(
            self, registers=registers, interpolate_offset=0.0, interpolate_antialias=True
        )

    @property
    def blocks(self) -> int:
        """Number of blocks whose parameters exist."""
        return self.depth if self.kept_blocks is None else self.kept_blocks


class Block(nnx.Module):
    """Pre-norm transformer block: attention, then the feed-forward layer, each layer-scaled."""

    def __init__(self, settings: DINOv2Settings, *, rngs: nnx.Rngs):
        width, heads = settings.width, settings.heads
        self.swiglu, self.layer_scale = settings.swiglu, settings.layer_scale
        self.norm1 = LayerNorm(width, epsilon=1e-6)
        self.qkv = Linear(width, (3, heads, width // heads), rngs=rngs, init="normal")
        self.proj = Linear(width, width, rngs=rngs, init="normal")
        self.norm2 = LayerNorm(width, epsilon=1e-6)
        hidden = (2, settings.ffn_width) if settings.swiglu else settings.ffn_width
        self.ffn_in = Linear(width, hidden, rngs=rngs, init="normal")
        self.ffn_out = Linear(settings.ffn_width, width, rngs=rngs, init="normal")
        if settings.layer_scale:
            self.scale1 = nnx.Param(jnp.ones(width))
            self.scale2 = nnx.Param(jnp.ones(width))

    def __call__(
        self, x: jax.Array, dtype: DTypeLike, attention: Attention = attention
    ) -> jax.Array:
        qkv = self.qkv(self.norm1(x), dtype)  # [B, N, 3, heads, head]
        attended = attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        branch = self.proj(attended.reshape(x.shape), dtype).astype(jnp.float32)
        x = x + (branch * self.scale1[...] if self.layer_scale else branch)
        hidden = self.ffn_in(self.norm2(x), dtype)
        if self.swiglu:
            hidden = jax.nn.silu(hidden[..., 0, :]) * hidden[..., 1, :]
        else:
            hidden = jax.nn.gelu(hidden, approximate=False)
        branch = self.ffn_out(hidden, dtype).astype(jnp.float32)
        return x + (branch * self.scale2[...] if self.layer_scale else branch)


class DINOv2(nnx.Module):
    """The encoder; blocks are stacked, with a leading depth axis on each of their parameters."""

    def __init__(self, settings: DINOv2Settings, *, rngs: nnx.Rngs):
        self.settings = settings
        # Set by code that shards the blocks or the rows over several devices.
        self.prepare: Prepare | None = None
        self.attention_fn: Attention = attention
        width, patch = settings.width, settings.patch_size
        self.patch = Linear(patch * patch * 3, width, rngs=rngs, init="normal")
        grid = (settings.grid, settings.grid, width)
        self.position_grid = nnx.Param(normal(rngs, grid, 0.02))
        self.position_cls = nnx.Param(normal(rngs, (width,), 0.02))
        self.cls_token = nnx.Param(jnp.zeros(width))
        if settings.registers:
            self.register_tokens = nnx.Param(jnp.zeros((settings.registers, width)))

        @nnx.split_rngs(splits=settings.blocks)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stack(rngs: nnx.Rngs) -> Block:
            return Block(settings, rngs=rngs)

        self.blocks = stack(rngs)
        self.norm = LayerNorm(width, epsilon=1e-6)

    def __call__(
        self,
        image: jax.Array,
        block: int | None = None,
        *,
        final_norm: bool | None = None,
        dtype: DTypeLike = jnp.float32,
    ) -> jax.Array:
        """Compute the patch tokens after a block.

        Args:
          image: [B, H, W, 3] ImageNet-normalized, both sides multiples of the patch size.
          block: 0-based index; only blocks 0..block are computed. None: the last one.
          final_norm: whether the final norm follows; None: after the last block only, as in the
            official VOSR code (inference_vosr.py, get_venc_features).
          dtype: of the matrix products; residual stream, norms and softmax stay float32.

        Returns:
          [B, H/patch * W/patch, width] float32, rows first.

        Raises:
          ValueError: a side is not a multiple of the patch size, or the block does not exist.
        """
        tokens = self.tokens(image, block, final_norm=final_norm, dtype=dtype)
        return tokens[:, 1 + self.settings.registers :]

    def tokens(
        self,
        image: jax.Array,
        block: int | None = None,
        *,
        final_norm: bool | None = None,
        dtype: DTypeLike = jnp.float32,
    ) -> jax.Array:
        """The same as a call, with the class token and the registers in front of the patches."""
        last = self.settings.depth - 1
        block = last if block is None else block
        if not 0 <= block < self.settings.blocks:
            raise ValueError(f"block {block} of {self.settings.blocks} blocks")
        final_norm = block == last if final_norm is None else final_norm
        graphdef, stacked = nnx.split(self.blocks)
        needed = jax.tree.map(lambda a: a[: block + 1], stacked)

        def step(x: jax.Array, parameters: nnx.State[Any, Any]) -> tuple[jax.Array, None]:
            parameters = prepared(parameters, self.prepare, "blocks")
            return nnx.merge(graphdef, parameters)(x, dtype, self.attention_fn), None

        x, _ = jax.lax.scan(step, self._embed(image), needed)
        return self.norm(x) if final_norm else x

    def _embed(self, image: jax.Array) -> jax.Array:
        """Embed [B, H, W, 3] as tokens with positions, [B, 1 + registers + N, width]."""
        size = self.settings.patch_size
        batch, height, width, _ = image.shape
        if height % size or width % size:
            raise ValueError(f"{height}x{width} image: sides must be multiples of {size}")
        rows, columns = height // size, width // size
        patches = image.astype(jnp.float32).reshape(batch, rows, size, columns, size, 3)
        x = self.patch(patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1))
        x = (x + self._positions(rows, columns)).reshape(batch, rows * columns, -1)
        front = (self.cls_token[...] + self.position_cls[...])[None]
        if self.settings.registers:
            front = jnp.concatenate([front, self.register_tokens[...]])
        front = jnp.broadcast_to(front[None], (batch, *front.shape))
        return jnp.concatenate([front, x], axis=1)

    def _positions(self, rows: int, columns: int) -> jax.Array:
        """Resize the position embedding to a grid, [rows, columns, width]."""
        grid, settings = self.position_grid[...], self.settings
        if rows == columns == settings.grid:
            return grid
        offset, antialias = settings.interpolate_offset, settings.interpolate_antialias
        down = bicubic_matrix(settings.grid, rows, offset, antialias)
        across = bicubic_matrix(settings.grid, columns, offset, antialias)
        return jnp.einsum("rg,ghd,ch->rcd", down, grid, across, precision=_HIGHEST)


def preprocess(image01: jax.Array, size: int) -> jax.Array:
    """Resize to size x size bicubically, clip to [0, 1] and normalize, for DINOv2.

    Args:
      image01: [B, H, W, 3] in [0, 1].
      size: side of the result; 448 in the released models.

    Returns:
      [B, size, size, 3] float32, ImageNet-normalized; torch's bicubic without antialiasing
      (inference_vosr.py, preprocess_raw_image).
    """
    _, height, width, _ = image01.shape
    down, across = bicubic_matrix(height, size), bicubic_matrix(width, size)
    x = image01.astype(jnp.float32)
    x = jnp.einsum("oh,bhwc->bowc", down, x, precision=_HIGHEST)
    x = jnp.einsum("pw,bowc->bopc", across, x, precision=_HIGHEST)
    mean, std = np.asarray(IMAGENET_MEAN, np.float32), np.asarray(IMAGENET_STD, np.float32)
    return (jnp.clip(x, 0.0, 1.0) - mean) / std


def visual_tokens(
    model: Callable[..., jax.Array],
    image: jax.Array,
    size: int = 448,
    block: int | None = None,
    *,
    dtype: DTypeLike = jnp.float32,
) -> jax.Array:
    """Compute the denoiser's visual tokens of an image.

    Args:
      model: the encoder, a DINOv2 or another one that takes such images (VGG16).
      image: lq, [B, H, W, 3] in [-1, 1].
      size: side that the encoder sees; the position of a token is relative to it.
      block: 0-based block index; the last index, or None, means after the final norm.
      dtype: of the encoder's matrix products.

    Returns:
      [B, (size / patch)^2, width] float32.
    """
    return model(preprocess(image * 0.5 + 0.5, size), block, dtype=dtype)
