"""Attention with JAX's Pallas kernel for TPU, which never writes the scores to memory."""

import math
from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
from jax import Array

_LANES = 128
# Largest number of rows or columns of the scores that the kernel holds on the chip at once, and of
# their queries' or keys' values: an autoencoder's one wide head takes smaller blocks.
_LARGEST_BLOCK = 1024
_LARGEST_VALUES = 1024 * 256
# Largest ratio of padded to needed scores; beyond it the formula is as fast.
_MOST_PADDING = 1.5


def splash_fits(query: Array, key: Array) -> bool:
    """Whether padding both lengths to the kernel's multiples of 128 adds little work."""
    queries, keys = query.shape[1], key.shape[1]
    return _padded(queries) * _padded(keys) <= _MOST_PADDING * queries * keys


def splash_attention(
    query: Array, key: Array, value: Array, *, saved_as: str | None = None, interpret: bool = False
) -> Array:
    """The same as `plain_attention`; scores and softmax in float32, on one device's rows and heads.

    Args:
      query: [B, N, heads, d].
      key, value: [B, M, heads, d]. Lengths that are not multiples of 128 are padded; the padding
        is a separate segment, which keeps its keys out of every softmax.
      saved_as: checkpoint name of the result and its logsumexp; saving them spares the backward
        pass a second forward pass.
      interpret: whether to run without a TPU, slowly.

    Returns:
      [B, N, heads, d] in the query's dtype.
    """
    queries, keys = query.shape[1], key.shape[1]
    _, _, heads, width = query.shape
    kernel = _kernel(heads, width, _padded(queries), _padded(keys), saved_as, interpret)
    scaled = query * jnp.asarray(1 / math.sqrt(query.shape[-1]), query.dtype)
    rows = [_pad(x).swapaxes(1, 2) for x in (scaled, key, value)]
    if (_padded(queries), _padded(keys)) == (queries, keys):
        return jax.vmap(kernel)(*rows).swapaxes(1, 2)
    # Pallas takes a tenth of a second to import, and only a TPU needs it.
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

    segments = SegmentIds(_segments(queries), _segments(keys))
    out = jax.vmap(kernel, in_axes=(0, 0, 0, None))(*rows, segments)
    return out.swapaxes(1, 2)[:, :queries]


def _padded(length: int) -> int:
    return -(-length // _LANES) * _LANES


def _pad(x: Array) -> Array:
    """Pad [B, N, heads, d] with zeros after its N rows."""
    return jnp.pad(x, ((0, 0), (0, _padded(x.shape[1]) - x.shape[1]), (0, 0), (0, 0)))


def _segments(length: int) -> Array:
    """Segment ids: 0 for real positions, 1 for padding."""
    return (jnp.arange(_padded(length)) >= length).astype(jnp.int32)


@lru_cache
def _kernel(
    heads: int, width: int, queries: int, keys: int, saved_as: str | None, interpret: bool
) -> Callable[..., Array]:
    # As above.
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel,
        splash_attention_mask,
    )

    block_q, block_kv = _block(queries, width), _block(keys, width)
    sizes = splash_attention_kernel.BlockSizes(
        block_q=block_q,
        block_kv=block_kv,
        block_q_dkv=block_q,
        block_kv_dkv=block_kv,
        use_fused_bwd_kernel=True,
    )
    # Evaluated eagerly even inside a trace, because later traces reuse the kernel.
    with jax.ensure_compile_time_eval():
        mask = splash_attention_mask.FullMask((queries, keys))
        return splash_attention_kernel.make_splash_mha(
            splash_attention_mask.MultiHeadMask([mask] * heads),
            block_sizes=sizes,
            head_shards=1,
            q_seq_shards=1,
            residual_checkpoint_name=saved_as,
            interpret=interpret,
        )


def _block(length: int, width: int) -> int:
    """The largest multiple of 128 that divides the length and suits the heads' width."""
    largest = min(length, _LARGEST_BLOCK, max(_LARGEST_VALUES // width, _LANES))
    blocks = range(_LANES, largest + 1, _LANES)
    return max(block for block in blocks if length % block == 0)
