"""Tensors go into a network only where each one is there, expected and of the right shape."""

import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from tests.parameters.torch_files import save_torch
from vosr_jax.errors import UserError
from vosr_jax.models.layers import Linear
from vosr_jax.parameters.tensors import (
    CONV,
    FLAT,
    POINTWISE,
    SAME,
    Entry,
    assign,
    dense,
    read_tensors,
    to_official,
)

TABLE = [Entry("fc.weight", ("kernel",), dense()), Entry("fc.bias", ("bias",), FLAT)]


def _build():
    return Linear(3, (2, 2), rngs=nnx.Rngs(0))


def _tensors():
    weight = np.arange(12, dtype=np.float32).reshape(4, 3)
    return {"fc.weight": weight, "fc.bias": np.arange(4, dtype=np.float32)}


def test_assigned_tensors_come_back_bit_for_bit():
    model = assign(_build, TABLE, _tensors(), "x").network()
    assert np.array_equal(model.kernel[...], _tensors()["fc.weight"].T.reshape(3, 2, 2))
    back = to_official(model, TABLE)
    assert back.keys() == _tensors().keys()
    assert all(np.array_equal(back[name], value) for name, value in _tensors().items())


def test_half_precision_tensors_become_float32():
    tensors = {name: value.astype(ml_dtypes.bfloat16) for name, value in _tensors().items()}
    assert assign(_build, TABLE, tensors, "x").network().kernel[...].dtype == np.float32


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"fc.bias": None}, r"f\.pth: tensor fc\.bias is missing"),
        ({"fc.bias": None, "fc.weight": None}, r"tensor fc\.weight and 1 more are missing"),
        ({"extra": np.zeros(1)}, r"f\.pth: tensor extra is unexpected"),
        ({"fc.bias": np.zeros(3)}, r"fc\.bias has shape \(3,\), not \(4,\)"),
        ({"fc.weight": np.zeros((3, 4))}, r"fc\.weight has shape \(3, 4\), not \(4, 3\)"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(change, sentence):
    tensors = {k: v for k, v in (_tensors() | change).items() if v is not None}
    with pytest.raises(UserError, match=sentence):
        assign(_build, TABLE, tensors, "f.pth")


def test_ignored_names_may_be_there_in_vain():
    tensors = _tensors() | {"mask_token": np.zeros(1)}
    network = assign(_build, TABLE, tensors, "x", ignored=("mask_",)).network()
    np.testing.assert_array_equal(network.bias[...].reshape(-1), tensors["fc.bias"])


def test_a_table_that_forgets_a_parameter_is_a_programming_error():
    with pytest.raises(ValueError, match="lacks bias"):
        assign(_build, TABLE[:1], {"fc.weight": _tensors()["fc.weight"]}, "x")


@pytest.mark.parametrize(
    ("layout", "official", "ours"),
    [
        (SAME, (2, 3), (2, 3)),
        (FLAT, (6,), (2, 3)),
        (CONV, (5, 4, 3, 2), (3, 2, 4, 5)),
        (POINTWISE, (5, 4, 1, 1), (4, 5)),
        (dense(), (6, 4), (4, 2, 3)),
        (dense(2), (6, 4), (2, 2, 6)),
    ],
)
def test_a_layout_and_its_inverse_give_the_tensor_back(layout, official, ours):
    tensor = np.random.default_rng(0).normal(size=official)
    moved = layout.to_ours(tensor, ours)
    assert moved.shape == ours
    assert np.array_equal(layout.to_official(moved), tensor)


def test_safetensors_files_are_read_in_half_precision_too(tmp_path):
    saved = {"a": np.ones((2, 2), ml_dtypes.bfloat16), "b": np.ones(3, np.float16)}
    save_file(saved, tmp_path / "x.safetensors")
    read = read_tensors(tmp_path / "x.safetensors")
    assert {k: v.dtype for k, v in read.items()} == {k: v.dtype for k, v in saved.items()}


def test_a_damaged_or_absent_safetensors_file_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(UserError, match=r"x\.safetensors does not exist"):
        read_tensors(path)
    save_file({"a": np.ones(100, np.float32)}, path)
    content = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"x\.safetensors is empty"):
        read_tensors(path)
    for length in (5, 40, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"x\.safetensors is truncated"):
            read_tensors(path)


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"config": {"x": 1}, "state_dict": d}])
def test_a_state_dict_is_found_at_the_top_or_one_level_down(tmp_path, wrap):
    path = save_torch(tmp_path / "x.pth", wrap({"a": np.ones(2, np.float32)}))
    assert list(read_tensors(path)) == ["a"]


def test_a_torch_file_without_tensors_is_named(tmp_path):
    with pytest.raises(UserError, match=r"x\.pth holds no tensors"):
        read_tensors(save_torch(tmp_path / "x.pth", {"config": {"a": 1}}))
