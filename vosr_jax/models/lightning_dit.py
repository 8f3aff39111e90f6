"""LightningDiT: the denoiser, a transformer on patches of (condition, noisy) latent pairs.

After the official models/lightningdit.py. Parameters of the blocks are stacked with a leading
depth axis and the blocks run in one scan, so compile time does not grow with depth.
"""

from functools import partial
from typing import Literal, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from vosr_jax.models.detailer import Detailer
from vosr_jax.models.layers import LayerNorm, Linear, TimeEmbedding
from vosr_jax.models.lightning_dit_block import Block, Mlp, token_norm
from vosr_jax.models.lightning_dit_settings import LightningDiTSettings
from vosr_jax.models.patches import patchify, unpatchify
from vosr_jax.models.rotary import rotary_table

__all__ = ["LightningDiT", "LightningDiTSettings", "Remat"]

Remat = Literal["none", "full", "dots"]


class FinalLayer(nnx.Module):
    """Modulated norm and a linear map to patches; it starts at zero unless a detailer follows."""

    def __init__(self, settings: LightningDiTSettings, outputs: int, *, rngs: nnx.Rngs):
        self.norm = token_norm(settings)
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
