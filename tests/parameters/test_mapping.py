"""What loading holds beside the weights themselves."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from tests.training.tiny import tiny_config
from vosr_jax.parameters.lazy import HostArray
from vosr_jax.parameters.safetensors_files import give_back_pages, map_file
from vosr_jax.training.build import denoiser_blueprint
from vosr_jax.weights.export import save_export

_LOAD = """
import re, sys
import jax
from vosr_jax.weights.export import load_export
from vosr_jax.restoration import loading
jax.devices()
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
before = peak()
model = loading.load_model(sys.argv[1])
print(peak() - before, sum(array.nbytes for array in jax.live_arrays()))
"""


def _file_pages() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssFile:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]


def test_pages_that_were_read_are_given_back_and_read_again(tmp_path: Path):
    values = np.arange(4 << 20, dtype=np.uint64)
    values.tofile(tmp_path / "values")
    content, before = map_file(tmp_path / "values").view(np.uint64), _file_pages()
    assert content.sum() == values.sum()
    assert _file_pages() - before > values.nbytes * 0.9
    give_back_pages()
    assert _file_pages() - before < values.nbytes * 0.1
    np.testing.assert_array_equal(content, values)


def test_an_array_that_was_read_is_the_devices_own_without_a_copy():
    array = HostArray((3, 1000), np.float32, [lambda: np.ones(1000)] * 3, stacked=True)
    for read in (array, HostArray((5,), np.float32, [lambda: np.arange(5.0)])):
        host = np.asarray(read)
        placed = jax.device_put(host, may_alias=True)
        assert placed.unsafe_buffer_pointer() == host.ctypes.data


def test_loading_holds_hardly_more_than_the_weights(tmp_path: Path):
    config = tiny_config(model=dict(width=512, depth=12, heads=8))
    shapes = denoiser_blueprint(config).shapes
    arrays = {name: np.ones(shape.shape, np.float32) for name, shape in shapes.items()}
    plain = json.loads(json.dumps(config.to_dict()))
    folder = save_export(tmp_path / "export", plain, arrays, "float32")
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", _LOAD, str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    rise, weights = map(int, ran.stdout.split())
    assert weights > 100e6
    # One parameter is held twice at a time, and the mapped pages of some; code is read too.
    assert rise < 1.3 * weights + 80e6, (rise / weights, rise, weights)
