"""Attention by the Pallas kernel for TPU that never writes the scores to memory."""

import math
from functools import lru_cache

import jax
import jax.numpy as jnp
from jax import Array

_LANES = 128
# Rows and columns of the scores that the kernel has on the chip at once.
_LARGEST_BLOCK = 1024


def splash_fits(query: Array, key: Array) -> bool:
    """Whether the kernel takes these lengths: both multiples of 128."""
    return query.shape[1] % _LANES == 0 and key.shape[1] % _LANES == 0


def splash_attention(
    query: Array, key: Array, value: Array, *, saved_as: str | None = None, interpret: bool = False
) -> Array:
    """The same as `plain_attention`; scores and softmax in float32, on one device's rows and heads.

    Args:
      query: [B, N, heads, d], N a multiple of 128.
      key, value: [B, M, heads, d], M a multiple of 128.
      saved_as: name under which rematerialization policies find the result and its logsumexp,
        from which the backward pass needs no second forward pass.
      interpret: run without a TPU, slowly.

    Returns:
      [B, N, heads, d] in the query's dtype.
    """
    kernel = _kernel(query.shape[2], query.shape[1], key.shape[1], saved_as, interpret)
    scaled = query * jnp.asarray(1 / math.sqrt(query.shape[-1]), query.dtype)
    rows = (x.swapaxes(1, 2) for x in (scaled, key, value))
    return jax.vmap(kernel)(*rows).swapaxes(1, 2)


@lru_cache
def _kernel(heads: int, queries: int, keys: int, saved_as: str | None, interpret: bool):
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernels,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    block_q, block_kv = _block(queries), _block(keys)
    sizes = kernels.BlockSizes(
        block_q=block_q,
        block_kv=block_kv,
        block_q_dkv=block_q,
        block_kv_dkv=block_kv,
        use_fused_bwd_kernel=True,
    )
    # Concrete although a trace is under way: the kernel is kept for later traces.
    with jax.ensure_compile_time_eval():
        return kernels.make_splash_mha(
            masks.MultiHeadMask([masks.FullMask((queries, keys))] * heads),
            block_sizes=sizes,
            head_shards=1,
            q_seq_shards=1,
            residual_checkpoint_name=saved_as,
            interpret=interpret,
        )


def _block(length: int) -> int:
    """The largest multiple of 128 that divides the length and is no longer than a block."""
    blocks = range(_LANES, min(length, _LARGEST_BLOCK) + 1, _LANES)
    return max(block for block in blocks if length % block == 0)
