"""Torch zips written without torch come back as they were, and nothing half-written stays."""

import zipfile

import ml_dtypes
import numpy as np
import pytest

from vosr_jax.parameters.torch_reader import read_torch_zip
from vosr_jax.parameters.torch_writer import write_torch_zip


def test_every_type_and_layout_comes_back(tmp_path):
    kinds = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.int32, np.int16]
    tensors = {np.dtype(k).name: np.arange(6).astype(k).reshape(2, 3) for k in kinds}
    tensors |= {
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.asarray(2.5, np.float32),
        "bytes": np.arange(4, dtype=np.uint8),
        "truth": np.asarray([True, False]),
    }
    saved = {"config": {"a": [1, 2.5, "x", None, True]}, "model_state_dict": tensors}
    read = read_torch_zip(write_torch_zip(tmp_path / "x.pth", saved))
    assert read["config"] == saved["config"]
    for name, tensor in tensors.items():
        found = read["model_state_dict"][name]
        assert found.dtype == tensor.dtype and found.shape == tensor.shape
        assert np.array_equal(found, tensor)


def test_the_archive_is_laid_out_as_torch_does(tmp_path):
    path = write_torch_zip(tmp_path / "net.pth", {"w": np.ones(2, np.float32)})
    with zipfile.ZipFile(path) as archive:
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        names = set(archive.namelist())
        assert archive.read("net/version").strip() == b"3"
    assert names == {"net/data.pkl", "net/byteorder", "net/version", "net/data/0"}


def test_a_type_that_torch_does_not_have_leaves_no_file(tmp_path):
    with pytest.raises(KeyError):
        write_torch_zip(tmp_path / "x.pth", {"w": np.ones(2, np.complex64)})
    assert not list(tmp_path.iterdir())


def test_torch_itself_reads_it(tmp_path):
    torch = pytest.importorskip("torch")
    half = np.asarray([1.5, -2], ml_dtypes.bfloat16)
    path = write_torch_zip(tmp_path / "x.pth", {"w": np.eye(3, dtype=np.float32)[:2], "h": half})
    read = torch.load(path, weights_only=True)
    assert np.array_equal(read["w"].numpy(), np.eye(3)[:2])
    assert np.array_equal(read["h"].float().numpy(), half.astype(np.float32))
