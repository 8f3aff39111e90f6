"""Previews and validation lie over the devices and are those of one device."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.training.simulated import on_devices

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results() -> dict:
    """What preview_on_devices.py printed, in a process with 4 simulated devices."""
    return on_devices(4, "tests.training.preview_on_devices")


@pytest.mark.slow
def test_every_device_restores_its_own_pictures(results):
    assert results["1"]["rows a device"] == [6]
    assert results["4"]["rows a device"] == [2, 2, 2, 2], "six pictures, filled up to eight"
    assert results["4"]["filled with the last"]


@pytest.mark.slow
def test_figures_and_pictures_are_those_of_one_device(results):
    one, four = (np.asarray(results[n]["pictures"]) for n in "14")
    assert one.shape == four.shape == (6, 32, 32, 3)
    # A value that lies on the border of two grey levels may fall on either side.
    assert np.abs(one - four).max() <= 1 and np.mean(one != four) < 1e-3
    for name, value in results["1"]["figures"].items():
        assert results["4"]["figures"][name] == pytest.approx(value, rel=1e-4), name


def test_pictures_are_laid_over_the_devices_and_their_noise_is_that_of_one_device():
    code = (
        "import jax, numpy as np\n"
        "from vosr_jax.training.preview import rows_over\n"
        "from vosr_jax.training.sharding import make_mesh\n"
        "images = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2, 1)\n"
        "laid = rows_over(make_mesh(2, 2, 1), images)\n"
        "whole = np.asarray(laid)\n"
        "expected = images.astype(np.float32) / 127.5 - 1\n"
        "assert np.array_equal(whole[:6], expected) and np.array_equal(whole[6:], whole[[5, 5]])\n"
        "assert [s.data.shape[0] for s in laid.addressable_shards] == [2] * 4\n"
        "few, many = (jax.random.normal(jax.random.key(0), (n, 2, 2, 1)) for n in (6, 8))\n"
        "assert np.array_equal(few, many[:6])\n"
    )
    own = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
