"""Scaled dot-product attention behind one function, with the plain formula beside it."""

import math

import jax
import jax.numpy as jnp
from jax import Array

from vosr_jax.models.layers import matmul_precision


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
    """The same as `plain_attention`, by the backend's best implementation.

    On GPU half precision goes to cuDNN's fused kernel; elsewhere XLA compiles the formula.
    Shapes as in `plain_attention`.
    """
    half_precision = query.dtype in (jnp.bfloat16, jnp.float16)
    if jax.default_backend() == "gpu" and half_precision and query.shape[-1] <= 128:
        return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")
    return plain_attention(query, key, value)
