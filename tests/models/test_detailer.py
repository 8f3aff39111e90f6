"""Convolutions around the transformer: where they start, what they see, what they train."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.models.test_lightning_dit import SMALL, initial, inputs, network
from vosr_jax.models.layers import unpatchify
from vosr_jax.models.lightning_dit.conv_stem_head import PixelHead, without_weave
from vosr_jax.parameters.blueprint import Blueprint

PIXELS = dataclasses.replace(
    SMALL,
    latent_channels=12,
    token_width=None,
    r_embedding=False,
    detail_width=8,
    detail_stem_blocks=3,
    pixel_width=4,
    pixel_scale=2,
)


def as_picture(latent: jax.Array) -> jax.Array:
    batch, height, width, _ = latent.shape
    return unpatchify(latent.reshape(batch, height * width, -1), (height, width), 2)


def stirred_head() -> PixelHead:
    head = PixelHead(6, 12, 5, 2, rngs=nnx.Rngs(0))
    head.out.kernel[...] = jax.random.normal(jax.random.key(0), head.out.kernel.shape)
    return head


def test_all_pixels_of_a_square_start_alike():
    plain = as_picture(stirred_head()(jnp.ones((1, 6, 6, 6)), jnp.float32))[0, 4:-4, 4:-4]
    assert np.ptp(plain, axis=(0, 1)).max() < 1e-5 < np.abs(plain).max()


def test_pixels_see_across_the_border_of_their_square():
    head = stirred_head()
    kernel = head.spread.kernel[...]
    head.spread.kernel[...] = jnp.zeros_like(kernel).at[1, 1].set(kernel[1, 1])
    features = jnp.ones((1, 6, 6, 6))
    before, after = (head(x, jnp.float32) for x in (features, features.at[0, 3, 3].add(1.0)))
    moved = np.abs(as_picture(after - before))[0].max(-1)
    # The square holds pixels 6 and 7; two convolutions reach two pixels further.
    assert moved[6, 5] > 0 and moved[5, 7] > 0 and moved[8, 8] > 0
    assert not moved[:4].any() and not moved[:, 10:].any()


def test_the_network_with_pixels_starts_at_zero_and_every_parameter_learns():
    model, given = network(PIXELS), inputs(PIXELS)
    graph, state = nnx.split(model)
    fresh = Blueprint(lambda: model).merge(initial(PIXELS))
    assert not fresh(**given).any()

    def loss(state):
        return jnp.sum(nnx.merge(graph, state)(**given) ** 2)

    output = model(**given)
    assert output.shape == given["noisy"].shape and np.abs(output).max() > 1e-2
    gradients = jax.tree.leaves_with_path(jax.grad(loss)(state))
    still = [jax.tree_util.keystr(path) for path, g in gradients if not np.any(g)]
    assert not still, still


def test_without_the_new_parts_the_network_is_the_one_before():
    detailed = dataclasses.replace(PIXELS, detail_stem_blocks=1, pixel_width=0, pixel_scale=1)
    names = {name for name in initial(detailed) if name.startswith("detailer.")}
    parts = {name.split(".")[1] for name in names}
    assert parts == {"embed", "refine", "blocks", "out"}
    assert "detailer.out.kernel" in names
    added = {name for name in initial(PIXELS) if name.startswith("detailer.")} - names
    assert {name.split(".")[1] for name in added} == {"stem_blocks", "out"}


def squares_of(picture: np.ndarray) -> jax.Array:
    """An image [H, W, 3] as a latent of 4 x 4 pixels."""
    height, width, _ = picture.shape
    cells = picture.reshape(height // 4, 4, width // 4, 4, 3).swapaxes(1, 2)
    return jnp.asarray(cells.reshape(1, height // 4, width // 4, 48), jnp.float32)


def woven(seed: int, period: int = 4) -> np.ndarray:
    """A pattern of some pixels, three colours, without mean and slopes."""
    rows, columns = np.indices((period, period)).reshape(2, -1)
    ramps, _ = np.linalg.qr(np.stack([np.ones(len(rows)), rows, columns], 1))
    pattern = np.random.default_rng(seed).normal(size=(len(rows), 3))
    return (pattern - ramps @ (ramps.T @ pattern)).reshape(period, period, 3)


def test_a_weave_goes_and_what_a_picture_shows_stays():
    rows, columns = np.indices((192, 192))[..., None] / 192
    ramp = (0.7 * rows - 0.2 * columns) * np.array([1.0, 0.5, -1.0])
    waves = np.sin(40 * rows**2 + 17 * columns) * np.ones(3)
    weave = squares_of(np.tile(woven(0), (48, 48, 1)))
    np.testing.assert_allclose(without_weave(squares_of(ramp)), squares_of(ramp), atol=1e-5)
    np.testing.assert_allclose(without_weave(weave), 0, atol=1e-5)
    shown = squares_of(waves)
    kept = without_weave(shown)
    assert np.square(kept - shown).mean() < 1e-3 * np.square(shown).mean()
    np.testing.assert_allclose(without_weave(shown + weave), kept, atol=1e-5)


def test_a_weave_that_changes_over_the_picture_goes_from_each_part():
    parts = [np.tile(woven(seed), (24, 12, 1)) for seed in (1, 2)]
    rest = without_weave(squares_of(np.concatenate(parts, 1)))
    np.testing.assert_allclose(rest[:, :, :10].mean((1, 2)), 0, atol=0.02)
    np.testing.assert_allclose(rest[:, :, 14:].mean((1, 2)), 0, atol=0.02)
    assert np.abs(squares_of(parts[0])).mean() > 0.5


def test_a_weave_of_twice_the_period_goes_too():
    coarse = squares_of(np.tile(woven(3, 8), (32, 32, 1)))
    rest = without_weave(coarse)[:, 8:-8, 8:-8]
    assert np.square(rest).mean() < 1e-3 * np.square(coarse).mean()


def test_the_head_removes_the_weave_of_its_output():
    given = inputs(PIXELS)
    plain, clean = (
        network(dataclasses.replace(PIXELS, remove_weave=remove))(**given)
        for remove in (False, True)
    )
    np.testing.assert_allclose(clean, without_weave(plain), atol=1e-6)
    assert np.abs(clean - plain).max() > 1e-3
