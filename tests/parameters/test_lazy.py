"""Arrays that are read piece by piece: the same values, and no more read than asked for."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.training.tiny import tiny_config
from vosr_jax.parameters.lazy import HostArray, sha256_of
from vosr_jax.parameters.tensors import open_tensors, read_tensors
from vosr_jax.weights.export import save_export
from vosr_jax.weights.opening import open_denoiser
from vosr_jax.weights.resolve import resolve


def _stack() -> tuple[np.ndarray, HostArray]:
    whole = np.random.default_rng(0).normal(size=(4, 6, 5)).astype(np.float32)
    reads = [lambda layer=layer: layer.astype(np.float64) for layer in whole]
    return whole, HostArray(whole.shape, np.float32, reads, stacked=True)


@pytest.mark.parametrize(
    "index",
    [
        (),
        (slice(1, 3),),
        (slice(None), slice(2, 4)),
        (slice(0, 4, 2), slice(3), slice(1, 2)),
    ],
)
def test_a_part_is_the_part_of_the_whole(index):
    whole, stack = _stack()
    for array in (stack, HostArray.of(whole), HostArray.of(whole.T).astype(np.float64)):
        expected = np.asarray(array)[index]
        part = array[index]
        np.testing.assert_array_equal(part, expected)
        assert part.dtype == array.dtype and part.flags.c_contiguous
        assert not np.shares_memory(part, whole) and part.flags.writeable
    np.testing.assert_array_equal(np.asarray(stack), whole)


def test_only_the_layers_that_are_asked_for_are_read():
    whole, _ = _stack()
    seen = []
    reads = [lambda i=i: (seen.append(i), whole[i])[1] for i in range(4)]
    array = HostArray(whole.shape, np.float32, reads, stacked=True)
    assert array.shape == (4, 6, 5) and array.nbytes == whole.nbytes and not seen
    np.testing.assert_array_equal(array[1:3,], whole[1:3])
    assert seen == [1, 2]


def test_pieces_are_small_and_together_the_whole():
    whole, stack = _stack()
    pieces = list(stack.pieces(most=250))
    assert [piece.nbytes for piece in pieces] == [240, 240]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    (scalar,) = HostArray.of(np.float32(3)).pieces()
    assert scalar == 3


def test_a_hash_does_not_depend_on_how_the_values_lie():
    whole, stack = _stack()
    assert sha256_of({"a": stack}) == sha256_of({"a": whole})
    other = whole.copy()
    other[3, 5, 4] += 1
    assert sha256_of({"a": other}) != sha256_of({"a": whole})


def test_safetensors_are_views_into_the_file_until_they_are_read(tmp_path: Path):
    rng = np.random.default_rng(0)
    tensors = {
        "a": rng.normal(size=(3, 4)).astype(np.float32),
        "b": rng.normal(size=5).astype(ml_dtypes.bfloat16),
        "c": np.array(7, np.int64),
        "d": np.zeros((0, 2), np.float16),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    opened = open_tensors(tmp_path / "x.safetensors")
    for name, value in tensors.items():
        assert opened[name].dtype == value.dtype and not opened[name].flags.owndata
        np.testing.assert_array_equal(opened[name], value)
    assert not opened["a"].flags.writeable
    assert all(value.flags.owndata for value in read_tensors(tmp_path / "x.safetensors").values())


def test_opening_an_export_reads_none_of_its_values(tmp_path: Path, monkeypatch):
    config = tiny_config()
    rng = np.random.default_rng(0)
    from vosr_jax.training.build import denoiser_blueprint

    shapes = denoiser_blueprint(config).shapes
    arrays = {k: rng.normal(size=s.shape).astype(np.float32) for k, s in shapes.items()}
    folder = save_export(tmp_path / "export", config.to_dict(), arrays, "float16")
    read = HostArray.__getitem__

    def never(*_):
        raise AssertionError("values were read")

    monkeypatch.setattr(HostArray, "__getitem__", never)
    opened = open_denoiser(resolve(folder))
    assert opened.config.model == config.model
    monkeypatch.setattr(HostArray, "__getitem__", read)
    name = "blocks.mlp.gate_up.kernel"
    part = opened.network.parameters[name][(slice(0, 1), slice(8, 16))]
    np.testing.assert_array_equal(part, arrays[name][0:1, 8:16].astype(np.float16))
    assert part.dtype == np.float32
