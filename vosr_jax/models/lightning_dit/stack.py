"""LightningDiT's stack of blocks: parameters with a leading depth axis, run in one scan.

Compile time therefore does not grow with depth.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from vosr_jax.models.attention.dispatch import Attention, keep_attention
from vosr_jax.models.lightning_dit.block import Block, Context, CrossAttention, CrossKV
from vosr_jax.models.lightning_dit.settings import LightningDiTSettings
from vosr_jax.models.lora import with_adapters
from vosr_jax.models.rotary import RotaryTable, rotary_table, rotary_table_within
from vosr_jax.parameters.blueprint import Prepare, prepared

Remat = Literal["none", "full", "attention", "dots", "offload"]
Result = TypeVar("Result")
# (parameters, keys and values, null cross-attention) of one block.
_Scanned = tuple[nnx.State[Any, Any], CrossKV | None, Array | None]
# (x, what is scanned) -> (x, the block's output if it is kept).
_Body = Callable[[Array, _Scanned], tuple[Array, Array | None]]


def stacked_blocks(settings: LightningDiTSettings, rngs: nnx.Rngs, attention: Attention) -> Block:
    """Make all blocks as one, whose parameters have a leading depth axis."""

    @nnx.split_rngs(splits=settings.depth)
    @partial(nnx.vmap, in_axes=0, out_axes=0)
    def make(rngs: nnx.Rngs) -> Block:
        block = Block(settings, rngs=rngs, attention=attention)
        return with_adapters(block, settings.lora_rank, settings.lora_alpha, rngs=rngs)

    return cast(Block, make(rngs))


def run_blocks(
    settings: LightningDiTSettings,
    blocks: Block,
    x: Array,
    modulation: Array,
    grid: tuple[int, int],
    context: Context | None,
    null: Array | None = None,
    extent: Array | None = None,
    *,
    dtype: DTypeLike,
    prepare: Prepare | None,
    remat: Remat,
    keep: bool = False,
) -> tuple[Array, Array | None]:
    """Run stacked blocks in one scan.

    Args:
      settings: the network's.
      blocks: from `stacked_blocks`.
      x: [B, N, width] tokens.
      modulation: [B, 6, width], one for all blocks.
      grid: (rows, columns) of the tokens.
      context, extent: as in `LightningDiT.denoise`.
      null: [depth, width]; every second row gets it as its cross-attention.
      dtype, prepare, remat: as in `LightningDiT`.
      keep: whether to also return each block's output.

    Returns:
      (result [B, N, width], outputs [depth, B, N, width] or None).
    """
    table: RotaryTable | None = None
    unpadded = None
    side, rescale = settings.latent_size // settings.patch_size, settings.rescale_positions
    if extent is not None:
        extent = extent // settings.patch_size
        unpadded = within_extent(grid, extent).reshape(len(extent), -1)
    if settings.rotary and extent is None:
        table = rotary_table(grid, side, settings.head_width, rescale=rescale)
    elif settings.rotary and extent is not None:
        table = rotary_table_within(grid, extent, side, settings.head_width, rescale=rescale)
    graph, stacked = nnx.split(blocks)
    kept = context if isinstance(context, CrossKV) else None

    def body(x: Array, scanned: _Scanned) -> tuple[Array, Array | None]:
        parameters, kept, null = scanned
        block = nnx.merge(graph, prepared(parameters, prepare, "blocks"))
        cross = None
        if block.cross_attn is not None and context is not None:
            read = block.cross_attn.kv(cast(Array, context), dtype) if kept is None else kept
            cross = partial(_attend, block.cross_attn, read, null, dtype)
        y = block(x, modulation, cross, table, dtype, unpadded)
        return y, y if keep else None

    return jax.lax.scan(_rematerialized(body, remat), x, (stacked, kept, null))


def map_cross_attentions(
    blocks: Block, function: Callable[[CrossAttention], Result], prepare: Prepare | None
) -> Result:
    """Apply a function to every block's cross-attention; stack the results over depth."""
    graph, stacked = nnx.split(blocks.cross_attn)

    def of_one(parameters: nnx.State[Any, Any]) -> Result:
        parameters = prepared(parameters, prepare, "blocks.cross_attn")
        return function(cast(CrossAttention, nnx.merge(graph, parameters)))

    return jax.lax.map(of_one, stacked)


def check_latents(s: LightningDiTSettings, condition: Array, noisy: Array) -> None:
    """Raise a ValueError if the latents [B, h, w, C] do not suit the settings."""
    if condition.shape != noisy.shape or noisy.shape[-1] != s.latent_channels:
        raise ValueError(
            f"condition {condition.shape} and noisy {noisy.shape} must be equal, "
            f"with {s.latent_channels} channels"
        )
    if noisy.shape[1] % s.patch_size or noisy.shape[2] % s.patch_size:
        raise ValueError(f"latent sides {noisy.shape[1:3]} are no multiples of {s.patch_size}")


def within_extent(sides: tuple[int, ...], extent: Array) -> Array:
    """Mask [B, rows, columns] bool, true within each sample's extent [B, 2]."""
    rows, columns = (jnp.arange(side) < extent[:, i, None] for i, side in enumerate(sides))
    return rows[:, :, None] & columns[:, None]


def _attend(
    cross_attn: CrossAttention, context: CrossKV, null: Array | None, dtype: DTypeLike, x: Array
) -> Array:
    """Every row's cross-attention; with null, the second row of each pair gets null."""
    if null is None:
        return cross_attn.attend(x, context, dtype)
    full = cross_attn.attend(x.reshape(-1, 2, *x.shape[1:])[:, 0], context, dtype)
    return jnp.stack([full, jnp.broadcast_to(null, full.shape)], 1).reshape(x.shape)


def _rematerialized(body: _Body, remat: Remat) -> _Body:
    if remat == "none":
        return body
    policies = jax.checkpoint_policies
    policy = {
        "full": None,
        "attention": keep_attention(),
        "dots": policies.dots_with_no_batch_dims_saveable,
        "offload": policies.offload_dot_with_no_batch_dims("device", "pinned_host"),
    }[remat]
    # Inside a scan XLA cannot undo the rematerialization, so no barrier is needed.
    return jax.checkpoint(body, policy=policy, prevent_cse=False)
