"""Autoencoder files: the kind is recognised, both namings are read, parts are optional."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from tests.parameters.torch_files import save_torch
from vosr_jax.errors import UserError
from vosr_jax.models.autoencoders import qwen_weights as qwen_autoencoder
from vosr_jax.models.autoencoders import sd_weights as sd_autoencoder
from vosr_jax.models.autoencoders.qwen import QwenAutoencoder, QwenSettings
from vosr_jax.models.autoencoders.sd import SDAutoencoder, SDCoderSettings, SDSettings
from vosr_jax.parameters.tensors import to_official
from vosr_jax.weights import load_autoencoder

CODER = SDCoderSettings(channels=(8, 8, 16), layers_per_block=1, groups=4)
SD = SDSettings(encoder=CODER, decoder=CODER)
SD_CONFIG = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [8, 8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
LIGHT = SDSettings(
    encoder=None, decoder=SDCoderSettings((32, 32, 64), layers_per_block=1, quant=False)
)
LIGHT_CONFIG = {
    "in_channels": 4,
    "out_channels": 3,
    "block_out_channels": [32, 32, 64],
    "layers_per_block": 1,
}
QWEN = QwenSettings(base_width=8, multipliers=(1, 2, 2), residual_blocks=1)
QWEN_CONFIG = {
    "_class_name": "AutoencoderKLQwenImage2D",
    "base_dim": 8,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "z_dim": 16,
    "attn_scales": [],
}


@pytest.fixture(scope="module")
def sd():
    return SDAutoencoder(SD, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def qwen():
    return QwenAutoencoder(QWEN, rngs=nnx.Rngs(0))


def _sd_tensors(model):
    return to_official(model, sd_autoencoder.entries(SD))


def _folder(folder, config, tensors):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    return folder


def _light_file(path):
    model = SDAutoencoder(LIGHT, rngs=nnx.Rngs(1))
    named = to_official(model, sd_autoencoder.entries(LIGHT))
    tensors = {name.removeprefix("decoder."): value for name, value in named.items()}
    return model, save_torch(path, {"config": LIGHT_CONFIG, "model_state_dict": tensors})


def _same(a, b) -> bool:
    pairs = zip(jax.tree.leaves(nnx.state(a)), jax.tree.leaves(nnx.state(b)), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def test_the_folder_the_one_above_and_the_file_give_the_same_network(tmp_path, sd):
    folder = _folder(tmp_path / "vae", SD_CONFIG, _sd_tensors(sd))
    for path in (tmp_path, folder, folder / "diffusion_pytorch_model.safetensors"):
        model, settings = load_autoencoder(path)
        assert settings == SD and _same(model, sd)


def test_attention_under_its_old_names_is_read_too(tmp_path, sd):
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, value in _sd_tensors(sd).items():
        for new_name, old_name in old.items():
            name = name.replace(f".attentions.0.{new_name}.", f".attentions.0.{old_name}.")
        tensors[name] = value
    assert not tensors.keys() <= _sd_tensors(sd).keys()
    assert _same(load_autoencoder(_folder(tmp_path, SD_CONFIG, tensors))[0], sd)


def test_parts_can_be_left_out(tmp_path, sd, qwen):
    folder = _folder(tmp_path / "sd", SD_CONFIG, _sd_tensors(sd))
    model, settings = load_autoencoder(folder, parts=("encoder",))
    assert settings == dataclasses.replace(SD, decoder=None)
    assert model.decoder is None and _same(model.encoder, sd.encoder)
    tensors = to_official(qwen, qwen_autoencoder.entries(QWEN))
    folder = _folder(tmp_path / "qwen", QWEN_CONFIG, tensors)
    model, settings = load_autoencoder(folder, parts=("decoder",))
    assert settings.parts == ("decoder",) and _same(model.decoder, qwen.decoder)


def test_qwens_autoencoder_is_recognised_by_its_config(tmp_path, qwen):
    tensors = to_official(qwen, qwen_autoencoder.entries(QWEN))
    model, settings = load_autoencoder(_folder(tmp_path, QWEN_CONFIG, tensors))
    assert settings == QWEN and _same(model, qwen)


def test_the_light_decoder_stands_alone_or_in_the_others_place(tmp_path, sd):
    light, path = _light_file(tmp_path / "light.pth")
    model, settings = load_autoencoder(path)
    assert settings == LIGHT and _same(model, light)
    folder = _folder(tmp_path / "sd", SD_CONFIG, _sd_tensors(sd))
    both, settings = load_autoencoder(folder, decoder=path)
    assert settings == dataclasses.replace(SD, decoder=LIGHT.decoder)
    assert _same(both.encoder, sd.encoder) and _same(both.decoder, light.decoder)
    assert load_autoencoder(folder, decoder=path, parts=("encoder",))[0].decoder is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"_class_name": "AutoencoderTiny"}, "autoencoder 'AutoencoderTiny' is unknown"),
        ({"act_fn": "relu"}, "act_fn is 'relu'"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"]}, "AttnDownEncoderBlock2D"),
        ({"block_out_channels": None}, "a size is no number"),
        ({"shift_factor": 0.1}, "shift_factor is 0.1"),
        ({"layers_per_block": 2}, "missing"),
    ],
)
def test_a_config_that_cannot_be_run_names_the_key(tmp_path, sd, change, sentence):
    folder = _folder(tmp_path, SD_CONFIG | change, _sd_tensors(sd))
    with pytest.raises(UserError, match=sentence):
        load_autoencoder(folder)


def test_a_folder_or_file_that_holds_no_autoencoder_is_named(tmp_path):
    with pytest.raises(UserError, match="gone does not exist"):
        load_autoencoder(tmp_path / "gone")
    with pytest.raises(UserError, match="holds no autoencoder"):
        load_autoencoder(tmp_path)
    path = save_torch(tmp_path / "x.pth", {"a": np.zeros(2, np.float32)})
    with pytest.raises(UserError, match=r"x\.pth is no light decoder"):
        load_autoencoder(path)


def test_a_missing_tensor_of_an_autoencoder_is_named(tmp_path, sd):
    tensors = _sd_tensors(sd)
    del tensors["encoder.mid_block.attentions.0.to_q.weight"]
    with pytest.raises(UserError, match=r"encoder\.mid_block\.attentions\.0\.to_q\.weight is mis"):
        load_autoencoder(_folder(tmp_path, SD_CONFIG, tensors))
