"""One-head attention, chunk by chunk, over more positions than fit on a device.

The softmax keeps a running maximum and sum (arXiv 1805.02867), so the result equals that of the
whole row of scores.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

CHUNK = 1024


def streamed_attention(projected: np.ndarray, out: np.ndarray, chunk: int = CHUNK) -> None:
    """Compute softmax(q k^T / sqrt(C)) v of all positions.

    Args:
      projected: [N, 3, C] float32, query, key and value of every position.
      out: [N, C], receives the result.
      chunk: positions on the device at a time; memory grows with its square. One value for all
        images lets them share a program.
    """
    count, _, channels = projected.shape
    for first in range(0, count, chunk):
        query = _padded(projected[first : first + chunk, 0], chunk)
        carry = (
            jnp.full((chunk, 1), -jnp.inf),
            jnp.zeros((chunk, 1)),
            jnp.zeros((chunk, channels)),
        )
        for start in range(0, count, chunk):
            part = projected[start : start + chunk]
            live = np.arange(chunk) < len(part)
            key, value = (_padded(part[:, i], chunk) for i in (1, 2))
            carry = _absorb(carry, query, key, value, live)
        _, total, weighted = carry
        rows = slice(first, min(first + chunk, count))
        out[rows] = np.asarray(weighted / total)[: rows.stop - first]


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    return np.pad(rows, ((0, length - len(rows)), (0, 0)))


@partial(jax.jit, donate_argnums=0)
def _absorb(carry, query: Array, key: Array, value: Array, live: Array):
    """The softmax's state after a chunk of keys: (maximum, sum of weights, weighted values)."""
    maximum, total, weighted = carry
    scores = jnp.matmul(query, key.T, precision=jax.lax.Precision.HIGHEST)
    scores = jnp.where(live, scores / math.sqrt(query.shape[-1]), -jnp.inf)
    larger = jnp.maximum(maximum, jnp.max(scores, 1, keepdims=True))
    weights, fade = jnp.exp(scores - larger), jnp.exp(maximum - larger)
    added = jnp.matmul(weights, value, precision=jax.lax.Precision.HIGHEST)
    return larger, total * fade + jnp.sum(weights, 1, keepdims=True), weighted * fade + added
