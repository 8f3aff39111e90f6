"""Models by name, export and workdir."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from vosr_jax.config import AutoencoderConfig, Config, EncoderConfig, ModelConfig, SamplingConfig
from vosr_jax.errors import UserError
from vosr_jax.models.lightning_dit.network import LightningDiT
from vosr_jax.parameters.blueprint import flatten
from vosr_jax.restoration.loading import load_model
from vosr_jax.restoration.summary import describe
from vosr_jax.restoration.upscaler import Upscaler
from vosr_jax.weights.export import save_export

_CONFIG = Config(
    model=ModelConfig(width=32, depth=2, heads=2, patch_size=1),
    autoencoder=AutoencoderConfig(kind="space_to_depth", downscale=4),
    encoder=EncoderConfig(kind="none"),
    sampling=SamplingConfig(steps=3, colour_fix="wavelet"),
)


@pytest.fixture
def export(tmp_path):
    network = LightningDiT(_CONFIG.model_settings(), rngs=nnx.Rngs(0))
    kernel = network.final.linear.kernel
    kernel[...] = 0.1 * jax.random.normal(jax.random.key(1), kernel[...].shape, jnp.float32)
    parameters = {name: np.asarray(value) for name, value in flatten(network).items()}
    config = json.loads(json.dumps(_CONFIG.to_dict()))
    return save_export(tmp_path / "mine", config, parameters, "float32"), network


def test_an_export_restores_with_its_own_settings(export):
    folder, network = export
    upscaler = Upscaler.from_pretrained(folder)
    model = upscaler.model
    assert (model.name, model.sampler.steps, model.colour_fix) == ("mine", 3, "wavelet")
    assert model.sampler.guidance_scale == _CONFIG.guidance.scale
    assert model.sampler.weak_strength == pytest.approx(0.15)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8))
    same = Upscaler(dataclasses.replace(model, denoiser=network))(picture)
    np.testing.assert_array_equal(upscaler(picture), same)


def test_a_summary_names_the_parts(export):
    text = describe(load_model(export[0]))
    for said in ("2 blocks", "SpaceToDepth", "multi-step", "scale -0.5", "wavelet"):
        assert said in text


def test_a_workdir_without_checkpoint_is_named(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text(json.dumps(_CONFIG.to_dict()))
    with pytest.raises(UserError, match="no checkpoint"):
        load_model(tmp_path)


def test_what_is_no_model_is_named(tmp_path):
    for name in ("nanno", str(tmp_path), str(tmp_path / "absent")):
        with pytest.raises(UserError, match=name):
            load_model(name)


def test_the_shipped_one_step_model_restores_in_one_evaluation_without_guidance():
    model = load_model("nano-onestep")
    sampler, settings = model.sampler, model.denoiser.settings
    assert sampler.steps == 1 and not sampler.guided(1.0)
    assert model.one_step and not model.guided
    assert model.parameterization.endpoint == "residual"
    many = load_model("nano")
    assert many.sampler.steps == 3 and many.guided and not many.one_step
    # The size of its last stage's crops may differ.
    like = dataclasses.replace(many.denoiser.settings, latent_size=settings.latent_size)
    assert like == settings
