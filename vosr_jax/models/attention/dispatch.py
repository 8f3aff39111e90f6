"""Scaled dot-product attention behind one function, with the plain formula beside it."""

import math
from collections.abc import Callable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from vosr_jax.models.attention.cudnn import (
    cudnn_attention,
    cudnn_fits,
    cudnn_has_gradient,
    kept_of_cudnn,
)
from vosr_jax.models.attention.head_by_head import head_attention, worth_it
from vosr_jax.models.attention.splash import splash_attention, splash_fits
from vosr_jax.models.gpu import GPU_PLATFORMS, Gpu, local_gpu
from vosr_jax.models.layers import matmul_precision

# Name of attention's results for rematerialization policies; every implementation gives it.
ATTENTION = "attention"
# (query, key, value) as in `plain_attention`.
Attention = Callable[[Array, Array, Array], Array]


def keep_attention() -> Callable[..., bool]:
    """The rematerialization policy that keeps what attention gives, whichever computes it."""
    policies = jax.checkpoint_policies
    return policies.save_from_both_policies(
        policies.save_only_these_names(ATTENTION), kept_of_cudnn
    )


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
    """`plain_attention` to those keys that are live, one head after another.

    Args:
      query: [B, N, heads, d].
      key, value: [B, M, heads, d].
      unpadded: [B, M] bool, at least one in every row.

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


def attention(query: Array, key: Array, value: Array) -> Array:
    """The same as `plain_attention`, by the backend's best implementation."""
    platform = jax.default_backend()
    if platform == "cpu" and worth_it(query, key):
        # A process on CPU also compiles for hardware that is elsewhere.
        out = jax.lax.platform_dependent(
            query, key, value, cpu=head_attention, default=plain_attention
        )
        return checkpoint_name(out, ATTENTION)
    return attention_on(platform)(query, key, value)


def attention_on(platform: str, gpu: Gpu | None = None) -> Attention:
    """The best implementation for a platform; it sees one device's share.

    On TPU lengths near multiples of 128 go to the splash kernel, on NVIDIA's GPUs half
    precision to cuDNN's fused one where `cudnn_fits`; on CPU long ones are taken head by head.
    Everywhere else XLA compiles the formula. Forward-mode derivatives need `plain_attention`.

    Args:
      platform: "tpu", "gpu" or "cpu".
      gpu: what it is; None asks this process's own.
    """
    if platform in GPU_PLATFORMS:
        return _gpu_attention(gpu or local_gpu())
    return {"tpu": _on_tpu, "cpu": _on_cpu}.get(platform, plain_attention)


def _on_cpu(query: Array, key: Array, value: Array) -> Array:
    if worth_it(query, key):
        return head_attention(query, key, value, saved_as=ATTENTION)
    return plain_attention(query, key, value)


def _on_tpu(query: Array, key: Array, value: Array) -> Array:
    # In float32 the kernel's products would be of the hardware's lower precision.
    if query.dtype == jnp.bfloat16 and splash_fits(query, key):
        return splash_attention(query, key, value, saved_as=ATTENTION)
    return plain_attention(query, key, value)


@lru_cache
def _gpu_attention(gpu: Gpu) -> Attention:
    # One object a GPU: networks that differ in it are compiled again.
    return partial(_on_gpu, gpu)


def _on_gpu(gpu: Gpu, query: Array, key: Array, value: Array) -> Array:
    if not cudnn_fits(query, key, value, gpu):
        return plain_attention(query, key, value)
    if cudnn_has_gradient(query, key):
        return cudnn_attention(query, key, value)
    return _cudnn_forward_only(query, key, value)


@jax.custom_vjp
def _cudnn_forward_only(query: Array, key: Array, value: Array) -> Array:
    """cuDNN's, or where a gradient is wanted the formula."""
    return cudnn_attention(query, key, value)


_cudnn_forward_only.defvjp(
    lambda query, key, value: jax.vjp(plain_attention, query, key, value),
    lambda pull, gradient: pull(gradient),
)
