"""Layers of all networks: linear maps, convolutions, norms, time embedding, patches.

Parameters are float32. A layer that takes `dtype` computes its matrix product in that dtype and
returns it. Norms compute their statistics in float32 for every input.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.custom_derivatives import SymbolicZero, linear_call
from jax.typing import DTypeLike

from vosr_jax.parameters.initial import normal, xavier_uniform

Network = TypeVar("Network")
Padding = str | Sequence[tuple[int, int]]


def matmul_precision(dtype: DTypeLike) -> jax.lax.Precision | None:
    """Full precision for float32, whose default on TPU and GPU is lower; the default otherwise.

    Inside `jax.default_matmul_precision` float32 products follow that setting.
    """
    if jnp.dtype(dtype) != jnp.float32:
        return jax.lax.Precision.DEFAULT
    asked = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return None if asked else jax.lax.Precision.HIGHEST


def _contract_last(x: Array, kernel: Array) -> Array:
    dimensions = (((x.ndim - 1,), (0,)), ((), ()))
    return jax.lax.dot_general(x, kernel, dimensions, precision=matmul_precision(x.dtype))


def _summed_in(dtype: DTypeLike, x: Array, kernel: Array) -> Array:
    """x by a kernel of a shorter type, multiplied in the kernel's type and summed in dtype."""
    dimensions = (((x.ndim - 1,), (0,)), ((), ()))
    x = x.astype(kernel.dtype)
    return jax.lax.dot_general(x, kernel, dimensions, preferred_element_type=jnp.dtype(dtype))


@jax.custom_jvp
def linear_product(x: Array, kernel: Array) -> Array:
    """x [..., inputs] by kernel [inputs, *outputs] in x's dtype.

    The kernel's gradient is summed and returned in the kernel's own dtype. A float32 master weight
    thus gets a float32 gradient even with bfloat16 products.
    """
    return _contract_last(x, kernel.astype(x.dtype))


@partial(linear_product.defjvp, symbolic_zeros=True)
def _linear_product_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array | SymbolicZero, Array | SymbolicZero]
) -> tuple[Array, Array]:
    (x, kernel), (x_dot, kernel_dot) = primals, tangents
    value = linear_product(x, kernel)
    tangent = jnp.zeros_like(value)
    if not isinstance(x_dot, SymbolicZero):
        tangent += _contract_last(x_dot, kernel.astype(x.dtype))
    if not isinstance(kernel_dot, SymbolicZero):
        to_kernel = partial(_to_kernel, dtype=kernel.dtype)
        tangent += linear_call(_by_kernel, to_kernel, x, kernel_dot)
    return value, tangent


def _by_kernel(x: Array, kernel: Array) -> Array:
    return _contract_last(x, kernel.astype(x.dtype))


def _to_kernel(x: Array, cotangent: Array, *, dtype: DTypeLike) -> Array:
    """The transpose of `_by_kernel`: [inputs, *outputs] in the kernel's dtype."""
    rows = tuple(range(x.ndim - 1))
    return jax.lax.dot_general(
        x,
        cotangent,
        ((rows, rows), ((), ())),
        precision=matmul_precision(x.dtype),
        preferred_element_type=dtype,
    )


class Linear(nnx.Module):
    """x @ kernel + bias with kernel [inputs, *outputs]; the outputs may be several axes.

    Args:
      inputs: length of the contracted last axis.
      outputs: one or more output axes.
      rngs: source of the initial kernel.
      init: "xavier" (over the fused matrix), "normal" (deviation 0.02) or "zeros".
      unpadded: real length of the last axis, if it is padded; the padding is zero.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int | tuple[int, ...],
        *,
        rngs: nnx.Rngs,
        init: str = "xavier",
        unpadded: int | None = None,
    ):
        shape = (outputs,) if isinstance(outputs, int) else tuple(outputs)
        real = (*shape[:-1], unpadded or shape[-1])
        if init == "xavier":
            kernel = xavier_uniform(rngs, (inputs, *real), inputs, math.prod(real))
        elif init == "normal":
            kernel = normal(rngs, (inputs, *real), 0.02)
        else:
            kernel = jnp.zeros((inputs, *real))
        padding = [(0, 0)] * (len(shape)) + [(0, shape[-1] - real[-1])]
        self.kernel = nnx.Param(jnp.pad(kernel, padding))
        self.bias = nnx.Param(jnp.zeros(shape))
        self.product_dtype: jnp.dtype | None = None
        self.kept_dtype: jnp.dtype | None = None
        # An adapter set by models/lora.py; its output is added to the product.
        self.lora: nnx.Module | None = nnx.data(None)

    def __call__(self, x: Array, dtype: DTypeLike = jnp.float32) -> Array:
        if self.product_dtype is not None:
            y = _summed_in(dtype, x, self.kernel[...]) + self.bias[...].astype(dtype)
            return y if self.kept_dtype is None else y.astype(self.kept_dtype)
        product = linear_product(x.astype(dtype), self.kernel[...])
        if self.lora is not None:
            product = product + cast(Any, self.lora)(x, dtype)
        return product + self.bias[...].astype(dtype)


class Conv(nnx.Module):
    """3x3 convolution, zero padding, NHWC."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs, init: str = "xavier"):
        shape = (3, 3, inputs, outputs)
        if init == "xavier":
            kernel = xavier_uniform(rngs, shape, 9 * inputs, 9 * outputs)
        else:
            kernel = jnp.zeros(shape)
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.product_dtype: jnp.dtype | None = None
        self.kept_dtype: jnp.dtype | None = None

    def __call__(
        self,
        x: Array,
        dtype: DTypeLike = jnp.float32,
        *,
        stride: int = 1,
        padding: Padding = "SAME",
    ) -> Array:
        """Convolve [B, H, W, inputs] in dtype, unless `products_in` set another for products."""
        product = self.product_dtype or jnp.dtype(dtype)
        y = jax.lax.conv_general_dilated(
            x.astype(product),
            self.kernel[...].astype(product),
            window_strides=(stride, stride),
            padding=padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=matmul_precision(product),
            preferred_element_type=jnp.dtype(dtype),
        )
        y = y + self.bias[...].astype(dtype)
        return y if self.kept_dtype is None else y.astype(self.kept_dtype)


def activations_in(network: Network, dtype: DTypeLike) -> Network:
    """The same as `products_in`, with each layer's output kept in that type too.

    Products are summed, biases added and norms computed in float32. The activations in memory
    between the layers take half the bytes.
    """
    other = products_in(network, dtype)
    for _, module in nnx.iter_modules(cast(nnx.Module, other)):
        if isinstance(module, Conv | Linear):
            module.kept_dtype = jnp.dtype(dtype)
    return other


def products_in(network: Network, dtype: DTypeLike) -> Network:
    """A copy of a network whose convolutions and linear maps multiply in another type.

    Kernels are stored in that type. Sums of products and everything between them are computed as
    before. For networks whose layers are called with dtype float32.
    """
    other = nnx.merge(*nnx.split(network), copy=True)
    for _, module in nnx.iter_modules(cast(nnx.Module, other)):
        if isinstance(module, Conv | Linear):
            module.product_dtype = jnp.dtype(dtype)
            module.kernel = nnx.Param(module.kernel[...].astype(dtype))
    return other


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + 1e-6) * weight, over the last axis, in float32."""

    def __init__(self, width: int):
        self.weight = nnx.Param(jnp.ones(width))

    def __call__(self, x: Array) -> Array:
        x = x.astype(jnp.float32)
        return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * self.weight[...]


class LayerNorm(nnx.Module):
    """Zero mean and unit variance over the last axis, in float32; weight and bias if affine."""

    def __init__(self, width: int, *, affine: bool = True, epsilon: float = 1e-5):
        self.epsilon = epsilon
        self.weight = nnx.Param(jnp.ones(width)) if affine else None
        self.bias = nnx.Param(jnp.zeros(width)) if affine else None

    def __call__(self, x: Array) -> Array:
        x = x.astype(jnp.float32)
        centred = x - jnp.mean(x, -1, keepdims=True)
        variance = jnp.mean(centred * centred, -1, keepdims=True)
        y = centred * jax.lax.rsqrt(variance + self.epsilon)
        if self.weight is None or self.bias is None:
            return y
        return y * self.weight[...] + self.bias[...]


def timestep_embedding(t: Array, width: int, longest_period: float = 10_000.0) -> Array:
    """Sinusoids of t, cosines first; t in [0, 1] enters unscaled.

    Args:
      t: [B] float32.
      width: even number of channels.
      longest_period: the slowest sinusoid's period over 2 pi.

    Returns:
      [B, width] float32.
    """
    half = width // 2
    frequencies = jnp.exp(-math.log(longest_period) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = t.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)


class TimeEmbedding(nnx.Module):
    """Sinusoids through a two-layer MLP; its weights start as N(0, 0.02)."""

    def __init__(self, width: int, *, rngs: nnx.Rngs, frequencies: int = 256):
        self.frequencies = frequencies
        self.hidden = Linear(frequencies, width, rngs=rngs, init="normal")
        self.out = Linear(width, width, rngs=rngs, init="normal")

    def __call__(self, t: Array, dtype: DTypeLike = jnp.float32) -> Array:
        waves = timestep_embedding(t, self.frequencies)
        return self.out(jax.nn.silu(self.hidden(waves, dtype)), dtype)


def patchify(x: Array, patch_size: int) -> Array:
    """Convert [B, H, W, C] to tokens [B, H/p * W/p, p * p * C], row by row.

    A NumPy array stays one.
    """
    batch, height, width, channels = x.shape
    p = patch_size
    x = x.reshape(batch, height // p, p, width // p, p, channels)
    return x.swapaxes(2, 3).reshape(batch, height * width // p**2, p * p * channels)


def unpatchify(x: Array, grid: tuple[int, int], patch_size: int) -> Array:
    """The inverse of `patchify` for a grid of (rows, columns) tokens."""
    rows, columns = grid
    p = patch_size
    x = x.reshape(x.shape[0], rows, columns, p, p, -1)
    return x.swapaxes(2, 3).reshape(x.shape[0], rows * p, columns * p, -1)
