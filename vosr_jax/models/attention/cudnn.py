"""Attention with cuDNN's fused kernel on NVIDIA GPUs."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vosr_jax.models.gpu import Gpu

# JAX's name of the kernel's forward pass, which returns the output and the logsumexp.
_FORWARD = "dot_product_attention_fwd_wrapper"


def cudnn_fits(query: Array, key: Array, value: Array, gpu: Gpu) -> bool:
    """Whether the kernel supports these arrays on this GPU, without a gradient.

    Args:
      query: [B, N, heads, d].
      key, value: [B, M, heads, d].
      gpu: the GPU that would run it.
    """
    if not (gpu.cuda and gpu.cudnn and gpu.capability >= (8, 0)):
        return False
    if gpu.capability == (10, 3) and gpu.cudnn < 91100:
        return False
    widest = 256 if gpu.capability >= (9, 0) else 128
    width, dtype = query.shape[-1], query.dtype
    return (
        dtype in (jnp.bfloat16, jnp.float16)
        and key.dtype == value.dtype == dtype
        and width % 8 == 0
        and width <= widest
    )


def cudnn_has_gradient(query: Array, key: Array) -> bool:
    """Whether JAX supports the kernel's gradient: both lengths must be even."""
    return query.shape[1] % 2 == 0 and key.shape[1] % 2 == 0


def cudnn_attention(query: Array, key: Array, value: Array) -> Array:
    """The same as `plain_attention` in half precision; scores and softmax in float32.

    Args:
      query: [B, N, heads, d].
      key, value: [B, M, heads, d].

    Returns:
      [B, N, heads, d] in the query's dtype.
    """
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")


def kept_of_cudnn(primitive: Any, *_, **__) -> bool:
    """Rematerialization policy that saves the forward pass's results, so that it runs once.

    It goes by the primitive: unlike the results of our own kernels these have no checkpoint names,
    because JAX creates them inside its own function.
    """
    return primitive.name == _FORWARD
