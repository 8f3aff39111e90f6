"""Safetensors in several files: whole, in their order, and never from outside their folder."""

import json

import ml_dtypes
import numpy as np
import pytest

from vosr_jax.errors import UserError
from vosr_jax.parameters.safetensors_files import find_safetensors, shard_files, write_safetensors
from vosr_jax.parameters.tensors import read_tensors

TENSORS = {
    "b": np.arange(30, dtype=np.float32).reshape(5, 6).T,
    "a": np.ones(10, np.float16),
    "c": np.full((2, 3), -1.5, ml_dtypes.bfloat16),
    "d": np.zeros((), np.int64),
}


@pytest.fixture
def index(tmp_path):
    return write_safetensors(tmp_path, "model", TENSORS, 60)[-1]


def test_shards_give_back_every_bit_type_and_the_order(tmp_path, index):
    assert index == tmp_path / "model.safetensors.index.json" == find_safetensors(tmp_path, "model")
    assert len(shard_files(index)) == 2
    assert json.loads(index.read_text())["metadata"]["total_size"] == 120 + 20 + 12 + 8
    read = read_tensors(index)
    assert list(read) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype and np.array_equal(read[name], tensor)


def test_few_bytes_are_one_file_without_index(tmp_path):
    assert write_safetensors(tmp_path, "x", TENSORS) == [tmp_path / "x.safetensors"]
    assert find_safetensors(tmp_path, "x") == tmp_path / "x.safetensors"
    assert find_safetensors(tmp_path, "y") is None
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("outside", ["../x.safetensors", "/etc/passwd", "a/b", "..", "", "a\\b", 3])
def test_an_index_that_points_outside_its_folder_is_refused(tmp_path, index, outside):
    content = json.loads(index.read_text())
    content["weight_map"]["a"] = outside
    index.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"index\.json puts a into .* nothing was read"):
        read_tensors(index)


def test_a_missing_or_truncated_shard_is_named(index):
    shard = shard_files(index)[1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-3])
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors is truncated"):
        read_tensors(index)
    shard.unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors does not exist"):
        read_tensors(index)


def test_an_index_and_its_shards_must_agree(tmp_path, index):
    content = json.loads(index.read_text())
    changed = {k: v for k, v in content["weight_map"].items() if k != "d"}
    index.write_text(json.dumps({"weight_map": changed}))
    with pytest.raises(UserError, match="holds the unexpected tensor d"):
        read_tensors(index)
    first = shard_files(index)[0].name
    index.write_text(json.dumps({"weight_map": content["weight_map"] | {"e": first}}))
    with pytest.raises(UserError, match="lacks the tensor e"):
        read_tensors(index)
    for damaged in ("{}", '{"weight_map": []}', '{"weight_map": {}}'):
        index.write_text(damaged)
        with pytest.raises(UserError, match="has no weight_map"):
            read_tensors(index)
    index.write_text("{")
    with pytest.raises(UserError, match="no readable json"):
        read_tensors(index)
