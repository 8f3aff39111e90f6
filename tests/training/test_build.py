"""What a config becomes on the hardware that is there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from tests.training.tiny import tiny_config
from vosr_jax.models.gpu_features import Gpu
from vosr_jax.models.layers import linear_product
from vosr_jax.training.build import compute_dtype, denoiser_blueprint, gather_on
from vosr_jax.training.sharding import _gather, make_mesh


@pytest.mark.parametrize(
    "platform, gpu, expected",
    [
        ("tpu", None, jnp.bfloat16),
        ("cpu", None, jnp.float32),
        ("gpu", Gpu(True, (9, 0)), jnp.bfloat16),
        ("gpu", Gpu(True, (8, 0)), jnp.bfloat16),
        ("gpu", Gpu(True, (7, 5)), jnp.float32),
        ("gpu", Gpu(True, (7, 0)), jnp.float32),
        ("gpu", Gpu(False, architecture="gfx90a"), jnp.bfloat16),
        ("gpu", Gpu(False, architecture="gfx906"), jnp.float32),
    ],
)
def test_products_are_short_where_the_hardware_has_units_for_them(platform, gpu, expected):
    assert compute_dtype(tiny_config(), platform, gpu) == expected
    for asked in ("float32", "bfloat16"):
        config = tiny_config(model={"dtype": asked})
        assert compute_dtype(config, platform, gpu) == jnp.dtype(asked)


def test_the_residual_stream_is_short_where_the_config_says_so():
    for asked in ("float32", "bfloat16"):
        network = denoiser_blueprint(tiny_config(model={"stream_dtype": asked})).abstract()
        assert network.stream_dtype == jnp.dtype(asked)


@pytest.mark.parametrize("short", [False, True])
def test_gradients_travel_in_the_products_type_where_asked_and_arrive_in_the_parameters(short):
    mesh = make_mesh(1, 1, 1, jax.devices()[:1])
    here = NamedSharding(mesh, P())
    x, kernel = jnp.full((3, 4), 1.01, jnp.bfloat16), jnp.full((4, 2), 0.3)

    def loss(kernel):
        gathered = _gather(kernel, jnp.dtype(jnp.bfloat16), short, here, here)
        return jnp.sum(linear_product(x, gathered).astype(jnp.float32) ** 2)

    gradient = jax.grad(loss)(kernel)
    assert gradient.dtype == kernel.dtype
    is_short = (gradient == gradient.astype(jnp.bfloat16)).all()
    assert is_short == short
    np.testing.assert_allclose(gradient, jnp.full((4, 2), 7.3), rtol=0.02)


def test_the_gather_follows_the_config():
    config = tiny_config(mesh={"gradient_dtype": "bfloat16"})
    one = make_mesh(1, 1, 1, jax.devices()[:1])
    assert gather_on(config, one) is None
