"""Random initial values of parameters.

Inside `shapes_only` they are zeros. Code that needs only a network's shapes, such as loading
weights, then traces no random draw per parameter, which took longer than reading a small model.
"""

import contextlib
import contextvars
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

_SHAPES_ONLY = contextvars.ContextVar("shapes_only", default=False)


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Context in which `normal` and `xavier_uniform` return zeros."""
    token = _SHAPES_ONLY.set(True)
    try:
        yield
    finally:
        _SHAPES_ONLY.reset(token)


def normal(rngs: nnx.Rngs, shape: tuple[int, ...], deviation: float = 1.0) -> Array:
    """N(0, deviation^2), float32."""
    if _SHAPES_ONLY.get():
        return jnp.zeros(shape)
    return deviation * jax.random.normal(rngs.params(), shape)


def xavier_uniform(rngs: nnx.Rngs, shape: tuple[int, ...], fan_in: int, fan_out: int) -> Array:
    """U(-a, a) with a = sqrt(6 / (fan_in + fan_out)), float32; the fans are the fused matrix's."""
    if _SHAPES_ONLY.get():
        return jnp.zeros(shape)
    bound = math.sqrt(6.0 / (fan_in + fan_out))
    return jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound)
