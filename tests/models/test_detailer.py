"""Convolutions around the transformer: where they start, what they see, what they train."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.models.test_lightning_dit import SMALL, initial, inputs, network
from vosr_jax.models.layers import unpatchify
from vosr_jax.models.lightning_dit.conv_stem_head import PixelHead
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
