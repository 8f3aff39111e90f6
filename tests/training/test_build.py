"""What a config becomes on the hardware that is there."""

import jax.numpy as jnp
import pytest

from tests.training.tiny import tiny_config
from vosr_jax.models.gpu import Gpu
from vosr_jax.training.build import compute_dtype


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
