"""A latent that fills its rows in part gives what it alone would give."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.test_lightning_dit import SMALL, inputs, network

_DETAILED = dataclasses.replace(
    SMALL,
    token_width=None,
    latent_channels=12,
    detail_width=8,
    detail_stem_blocks=2,
    detail_blocks=2,
    pixel_width=4,
    pixel_scale=2,
    rescale_positions=False,
)
_KINDS = {
    "transformer": SMALL,
    "convolutions": dataclasses.replace(_DETAILED, pixel_width=0),
    "convolutions at the pixels": _DETAILED,
    "without a weave": dataclasses.replace(_DETAILED, remove_weave=True),
}


def _filled(latent, side: int, filling: float):
    rows, columns = (side - n for n in latent.shape[1:3])
    padding = ((0, 0), (0, rows), (0, columns), (0, 0))
    return jnp.pad(latent, padding, constant_values=filling)


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("size", [(4, 10), (8, 8), (12, 12)])
def test_what_fills_a_row_changes_nothing(kind, size):
    net = network(_KINDS[kind])
    given = inputs(_KINDS[kind], *size)
    time = net.time_features(given["t"], given.get("r"))
    memory = net.token_context(given.get("visual_tokens"))
    alone = net.denoise(given["condition"], given["noisy"], time, memory)
    condition, noisy = (_filled(given[name], 12, 7.0) for name in ("condition", "noisy"))
    extent = jnp.array([size, size])
    ours = net.denoise(condition, noisy, time, memory, extent)[:, : size[0], : size[1]]
    np.testing.assert_allclose(ours, alone, atol=2e-5)
    unaware = net.denoise(condition, noisy, time, memory)[:, : size[0], : size[1]]
    if size != (12, 12):
        assert np.abs(unaware - alone).max() > 1e-3


def test_rows_of_a_batch_have_extents_of_their_own():
    net, given = network(SMALL), inputs(SMALL, 12, 12)
    time = net.time_features(given["t"], given["r"])
    memory = net.token_context(given["visual_tokens"])
    latents = given["condition"], 0.3 * given["condition"], given["noisy"]
    constant = net.null_cross_attention()
    sizes = [(6, 12), (10, 4)]
    ours = net.denoise_both(*latents, time, memory, constant, jnp.array(sizes))
    for row, (rows, columns) in enumerate(sizes):
        cut = (x[row : row + 1, :rows, :columns] for x in latents)
        own = net.time_features(given["t"][row : row + 1], given["r"][row : row + 1])
        alone = net.denoise_both(*cut, own, memory[row : row + 1], constant)
        for branch, expected in zip(ours, alone, strict=True):
            made = branch[row : row + 1, :rows, :columns]
            np.testing.assert_allclose(made, expected, atol=2e-5)
