"""Scaled dot-product attention behind one function, with the plain formula beside it."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from vosr_jax.models.head_attention import head_attention, worth_it
from vosr_jax.models.layers import matmul_precision
from vosr_jax.models.splash_attention import splash_attention, splash_fits

# Name of attention's results for rematerialization policies.
ATTENTION = "attention"
# (query, key, value) as in `plain_attention`.
Attention = Callable[[Array, Array, Array], Array]


def plain_attention(query: Array, key: Array, value: Array) -> Array:
    """softmax(q k^T / sqrt(d)) v, the softmax in float32; works under forward-mode derivatives.

    Args:
      query: [B, N, heads, d].
      key: [B, M, heads, d].
      value: [B, M, heads, d].

    Returns:
      [B, N, heads, d] in the query's dtype.
    """
    precision = matmul_precision(query.dtype)
    scores = jnp.einsum(
        "bnhd,bmhd->bhnm", query, key, precision=precision, preferred_element_type=jnp.float32
    )
    weights = jax.nn.softmax(scores / math.sqrt(query.shape[-1]), axis=-1).astype(value.dtype)
    return jnp.einsum("bhnm,bmhd->bnhd", weights, value, precision=precision)


def attention(query: Array, key: Array, value: Array) -> Array:
    """The same as `plain_attention`, by the backend's best implementation."""
    platform = jax.default_backend()
    if platform == "cpu" and worth_it(query, key):
        # A process on CPU also compiles for hardware that is elsewhere.
        return jax.lax.platform_dependent(
            query, key, value, cpu=head_attention, default=plain_attention
        )
    return attention_on(platform)(query, key, value)


def attention_on(platform: str) -> Attention:
    """The best implementation for a platform: "tpu", "gpu", "cpu"; it sees one device's share.

    On TPU lengths that are multiples of 128 go to the splash kernel, on GPU half precision to
    cuDNN's fused one; on CPU long ones are taken head by head. Everywhere else XLA compiles the
    formula. Forward-mode derivatives need `plain_attention`.
    """
    return {"tpu": _on_tpu, "gpu": _on_gpu, "cpu": _on_cpu}.get(platform, plain_attention)


def _on_cpu(query: Array, key: Array, value: Array) -> Array:
    if worth_it(query, key):
        return head_attention(query, key, value, saved_as=ATTENTION)
    return plain_attention(query, key, value)


def _on_tpu(query: Array, key: Array, value: Array) -> Array:
    # In float32 the kernel's products would be of the hardware's lower precision.
    if query.dtype == jnp.bfloat16 and splash_fits(query, key):
        return splash_attention(query, key, value, saved_as=ATTENTION)
    return plain_attention(query, key, value)


def _on_gpu(query: Array, key: Array, value: Array) -> Array:
    if query.dtype in (jnp.bfloat16, jnp.float16) and query.shape[-1] <= 128:
        return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")
    return plain_attention(query, key, value)
