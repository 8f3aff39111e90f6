"""The running softmax is the whole one."""

import numpy as np
import pytest

from vosr_jax.models.attention.dispatch import plain_attention
from vosr_jax.restoration.tiled.streaming import streamed_attention


@pytest.mark.parametrize("count, chunk", [(50, 16), (64, 64), (7, 64), (65, 64)])
@pytest.mark.parametrize("sharpness", [1.0, 30.0])
def test_chunks_give_the_plain_formula(count, chunk, sharpness):
    projected = np.random.default_rng(0).normal(size=(count, 3, 8)).astype(np.float32)
    projected[:, 0] *= sharpness
    out = np.empty((count, 8), np.float32)
    streamed_attention(projected, out, chunk)
    query, key, value = (projected[None, :, i, None] for i in range(3))
    expected = np.asarray(plain_attention(query, key, value))[0, :, 0]
    np.testing.assert_allclose(out, expected, atol=2e-5)
