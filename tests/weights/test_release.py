"""The official layout: where files are looked for, and what is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.parity import goldens
from vosr_jax.errors import UserError
from vosr_jax.parameters.tensors import read_tensors
from vosr_jax.weights import official_reader
from vosr_jax.weights.official_args import config_of_args

_ARGS = {"dim": 32}


def _folder(tmp_path, **changes):
    folder = tmp_path / "preset/ckpts/model"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "args.json").write_text(json.dumps(_ARGS | changes))
    return folder


def test_args_are_found_up_to_five_folders_above(tmp_path):
    folder = _folder(tmp_path)
    deep = folder / "a/b/c/d/e"
    deep.mkdir(parents=True)
    assert official_reader.read_args(deep)[0]["dim"] == 32
    (deep / "f").mkdir()
    with pytest.raises(UserError, match="args.json"):
        official_reader.read_args(deep / "f")


def test_wrappers_prefixes_and_counters_are_taken_off(tmp_path):
    own = {"x_embedder.proj.bias": np.ones(3, np.float32), "blocks.0.attn.proj.bias": np.zeros(2)}
    wrapped = {f"ema_model._orig_mod.module.{name}": value for name, value in own.items()}
    counters = {"n_averaged": np.ones(1), "module.step_count": np.ones(1), "decay": np.ones(1)}
    save_file(wrapped | counters, tmp_path / "a.safetensors")
    read = official_reader.plain_names(read_tensors(tmp_path / "a.safetensors"), "a")
    assert read.keys() == own.keys()
    assert all(np.array_equal(read[name], own[name]) for name in own)
    two = tmp_path / "two.safetensors"
    save_file(own | wrapped, two)
    with pytest.raises(UserError, match=r"two\.safetensors holds .* twice, once as .*ema_model"):
        official_reader.plain_names(read_tensors(two), two)


def test_averaged_weights_are_taken_before_raw_ones(tmp_path):
    folder = _folder(tmp_path)
    with pytest.raises(UserError, match="no weights"):
        official_reader.find_weights(folder)
    for name in ("model.safetensors", "ema_model.safetensors"):
        (folder / "checkpoints" / name).write_bytes(b"")
        assert official_reader.find_weights(folder).name == name


def test_a_lone_weights_file_below_is_found_and_of_several_none_is_guessed(tmp_path):
    folder = _folder(tmp_path)
    deep = folder / "checkpoint-00010000/clean_weights"
    deep.mkdir(parents=True)
    (deep / "model.safetensors").write_bytes(b"")
    assert official_reader.find_weights(folder) == deep / "model.safetensors"
    (deep / "ema_model.safetensors").write_bytes(b"")
    assert official_reader.find_weights(folder).name == "ema_model.safetensors"
    (folder / "x").mkdir()
    (folder / "x/ema_model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="holds 3 weights' files"):
        official_reader.find_weights(folder)


def test_parts_are_found_from_above_or_beside_the_checkpoint(tmp_path):
    _, file = official_reader.read_args(_folder(tmp_path))
    (tmp_path / "preset/ckpts/vae").mkdir()
    assert official_reader.find_part("preset/ckpts/vae", file) == tmp_path / "preset/ckpts/vae"
    assert official_reader.find_part("elsewhere/vae", file) == tmp_path / "preset/ckpts/vae"
    with pytest.raises(UserError, match=r"lwdecoder\.pth.*it comes from huggingface\.co/CSWRY"):
        official_reader.find_part("preset/ckpts/sd21_lwdecoder.pth", file)


@pytest.mark.parametrize(("layer", "block"), [(-1, 2), (-3, 0), (1, 1)])
def test_a_visual_layer_counted_from_the_end_is_found_by_the_encoders_depth(layer, block):
    file = goldens.folder("pipeline") / "preset/ckpts/VOSR_0.5B_ms/args.json"
    args = goldens.read_json(file) | {"layer_dinov2b_list": [layer]}
    config, _ = config_of_args(args, file)
    assert official_reader.with_parts(config, args, file).encoder.block == block
    args["layer_dinov2b_list"] = [-4]
    with pytest.raises(UserError, match="layer_dinov2b_list names a block that"):
        official_reader.with_parts(config, args, file)
