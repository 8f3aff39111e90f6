"""Settings: typed, validated, and what follows from them."""

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from vosr_jax.config import Config, get_config_dict, require_key, validate
from vosr_jax.diffusion.timesteps import IntervalSettings
from vosr_jax.errors import UserError

ROOT = Path(__file__).parents[1]
NANO = {"autoencoder": {"kind": "space_to_depth", "downscale": 2}, "encoder": {"kind": "none"}}


def load(name: str, *variant: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return validate(module.get_config(*variant))


def changed(**sections: dict) -> dict:
    return {k: NANO.get(k, {}) | sections.get(k, {}) for k in NANO.keys() | sections.keys()}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"trian": {}}, "no key trian; did you mean train?"),
        ({"train": {"batchsize": 3}}, "no key train.batchsize; did you mean train.batch_size?"),
        ({"zzz": 1}, "no key zzz; known: seed, model"),
        ({"train": 3}, "key train must be a section, not 3"),
        ({"train": {"batch_size": "8"}}, "train.batch_size is '8'; it must be of type int"),
        ({"train": {"batch_size": True}}, "train.batch_size is True; it must be of type int"),
        ({"train": {"batch_size": 1.5}}, "train.batch_size is 1.5; it must be of type int"),
        ({"data": {"sources": 3}}, "data.sources is 3; it must be of type str"),
        ({"optimizer": {"name": "sgd"}}, "optimizer.name is 'sgd'; choose one of adamw, muon"),
        ({"guidance": {"interval": (0, 1, 2)}}, "guidance.interval is .* it needs 2 values"),
        ({"guidance": {"interval": 0.5}}, "guidance.interval is 0.5; it must be a list"),
        ({"guidance": {"interval": (0.8, 0.2)}}, "guidance.interval must be"),
        ({"guidance": {"weak_strength_range": (0.3, 0.1)}}, "guidance.weak_strength_range must"),
        ({"guidance": {"drop_rate": 1.5}}, "guidance.drop_rate must lie in"),
        ({"model": {"width": 30, "heads": 4}}, "model.width must be a multiple of model.heads"),
        ({"model": {"heads": 0}}, "model.heads must be positive"),
        ({"data": {"scale": 0}}, "data.scale must be positive"),
        ({"autoencoder": {"downscale": 0}}, "autoencoder.downscale must be positive"),
        ({"data": {"crop_size": 30}}, "data.crop_size must be a multiple of 4"),
        ({"ema": {"decay": 1.0}}, "ema.decay must lie in"),
        ({"train": {"total_steps": 0}}, "train.total_steps must be positive"),
        ({"train": {"microbatches": 3}}, "multiple of train.microbatches"),
        ({"train": {"log_every": -1}}, "train.log_every must not be negative"),
        ({"sampling": {"steps": 0}}, "sampling.steps must be positive"),
        ({"autoencoder": {"kind": "sd2"}}, "autoencoder.path must name the weights"),
        ({"encoder": {"kind": "dinov2b"}}, "encoder.path must name the weights"),
        ({"model": {"pixel_width": 4}}, "model.pixel_width ends a detailer at the pixels"),
        ({"model": {"remove_weave": True}}, "model.remove_weave needs a model.pixel_width"),
        ({"model": {"detail_stem_blocks": 0}}, "model.detail_stem_blocks must"),
        ({"optimizer": {"muon_convolutions": True}}, "needs optimizer.name=muon"),
        (
            {
                "objective": {"name": "rcgm", "penalty": "charbonnier"},
                "model": {"r_embedding": True},
            },
            "objective.penalty is flow_matching's",
        ),
        ({"objective": {"adversarial_weight": -1.0}}, "adversarial_weight must"),
        (
            {
                "objective": {"adversarial_weight": 0.1},
                "autoencoder": {"kind": "sd2", "path": "sd21_vae.safetensors"},
            },
            "objective.adversarial_weight is flow_matching's on pixels",
        ),
        (
            {
                "objective": {"adversarial_weight": 0.1, "adversary": "features"},
                "autoencoder": {"kind": "space_to_depth"},
            },
            "objective.adversary=features judges the maps .* set objective.perceptual_weight",
        ),
        ({"objective": {"name": "rcgm"}}, "objective.name=rcgm needs .* model.r_embedding=True"),
        ({"model": {"r_embedding": True}}, "set model.r_embedding=False"),
        ({"teacher": "nano"}, "teacher is set, but objective.name=flow_matching has none"),
        ({"teacher": 3}, "teacher is 3; it must be of type str"),
        ({"objective": {"delta_t": 0.0}}, "objective.delta_t must lie in"),
        ({"objective": {"n_steps": 0}}, "objective.n_steps must be positive"),
        ({"objective": {"interval_alpha": 0.0}}, "objective.interval_alpha and"),
        ({"objective": {"instant_share": 0.7, "one_step_share": 0.7}}, "shares of one whole"),
        (
            {
                "model": {"r_embedding": True},
                "objective": {"name": "rcgm", "perceptual_weight": 1.0},
            },
            "set objective.one_step_share above 0",
        ),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_its_key(values: dict, sentence: str):
    sections = {k: v for k, v in values.items() if isinstance(v, dict)}
    with pytest.raises(UserError, match=sentence) as error:
        validate(changed(**sections) | {k: v for k, v in values.items() if k not in sections})
    assert "\n" not in str(error.value)


def test_whole_numbers_pass_as_floats_and_none_where_it_is_allowed():
    config = validate(changed(ema={"decay": 0}, data={"sources": None}))
    assert config.ema.decay == 0.0 and isinstance(config.ema.decay, float)
    assert config.data.sources is None


def test_a_config_survives_the_way_through_json_and_config_dict():
    import json

    config = load("nano")
    assert validate(json.loads(json.dumps(config.to_dict()))) == config
    assert validate(get_config_dict(config)) == config


SHIPPED = [
    "nano",
    "nano_onestep",
    "vosr_0_5b",
    "vosr_0_5b_onestep",
    "vosr_1_4b",
    "vosr_1_4b_onestep",
]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_states_every_key(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    stated = module.get_config()
    assert set(stated) == set(Config.__dataclass_fields__)
    for section in ("model", "train", "data", "optimizer", "guidance"):
        assert set(stated[section]) == set(getattr(Config(), section).__dataclass_fields__)


@pytest.mark.parametrize(("variant", "crop", "batch"), [("256", 256, 1024), ("512", 512, 256)])
@pytest.mark.parametrize("name", ["vosr_0_5b", "vosr_1_4b"])
def test_the_papers_two_stages_are_variants(name: str, variant: str, crop: int, batch: int):
    config = load(name, variant)
    assert (config.data.crop_size, config.train.batch_size) == (crop, batch)
    assert config.train.total_steps == 400_000
    assert config.model_settings().latent_size == crop // 8


@pytest.mark.parametrize(
    "name", ["vosr_0_5b", "vosr_1_4b", "vosr_0_5b_onestep", "vosr_1_4b_onestep"]
)
def test_the_fast_variant_differs_in_what_it_names_alone(name: str):
    plain = load(name) if name.endswith("onestep") else load(name, "512")
    fast = load(name, "fast")
    assert fast.autoencoder.precision == fast.autoencoder.activations == "bfloat16"
    exact = {"precision": "float32", "activations": "float32"}
    autoencoder = dataclasses.replace(fast.autoencoder, **exact)
    assert dataclasses.replace(fast, autoencoder=autoencoder) == plain


def test_the_released_configuration_is_a_variant_with_the_released_networks():
    for name, latent, width, tokens, block in (
        ("vosr_0_5b", 4, 1024, 768, 8),
        ("vosr_1_4b", 16, 1536, 1024, 17),
    ):
        config = load(name, "released")
        settings = config.model_settings()
        assert (config.data.crop_size, config.train.batch_size) == (512, 8)
        assert (settings.latent_channels, settings.width) == (latent, width)
        assert (settings.token_width, config.encoder.block) == (tokens, block)
        assert config.optimizer.learning_rate == 5e-5


def test_the_released_one_step_configurations_are_the_official_ones():
    for name, latent, width, tokens in (("0_5b", 4, 1024, 768), ("1_4b", 16, 1536, 1024)):
        config = load(f"vosr_{name}_onestep")
        settings, objective = config.model_settings(), config.objective_settings()
        assert (settings.latent_channels, settings.width) == (latent, width)
        assert settings.token_width == tokens and settings.r_embedding and config.teacher
        assert (objective.delta_t, objective.n_steps) == (0.01, 2)
        assert (objective.weak_strength, objective.average_weight) == (0.1, 1.0)
        assert objective.interval == IntervalSettings()
        assert (config.guidance.scale, config.guidance.drop_rate) == (0.5, 0.1)
        assert (config.optimizer.learning_rate, config.ema.decay) == (2e-5, 0.9999)
        assert (config.train.total_steps, config.train.batch_size) == (100_000, 32)
        assert (config.data.crop_size, config.sampling.steps) == (512, 1)


@pytest.mark.parametrize("variant", ["", "perceptual", "finish", "steps"])
def test_the_direct_nano_keeps_its_network_through_its_stages(variant: str):
    config, first = load("nano_direct", variant), load("nano_direct")
    assert config.model_settings() == first.model_settings()
    assert config.model_settings().pixel_scale == config.autoencoder.downscale == 4
    assert (config.sampling.steps > 1) == (config.guidance.kind != "none") == (variant == "steps")


def test_the_nano_student_fits_its_teacher():
    from vosr_jax.training.teacher import check_teacher

    check_teacher(load("nano_onestep"), load("nano_direct", "steps"))
    check_teacher(load("nano_onestep", "first"), load("nano"))


def test_keys_of_the_command_line_are_checked_section_by_section():
    require_key("train.batch_size")
    with pytest.raises(UserError, match="no key model.widht; did you mean model.width?"):
        require_key("model.widht")
    with pytest.raises(UserError, match="model.width is no section"):
        require_key("model.width.x")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["configs/nano.py", "--config.trian.x=1"], "did you mean train?"),
        (["configs/nano.py", "--config.train.total_steps=abc"], "train.total_steps=abc"),
        (["configs/nano.py:huge"], "has the variants sharp, texture, finish, vosr, not 'huge'"),
        (["configs/nana.py"], "config file configs/nana.py cannot be read"),
        (["configs/nano.py", "--confg=1"], "Unknown command line flag 'confg'"),
        (["configs/nano.py", "more"], "unknown argument 'more'"),
        (["configs/nano.py", "--config.data.crop_size=30"], "data.crop_size must be a multiple"),
    ],
)
def test_train_says_one_sentence_and_exits_with_1(tmp_path: Path, arguments: list, sentence: str):
    workdir = tmp_path / "run"
    command = [sys.executable, "train.py", "--workdir", str(workdir), "--config", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert sentence in done.stderr and done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert not workdir.exists()
