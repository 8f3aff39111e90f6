"""The reader of torch files takes tensors and plain containers, and nothing else."""

import os
import pickle
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest

from tests.parameters.torch_files import save_torch, write_zip
from vosr_jax.errors import UserError
from vosr_jax.parameters.torch_reader import read_torch_zip


def test_tensors_and_plain_containers_come_back_as_saved(tmp_path):
    saved = {
        "config": {"channels": [1, 2], "name": "x", "rate": 0.5, "on": True, "none": None},
        "model_state_dict": OrderedDict(
            single=np.arange(6, dtype=np.float32).reshape(2, 3),
            half=np.ones((2, 2), np.float16),
            brain=np.asarray([[1.5, -2.0]], ml_dtypes.bfloat16),
            scalar=np.asarray(7, np.int64),
        ),
    }
    read = read_torch_zip(save_torch(tmp_path / "x.pth", saved))
    assert read["config"] == saved["config"]
    for name, tensor in saved["model_state_dict"].items():
        found = read["model_state_dict"][name]
        assert found.dtype == tensor.dtype and np.array_equal(found, tensor)


def test_tensors_are_mapped_from_the_file_and_read_only(tmp_path):
    tensor = read_torch_zip(save_torch(tmp_path / "x.pth", [np.ones(4, np.float32)]))[0]
    base = tensor
    while getattr(base, "base", None) is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    with pytest.raises(ValueError):
        tensor[0] = 2


class _Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_a_hostile_pickle_is_refused_by_name_and_not_run(tmp_path, protocol):
    marker = tmp_path / "ran"
    hostile = pickle.dumps({"weight": _Hostile(marker)}, protocol)
    path = write_zip(tmp_path / "bad.pth", hostile, {})
    with pytest.raises(UserError, match=r"bad\.pth holds the name (posix|nt)\.mkdir"):
        read_torch_zip(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("pickled", "reason"),
    [
        (b"cbuiltins\neval\n.", "the name builtins.eval"),
        (b"\x80\x02\x82\x01.", "the pickle instruction EXT1"),
        (b"ctorch\nFloatStorage\n)R.", "a call of torch.FloatStorage"),
        (b"\x80\x02}q\x00", "damaged"),
        (b"\x80\x02R.", "damaged"),
        (b"\x80\x02}]K\x01s.", "damaged"),
        (b"\x80\x02cos\nsys", "damaged"),
        (b"", "damaged"),
        (b"\xff\xff", "damaged"),
    ],
)
def test_a_pickle_that_torch_would_not_write_is_one_sentence(tmp_path, pickled, reason):
    path = write_zip(tmp_path / "odd.pth", pickled, {})
    with pytest.raises(UserError, match=reason) as caught:
        read_torch_zip(path)
    assert "odd.pth" in str(caught.value)


def _tensor_pickle(offset: int, size: tuple, stride: tuple, count: int) -> bytes:
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu"
    storage += b"J" + count.to_bytes(4, "little", signed=True) + b"tQ"
    ends = [pickle.dumps(x, 2)[2:-1] for x in (offset, size, stride)]
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"".join(ends) + b"tR."


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((0, (3,), (1,), 4), None),
        ((0, (2, 2), (1, 2), 4), None),
        ((0, (5,), (1,), 4), "reaches beyond"),
        ((2, (3,), (1,), 4), "reaches beyond"),
        ((0, (2,), (4,), 4), "reaches beyond"),
        ((-1, (2,), (1,), 4), "size"),
        ((0, (2,), (-1,), 4), "size"),
        ((0, (2, 2), (1,), 4), "size"),
        ((0, (2,), (1,), 400), "truncated"),
        ((0, (2,), (1,), -4), "elements"),
    ],
)
def test_a_tensor_stays_within_its_storage(tmp_path, arguments, reason):
    content = np.arange(4, dtype=np.float32).tobytes()
    path = write_zip(tmp_path / "t.pth", _tensor_pickle(*arguments), {"0": content})
    if reason is None:
        offset, size, stride, _ = arguments
        expected = np.lib.stride_tricks.as_strided(
            np.arange(4, dtype=np.float32)[offset:], size, [4 * s for s in stride]
        )
        assert np.array_equal(read_torch_zip(path), expected)
    else:
        with pytest.raises(UserError, match=reason):
            read_torch_zip(path)


def test_a_missing_storage_is_named(tmp_path):
    path = write_zip(tmp_path / "t.pth", _tensor_pickle(0, (2,), (1,), 4), {})
    with pytest.raises(UserError, match="storage '0' are missing"):
        read_torch_zip(path)


def test_every_truncation_of_a_file_is_one_sentence(tmp_path):
    path = save_torch(tmp_path / "x.pth", {"a": np.ones((3, 3), np.float32)})
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"x\.pth"):
            read_torch_zip(path)


def test_random_damage_never_gives_anything_but_one_sentence(tmp_path):
    path = save_torch(tmp_path / "x.pth", {"a": np.ones((3, 3), np.float32), "b": [1, "x"]})
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            read_torch_zip(path)
        except UserError:
            refused += 1
    assert refused > 20


def test_a_file_that_is_no_torch_zip_is_named(tmp_path):
    path = tmp_path / "text.pth"
    path.write_text("hello")
    with pytest.raises(UserError, match=r"text\.pth is no torch zip"):
        read_torch_zip(path)
    path.write_text("")
    with pytest.raises(UserError, match=r"text\.pth is empty"):
        read_torch_zip(path)
    with pytest.raises(UserError, match=r"gone\.pth cannot be read"):
        read_torch_zip(tmp_path / "gone.pth")
    with pytest.raises(UserError, match="cannot be read"):
        read_torch_zip(tmp_path)


def test_compressed_or_big_endian_tensors_are_refused(tmp_path):
    path = tmp_path / "t.pth"
    pickled, content = _tensor_pickle(0, (2,), (1,), 4), bytes(16)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t/data.pkl", pickled)
        archive.writestr("t/data/0", content)
    with pytest.raises(UserError, match="storage '0' is compressed"):
        read_torch_zip(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("t/data.pkl", pickled)
        archive.writestr("t/byteorder", "big")
        archive.writestr("t/data/0", content)
    with pytest.raises(UserError, match="big-endian"):
        read_torch_zip(path)


def test_a_pickle_that_unpacks_to_more_than_any_list_of_tensors_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("vosr_jax.parameters.torch_reader._LARGEST_PICKLE", 8)
    with pytest.raises(UserError, match="larger than any"):
        read_torch_zip(save_torch(tmp_path / "x.pth", {"a": [1, 2, 3, 4, 5]}))
