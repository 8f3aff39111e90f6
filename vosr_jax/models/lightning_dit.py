"""LightningDiT: the denoiser, a transformer on patches of (condition, noisy) latent pairs.

After the official models/lightningdit.py. Parameters of the blocks are stacked with a leading
depth axis and the blocks run in one scan, so compile time does not grow with depth.
"""

import dataclasses
import math
from functools import partial
from typing import Literal, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from vosr_jax.models.attention import attention
from vosr_jax.models.detailer import Detailer
from vosr_jax.models.layers import LayerNorm, Linear, RMSNorm, TimeEmbedding
from vosr_jax.models.rotary import rotary_table, rotate

Remat = Literal["none", "full", "dots"]


@dataclasses.dataclass(frozen=True)
class LightningDiTSettings:
    """Everything that fixes the network's function and its parameters' shapes.

    Attributes:
      latent_channels: channels of one latent; the network reads a pair of them.
      latent_size: side of the training grid in latent pixels; rotary positions span it.
      patch_size: latent pixels on a token's side.
      width: channels of a token.
      depth: number of blocks.
      heads: attention heads; width / heads channels each.
      mlp_ratio: hidden width over width, before SwiGLU's factor 2/3.
      token_width: channels of the visual tokens, or None for a network without them.
      token_hidden_ratio: hidden width of the tokens' MLP over width.
      r_embedding: whether the interval's end r is a second time input.
      qk_norm, swiglu, rotary, rms_norm: parts that the official ablations switch off.
      rescale_positions: rotary positions of another grid are rescaled to the training grid's
        span (official); False keeps integer positions.
      swiglu_multiple: the SwiGLU hidden width is padded with zeros to a multiple of this;
        the padding changes nothing and is dropped on export.
      detail_width: channels of the convolutional detailer around the transformer; 0, as in
        the official network, has none.
      detail_blocks: residual blocks of the detailer's head.
    """

    latent_channels: int = 4
    latent_size: int = 64
    patch_size: int = 2
    width: int = 1024
    depth: int = 28
    heads: int = 16
    mlp_ratio: float = 4.0
    token_width: int | None = 768
    token_hidden_ratio: int = 3
    r_embedding: bool = False
    qk_norm: bool = True
    swiglu: bool = True
    rotary: bool = True
    rms_norm: bool = True
    rescale_positions: bool = True
    swiglu_multiple: int = 1
    detail_width: int = 0
    detail_blocks: int = 2

    @classmethod
    def vosr_0_5b(cls, **changes) -> "LightningDiTSettings":
        """The released 0.5B network: SD 2.1 latents, DINOv2 ViT-B tokens, 512 px."""
        return cls(**changes)

    @classmethod
    def vosr_1_4b(cls, **changes) -> "LightningDiTSettings":
        """The released 1.4B network: Qwen-Image latents, DINOv2 ViT-L tokens, 512 px."""
        sizes = dict(latent_channels=16, width=1536, depth=36, heads=24, token_width=1024)
        return cls(**(sizes | changes))

    @property
    def head_width(self) -> int:
        """Channels of one head."""
        return self.width // self.heads

    @property
    def swiglu_width(self) -> int:
        """Hidden width of the SwiGLU before padding."""
        return int(2 / 3 * int(self.width * self.mlp_ratio))

    @property
    def padded_swiglu_width(self) -> int:
        """Hidden width of the SwiGLU as stored."""
        return math.ceil(self.swiglu_width / self.swiglu_multiple) * self.swiglu_multiple


class SelfAttention(nnx.Module):
    """Attention among the picture's tokens; qkv is one matrix [width, 3, heads, head_width]."""

    def __init__(self, settings: LightningDiTSettings, *, rngs: nnx.Rngs):
        heads, head_width = settings.heads, settings.head_width
        norm = RMSNorm if settings.rms_norm else LayerNorm
        self.qkv = Linear(settings.width, (3, heads, head_width), rngs=rngs)
        self.q_norm = norm(head_width) if settings.qk_norm else None
        self.k_norm = norm(head_width) if settings.qk_norm else None
        self.proj = Linear(settings.width, settings.width, rngs=rngs)

    def __call__(self, x: Array, table, dtype: DTypeLike) -> Array:
        query, key, value = jnp.moveaxis(self.qkv(x, dtype), 2, 0)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query).astype(dtype), self.k_norm(key).astype(dtype)
        if table is not None:
            query, key = rotate(query, table), rotate(key, table)
        y = attention(query, key, value)
        return self.proj(y.reshape(*x.shape[:2], -1), dtype)


class CrossAttention(nnx.Module):
    """Attention of the picture's tokens to the visual tokens."""

    def __init__(self, settings: LightningDiTSettings, *, rngs: nnx.Rngs):
        heads = (settings.heads, settings.head_width)
        self.query = Linear(settings.width, heads, rngs=rngs)
        self.key = Linear(settings.width, heads, rngs=rngs)
        self.value = Linear(settings.width, heads, rngs=rngs)
        self.q_norm = RMSNorm(settings.head_width) if settings.qk_norm else None
        self.k_norm = RMSNorm(settings.head_width) if settings.qk_norm else None
        self.proj = Linear(settings.width, settings.width, rngs=rngs)

    def __call__(self, x: Array, context: Array, dtype: DTypeLike) -> Array:
        query, key = self.query(x, dtype), self.key(context, dtype)
        value = self.value(context, dtype)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query).astype(dtype), self.k_norm(key).astype(dtype)
        y = attention(query, key, value)
        return self.proj(y.reshape(*x.shape[:2], -1), dtype)


class SwiGLU(nnx.Module):
    """out(silu(a) * b) with (a, b) = gate_up(x); the hidden axis may carry zero padding."""

    def __init__(self, settings: LightningDiTSettings, *, rngs: nnx.Rngs):
        live, padded = settings.swiglu_width, settings.padded_swiglu_width
        self.gate_up = Linear(settings.width, (2, padded), rngs=rngs, live=live)
        self.out = Linear(live, settings.width, rngs=rngs)
        if padded > live:
            kernel = jnp.pad(self.out.kernel[...], ((0, padded - live), (0, 0)))
            self.out.kernel = nnx.Param(kernel)

    def __call__(self, x: Array, dtype: DTypeLike) -> Array:
        gate, up = jnp.moveaxis(self.gate_up(x, dtype), -2, 0)
        return self.out(jax.nn.silu(gate) * up, dtype)


class Mlp(nnx.Module):
    """Two linear maps with the tanh form of GELU between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, rngs: nnx.Rngs):
        self.hidden = Linear(inputs, hidden, rngs=rngs)
        self.out = Linear(hidden, outputs, rngs=rngs)

    def __call__(self, x: Array, dtype: DTypeLike) -> Array:
        return self.out(jax.nn.gelu(self.hidden(x, dtype), approximate=True), dtype)


def _token_norm(settings: LightningDiTSettings) -> RMSNorm | LayerNorm:
    if settings.rms_norm:
        return RMSNorm(settings.width)
    return LayerNorm(settings.width, affine=False, epsilon=1e-6)


class Block(nnx.Module):
    """Modulated attention, plain cross-attention, modulated MLP; the residual stays float32."""

    def __init__(self, settings: LightningDiTSettings, *, rngs: nnx.Rngs):
        width = settings.width
        self.norm1 = _token_norm(settings)
        self.attn = SelfAttention(settings, rngs=rngs)
        self.norm2 = _token_norm(settings)
        if settings.swiglu:
            self.mlp: SwiGLU | Mlp = SwiGLU(settings, rngs=rngs)
        else:
            self.mlp = Mlp(width, int(width * settings.mlp_ratio), width, rngs=rngs)
        table = jax.random.normal(rngs.params(), (6, width)) / math.sqrt(width)
        self.scale_shift_table = nnx.Param(table)
        has_tokens = settings.token_width is not None
        self.cross_attn = CrossAttention(settings, rngs=rngs) if has_tokens else None

    def __call__(self, x: Array, modulation: Array, context: Array | None, table, dtype) -> Array:
        # modulation: [B, 6, width], one for all blocks; each block adds its own table.
        parts = self.scale_shift_table[...] + modulation
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(parts, 6, axis=1)
        x = x + gate1 * self.attn(self.norm1(x) * (1 + scale1) + shift1, table, dtype)
        if self.cross_attn is not None and context is not None:
            x = x + self.cross_attn(x, context, dtype)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2, dtype)


class FinalLayer(nnx.Module):
    """Modulated norm and a linear map to patches; it starts at zero unless a detailer follows."""

    def __init__(self, settings: LightningDiTSettings, outputs: int, *, rngs: nnx.Rngs):
        self.norm = _token_norm(settings)
        init = "xavier" if settings.detail_width else "zeros"
        self.linear = Linear(settings.width, outputs, rngs=rngs, init=init)
        self.modulation = Linear(settings.width, (2, settings.width), rngs=rngs, init="zeros")

    def __call__(self, x: Array, time: Array, dtype: DTypeLike) -> Array:
        shift, scale = jnp.split(self.modulation(jax.nn.silu(time)), 2, axis=1)
        return self.linear(self.norm(x) * (1 + scale) + shift, dtype)


class LightningDiT(nnx.Module):
    """The denoiser.

    Args:
      settings: sizes and parts.
      rngs: source of the initial parameters (official initialization).
      dtype: of the matrix products; residual stream, norms, softmax and gates stay float32.
      remat: what is recomputed in the backward pass: "none", "full" (all of a block) or
        "dots" (all but matrix products without batch axes).
    """

    def __init__(
        self,
        settings: LightningDiTSettings,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        remat: Remat = "none",
    ):
        self.settings = settings
        self.dtype = jnp.dtype(dtype)
        self.remat = remat
        width, detail = settings.width, settings.detail_width
        patch_area = settings.patch_size**2
        pair, single = 2 * settings.latent_channels, settings.latent_channels
        self.patch_embed = Linear(patch_area * (detail or pair), width, rngs=rngs)
        self.t_embedding = TimeEmbedding(width, rngs=rngs)
        self.r_embedding = TimeEmbedding(width, rngs=rngs) if settings.r_embedding else None
        self.modulation = Linear(width, (6, width), rngs=rngs, init="normal")
        if settings.token_width is not None:
            hidden = width * settings.token_hidden_ratio
            self.token_norm: LayerNorm | None = LayerNorm(settings.token_width)
            self.token_mlp: Mlp | None = Mlp(settings.token_width, hidden, width, rngs=rngs)
        else:
            self.token_norm, self.token_mlp = None, None
        self.blocks = _stacked_blocks(settings, rngs)
        self.final = FinalLayer(settings, patch_area * (detail or single), rngs=rngs)
        self.detailer = (
            Detailer(pair, single, detail, settings.detail_blocks, width, rngs=rngs)
            if detail
            else None
        )

    def __call__(
        self,
        condition: Array,
        noisy: Array,
        t: Array,
        visual_tokens: Array | None = None,
        r: Array | None = None,
    ) -> Array:
        """Predict the velocity (or what the parameterization makes of the output).

        Args:
          condition: [B, h, w, C] latent of the low-quality picture, full or weak.
          noisy: [B, h, w, C] z_t.
          t: [B] time in [0, 1], 1 = noise.
          visual_tokens: [B, N, token_width]; needed where settings.token_width is set.
          r: [B] end of the interval, r <= t; needed where settings.r_embedding is set.

        Returns:
          [B, h, w, C] float32.

        Raises:
          ValueError: a side is no multiple of the patch, or an input is missing.
        """
        s = self.settings
        _check_inputs(s, condition, noisy, visual_tokens, r)
        pair = jnp.concatenate([condition, noisy], -1)
        time = self.t_embedding(t)
        if self.r_embedding is not None and r is not None:
            time = time + (t - r)[:, None] * self.r_embedding(r)
        features = pair
        if self.detailer is not None:
            features = self.detailer.stem(pair, time, self.dtype)
        grid = (pair.shape[1] // s.patch_size, pair.shape[2] // s.patch_size)
        x = self.patch_embed(patchify(features, s.patch_size), self.dtype).astype(jnp.float32)

        context = None
        if self.token_norm is not None and self.token_mlp is not None and visual_tokens is not None:
            context = self.token_mlp(self.token_norm(visual_tokens), self.dtype)
        x = self._run_blocks(x, self.modulation(jax.nn.silu(time)), context, grid)

        y = unpatchify(self.final(x, time, self.dtype), grid, s.patch_size)
        if self.detailer is not None:
            y = self.detailer.head(features, y, time, self.dtype)
        return y.astype(jnp.float32)

    def _run_blocks(self, x: Array, modulation: Array, context: Array | None, grid) -> Array:
        s = self.settings
        table = None
        if s.rotary:
            side = s.latent_size // s.patch_size
            table = rotary_table(grid, side, s.head_width, rescale=s.rescale_positions)
        graph, stacked = nnx.split(self.blocks)

        def body(x: Array, parameters: nnx.State) -> tuple[Array, None]:
            block = nnx.merge(graph, parameters)
            return block(x, modulation, context, table, self.dtype).astype(jnp.float32), None

        return jax.lax.scan(_rematerialized(body, self.remat), x, stacked)[0]


def _stacked_blocks(settings: LightningDiTSettings, rngs: nnx.Rngs) -> Block:
    @nnx.split_rngs(splits=settings.depth)
    @partial(nnx.vmap, in_axes=0, out_axes=0)
    def make(rngs: nnx.Rngs) -> Block:
        return Block(settings, rngs=rngs)

    return cast(Block, make(rngs))


def _rematerialized(body, remat: Remat):
    if remat == "none":
        return body
    policies = jax.checkpoint_policies
    policy = policies.dots_with_no_batch_dims_saveable if remat == "dots" else None
    # Inside a scan the optimizer can't undo the rematerialization, so no barrier is needed.
    return jax.checkpoint(body, policy=policy, prevent_cse=False)


def _check_inputs(s: LightningDiTSettings, condition, noisy, visual_tokens, r) -> None:
    if condition.shape != noisy.shape or noisy.shape[-1] != s.latent_channels:
        raise ValueError(
            f"condition {condition.shape} and noisy {noisy.shape} must be equal, "
            f"with {s.latent_channels} channels"
        )
    if noisy.shape[1] % s.patch_size or noisy.shape[2] % s.patch_size:
        raise ValueError(f"latent sides {noisy.shape[1:3]} are no multiples of {s.patch_size}")
    if (visual_tokens is None) != (s.token_width is None):
        raise ValueError(f"visual_tokens must be given exactly if token_width={s.token_width}")
    if r is None and s.r_embedding:
        raise ValueError("this network has an r input; give the interval's end r")


def patchify(x: Array, patch_size: int) -> Array:
    """[B, H, W, C] to tokens [B, H/p * W/p, p * p * C], row by row."""
    batch, height, width, channels = x.shape
    p = patch_size
    x = x.reshape(batch, height // p, p, width // p, p, channels)
    return jnp.moveaxis(x, 3, 2).reshape(batch, height * width // p**2, p * p * channels)


def unpatchify(x: Array, grid: tuple[int, int], patch_size: int) -> Array:
    """The inverse of `patchify` for a grid of (rows, columns) tokens."""
    rows, columns = grid
    p = patch_size
    x = x.reshape(x.shape[0], rows, columns, p, p, -1)
    return jnp.moveaxis(x, 2, 3).reshape(x.shape[0], rows * p, columns * p, -1)
