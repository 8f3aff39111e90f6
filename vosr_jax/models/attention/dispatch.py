"""Scaled dot-product attention: the plain formula, cuDNN's kernel, and the choice by platform."""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from vosr_jax.models.attention.head_by_head import head_attention, worth_it
from vosr_jax.models.attention.splash import splash_attention, splash_fits
from vosr_jax.models.gpu_features import GPU_PLATFORMS, Gpu, local_gpu
from vosr_jax.models.layers import matmul_precision

# Checkpoint name of attention's results, for rematerialization policies.
ATTENTION = "attention"
# JAX's name of the forward pass of cuDNN's kernel, which returns the output and the logsumexp.
_CUDNN_FORWARD = "dot_product_attention_fwd_wrapper"
# (query, key, value) as in `plain_attention`.
Attention = Callable[[Array, Array, Array], Array]


def keep_attention() -> Callable[..., bool]:
    """Rematerialization policy that saves attention's results, from every implementation."""
    policies = jax.checkpoint_policies
    return policies.save_from_both_policies(
        policies.save_only_these_names(ATTENTION), _is_cudnn_forward
    )


def _is_cudnn_forward(primitive: Any, *_: object, **__: object) -> bool:
    """Rematerialization policy that saves the forward pass's results, so that it runs once.

    It goes by the primitive: unlike the results of our own kernels these have no checkpoint names,
    because JAX creates them inside its own function.
    """
    return primitive.name == _CUDNN_FORWARD


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
    out = jnp.einsum("bhnm,bmhd->bnhd", weights, value, precision=precision)
    return checkpoint_name(out, ATTENTION)


def masked_attention(query: Array, key: Array, value: Array, unpadded: Array) -> Array:
    """`plain_attention` restricted to the unpadded keys, one head after another.

    Args:
      query: [B, N, heads, d].
      key, value: [B, M, heads, d].
      unpadded: [B, M] bool, true at least once in every row.

    Returns:
      [B, N, heads, d] in the query's dtype.
    """
    precision = matmul_precision(query.dtype)
    bias = jnp.where(unpadded, 0.0, -jnp.inf)[:, None]

    def one(head: tuple[Array, Array, Array]) -> Array:
        query, key, value = head
        scores = jnp.einsum(
            "bnd,bmd->bnm", query, key, precision=precision, preferred_element_type=jnp.float32
        )
        scores = scores / math.sqrt(query.shape[-1]) + bias
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        return jnp.einsum("bnm,bmd->bnd", weights, value, precision=precision)

    heads = tuple(jnp.moveaxis(x, 2, 0) for x in (query, key, value))
    return jnp.moveaxis(jax.lax.map(one, heads), 0, 2)


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


def attention(query: Array, key: Array, value: Array) -> Array:
    """The same as `plain_attention`, with the backend's best implementation."""
    platform = jax.default_backend()
    if platform == "cpu" and worth_it(query, key):
        # A process on CPU also compiles for hardware that it does not have.
        out = jax.lax.platform_dependent(
            query, key, value, cpu=head_attention, default=plain_attention
        )
        return checkpoint_name(out, ATTENTION)
    return attention_on(platform)(query, key, value)


def use_attention(network: Any, implementation: Attention) -> None:
    """Make a frozen network compute its attention by another function, wherever it has any.

    Args:
      network: changed in place; its modules with attention have an `attention_fn`.
      implementation: as `plain_attention`.
    """
    if not isinstance(network, nnx.Module):
        return
    for _, module in nnx.iter_modules(network):
        if hasattr(module, "attention_fn"):
            module.attention_fn = implementation


def attention_on(platform: str, gpu: Gpu | None = None) -> Attention:
    """Choose the best implementation for a platform; it runs on one device's shard.

    On TPU lengths near multiples of 128 use the splash kernel. On NVIDIA GPUs half precision uses
    cuDNN's fused kernel if `cudnn_fits`. On CPU long sequences are computed head by head. In all
    other cases XLA compiles the formula. Forward-mode derivatives need `plain_attention`.

    Args:
      platform: "tpu", "gpu" or "cpu".
      gpu: the GPU's features; None means this process's own GPU.
    """
    if platform in GPU_PLATFORMS:
        return _gpu_attention(gpu or local_gpu())
    return {"tpu": _on_tpu, "cpu": _on_cpu}.get(platform, plain_attention)


def _on_cpu(query: Array, key: Array, value: Array) -> Array:
    if worth_it(query, key):
        return head_attention(query, key, value, saved_as=ATTENTION)
    return plain_attention(query, key, value)


def _on_tpu(query: Array, key: Array, value: Array) -> Array:
    # In float32 the kernel would compute products in the hardware's lower precision.
    if query.dtype == jnp.bfloat16 and splash_fits(query, key):
        return splash_attention(query, key, value, saved_as=ATTENTION)
    return plain_attention(query, key, value)


@lru_cache
def _gpu_attention(gpu: Gpu) -> Attention:
    # One object per GPU: networks with different attention objects are compiled again.
    return partial(_on_gpu, gpu)


def _on_gpu(gpu: Gpu, query: Array, key: Array, value: Array) -> Array:
    if not cudnn_fits(query, key, value, gpu):
        return plain_attention(query, key, value)
    if cudnn_has_gradient(query, key):
        return cudnn_attention(query, key, value)
    return _cudnn_forward_only(query, key, value)


@jax.custom_vjp
def _cudnn_forward_only(query: Array, key: Array, value: Array) -> Array:
    """cuDNN's attention; its gradient is that of the formula."""
    return cudnn_attention(query, key, value)


_cudnn_forward_only.defvjp(
    lambda query, key, value: jax.vjp(plain_attention, query, key, value),
    lambda pull, gradient: pull(gradient),
)
