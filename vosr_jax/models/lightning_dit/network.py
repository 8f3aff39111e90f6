"""LightningDiT: the denoiser, a transformer on patches of (condition, noisy) latent pairs.

After the official models/lightningdit.py. The blocks' parameters are stacked with a leading depth
axis and the blocks run in one scan, so compile time does not grow with depth.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from vosr_jax.models.attention.dispatch import Attention, attention
from vosr_jax.models.layers import LayerNorm, Linear, TimeEmbedding, patchify, unpatchify
from vosr_jax.models.lightning_dit.block import Context, CrossKV, FinalLayer, Mlp, TimeFeatures
from vosr_jax.models.lightning_dit.conv_stem_head import ConvStemHead
from vosr_jax.models.lightning_dit.settings import LightningDiTSettings
from vosr_jax.models.lightning_dit.stack import (
    Remat,
    check_latents,
    map_cross_attentions,
    run_blocks,
    stacked_blocks,
    within_extent,
)
from vosr_jax.parameters.blueprint import Prepare

__all__ = ["LightningDiT", "LightningDiTSettings", "Remat", "TimeFeatures", "Context", "CrossKV"]


class LightningDiT(nnx.Module):
    """The denoiser.

    Calling it is the plain formula. A sampler calls the network many times for one image, so it
    computes the parts separately: `cross_kv` and `null_cross_attention` once per image,
    `time_features` once for all steps, `denoise` or `denoise_both` at every step.

    Args:
      settings: sizes and parts.
      rngs: source of the initial parameters (official initialization).
      dtype: of the matrix products.
      remat: what is recomputed in the backward pass: "none"; "full", all of a block; "attention",
        all but attention's results; "dots", all but matrix products without batch axes;
        "offload", as "dots", with the saved values in host memory.
      attention: its implementation; forward-mode derivatives need `plain_attention`.
      prepare: maps each block's parameters inside the scan, for example gathers the shards of
        other devices; None leaves them.

    Softmax and the norms' statistics are float32 for every `with_dtype`.
    """

    def __init__(
        self,
        settings: LightningDiTSettings,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        remat: Remat = "none",
        attention: Attention = attention,
        prepare: Prepare | None = None,
    ):
        self.settings = settings
        self.dtype = jnp.dtype(dtype)
        self.stream_dtype = self.time_dtype = jnp.dtype(jnp.float32)
        self.remat = remat
        self.prepare = prepare
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
        self.blocks = stacked_blocks(settings, rngs, attention)
        self.final = FinalLayer(settings, patch_area * (detail or single), rngs=rngs)
        self.detailer = ConvStemHead.of(settings, rngs=rngs) if detail else None

    def __call__(
        self,
        condition: Array,
        noisy: Array,
        t: Array,
        visual_tokens: Array | None = None,
        r: Array | None = None,
    ) -> Array:
        """Predict the velocity, or the output that the parameterization defines.

        Args:
          condition: [B, h, w, C] latent of the low-quality image, full or weak.
          noisy: [B, h, w, C] z_t.
          t: [B] time in [0, 1], 1 = noise.
          visual_tokens: [B, N, token_width]; needed if settings.token_width is set.
          r: [B] end of the interval, r <= t; needed if settings.r_embedding is set.

        Returns:
          [B, h, w, C] float32.

        Raises:
          ValueError: a side is not a multiple of the patch, or an input is missing.
        """
        features = self.time_features(t, r)
        return self.denoise(condition, noisy, features, self.token_context(visual_tokens))

    def with_dtype(
        self,
        dtype: DTypeLike,
        stream_dtype: DTypeLike = jnp.float32,
        time_dtype: DTypeLike = jnp.float32,
    ) -> "LightningDiT":
        """A copy with the same parameters that computes in other types.

        Args:
          dtype: of the matrix products.
          stream_dtype: of the residual stream between them.
          time_dtype: of the times and everything derived from them: embedding, modulation, gates.
        """
        # Copied, so that casting the copy's parameters leaves this network alone.
        other = nnx.merge(*nnx.split(self), copy=True)
        other.dtype, other.stream_dtype = jnp.dtype(dtype), jnp.dtype(stream_dtype)
        other.time_dtype = jnp.dtype(time_dtype)
        return other

    def time_features(self, t: Array, r: Array | None = None) -> TimeFeatures:
        """Compute the modulations from times t [B], and r [B] if settings.r_embedding is set.

        Raises:
          ValueError: r is missing.
        """
        dtype = self.time_dtype
        t = t.astype(dtype)
        time = self.t_embedding(t, dtype)
        if self.r_embedding is not None:
            if r is None:
                raise ValueError("this network has an r input; give the interval's end r")
            r = r.astype(dtype)
            time = time + (t - r)[:, None] * self.r_embedding(r, dtype)
        active = jax.nn.silu(time)
        modulation = self.modulation(active, dtype), self.final.modulation(active, dtype)
        detail = [] if self.detailer is None else self.detailer.modulations(time, dtype)
        return TimeFeatures(*modulation, detail)

    def token_context(self, visual_tokens: Array | None) -> Array | None:
        """Project visual tokens [B, N, token_width] to the blocks' context, [B, N, width].

        Raises:
          ValueError: tokens are missing, or given to a network without them.
        """
        if (visual_tokens is None) != (self.token_mlp is None):
            expected = self.settings.token_width
            raise ValueError(f"visual_tokens must be given exactly if token_width={expected}")
        if self.token_norm is None or self.token_mlp is None or visual_tokens is None:
            return None
        return self.token_mlp(self.token_norm(visual_tokens), self.dtype)

    def cross_kv(self, context: Array | None) -> CrossKV | None:
        """Every block's keys and values, [depth, B, N, heads, head_width], from `token_context`."""
        if context is None:
            return None
        return map_cross_attentions(
            self.blocks, lambda cross: cross.kv(context, self.dtype), self.prepare
        )

    def null_cross_attention(self) -> Array | None:
        """Every block's cross-attention for all-zero visual tokens, [depth, width].

        All keys are then equal, so every query averages N equal values.
        """
        if self.settings.token_width is None:
            return None
        zeros = jnp.zeros((1, 1, self.settings.token_width))
        context = cast(Array, self.token_context(zeros))[0, 0]
        return map_cross_attentions(
            self.blocks, lambda cross: cross.constant(context, self.dtype), self.prepare
        )

    def denoise(
        self,
        condition: Array,
        noisy: Array,
        time: TimeFeatures,
        context: Context | None = None,
        extent: Array | None = None,
    ) -> Array:
        """The same as a call, from precomputed inputs.

        Args:
          condition, noisy: [B, h, w, C].
          time: of B times, or of one for all rows.
          context: `cross_kv`, or `token_context`, from which each block then recomputes its keys
            and values; None for a network without tokens.
          extent: [B, 2] int32, rows and columns, multiples of the patch, that hold a latent. The
            rest is filling; its output is meaningless. The latent's output equals that of the
            latent alone, so one compiled program serves latents of many sizes. None: all.

        Returns:
          [B, h, w, C] float32.

        Raises:
          ValueError: a side is not a multiple of the patch, or shapes disagree.
        """
        return self._denoise(condition, noisy, time, context, None, extent)

    def denoise_both(
        self,
        condition: Array,
        weak_condition: Array,
        noisy: Array,
        time: TimeFeatures,
        context: Context | None = None,
        null: Array | None = None,
        extent: Array | None = None,
    ) -> tuple[Array, Array]:
        """Compute full and weak branch in one batch; the weak branch's visual tokens are zero.

        Args:
          condition, weak_condition, noisy: [B, h, w, C].
          time, context, extent: as in `denoise`, of B rows.
          null: `null_cross_attention`; needed with a context.

        Returns:
          The two outputs, [B, h, w, C] float32 each.

        Raises:
          ValueError: as in `denoise`, or one of context and null is missing.
        """
        if (context is None) != (null is None):
            raise ValueError("context and null belong together; give both or neither")
        # A sample's two rows lie side by side, so a sharded batch needs no transfer.
        pairs = jnp.stack([condition, weak_condition], 1).reshape(-1, *condition.shape[1:])
        if time.blocks.shape[0] > 1:
            time = jax.tree.map(lambda x: jnp.repeat(x, 2, axis=0), time)
        extent = None if extent is None else jnp.repeat(extent, 2, axis=0)
        both = self._denoise(pairs, jnp.repeat(noisy, 2, axis=0), time, context, null, extent)
        both = both.reshape(-1, 2, *noisy.shape[1:])
        return both[:, 0], both[:, 1]

    def block_outputs(
        self, condition: Array, noisy: Array, time: TimeFeatures, context: Context | None = None
    ) -> Array:
        """Outputs of all blocks, [depth, B, h / patch * w / patch, width]; arguments as `denoise`.

        Raises:
          ValueError: as in `denoise`.
        """
        _, x, grid = self._embedded(condition, noisy, time, context, None)
        return cast(Array, self._run_blocks(x, time.blocks, grid, context, keep=True)[1])

    def _denoise(
        self,
        condition: Array,
        noisy: Array,
        time: TimeFeatures,
        context: Context | None,
        null: Array | None,
        extent: Array | None,
    ) -> Array:
        unpadded = None if extent is None else within_extent(noisy.shape[1:3], extent)[..., None]
        features, x, grid = self._embedded(condition, noisy, time, context, unpadded)
        x = self._run_blocks(x, time.blocks, grid, context, null, extent)[0]
        y = unpatchify(self.final(x, time.final, self.dtype), grid, self.settings.patch_size)
        if self.detailer is not None:
            y = self.detailer.head(features, y, time.detail, self.dtype, unpadded)
        return y.astype(jnp.float32)

    def _embedded(
        self,
        condition: Array,
        noisy: Array,
        time: TimeFeatures,
        context: Context | None,
        unpadded: Array | None,
    ) -> tuple[Array, Array, tuple[int, int]]:
        """Compute (features on the latent's pixels, tokens, the tokens' grid)."""
        s = self.settings
        check_latents(s, condition, noisy)
        if (context is None) != (s.token_width is None):
            raise ValueError(f"context must be given exactly if token_width={s.token_width}")
        features = jnp.concatenate([condition, noisy], -1)
        if self.detailer is not None:
            features = self.detailer.stem(features, time.detail, self.dtype, unpadded)
        grid = (noisy.shape[1] // s.patch_size, noisy.shape[2] // s.patch_size)
        x = self.patch_embed(patchify(features, s.patch_size), self.dtype)
        return features, x.astype(self.stream_dtype), grid

    def _run_blocks(self, *inputs: Any, keep: bool = False) -> tuple[Array, Array | None]:
        return run_blocks(
            *(self.settings, self.blocks, *inputs),
            dtype=self.dtype,
            prepare=self.prepare,
            remat=self.remat,
            keep=keep,
        )
