"""Numbers that a run can't train with are refused, each by its name."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest

from vosr_jax.config import Config, validate
from vosr_jax.config.ranges import numbers_of, ranged_keys
from vosr_jax.config.validation import require_key
from vosr_jax.errors import UserError

ROOT = Path(__file__).parents[1]
NANO = {"autoencoder": {"kind": "space_to_depth", "downscale": 2}, "encoder": {"kind": "none"}}


def nested(key: str, value) -> dict:
    """A config that would train but for one key."""
    *sections, name = key.split(".")
    config = {section: dict(values) for section, values in NANO.items()}
    place = config
    for section in sections:
        place = place.setdefault(section, {})
    place[name] = value
    return config


def refused(config: dict, *words: str) -> None:
    with pytest.raises(UserError) as error:
        validate(config)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("optimizer.learning_rate", [0.0, -1e-4, math.nan, math.inf]),
        ("optimizer.muon_learning_rate", [0.0, -1.0, math.nan]),
        ("optimizer.max_grad_norm", [-1.0, math.nan, math.inf]),
        ("optimizer.beta1", [1.0, 1.5, -0.1, math.nan]),
        ("optimizer.beta2", [1.0, 1.5, -0.1, math.nan]),
        ("optimizer.epsilon", [0.0, -1e-8]),
        ("optimizer.weight_decay", [-0.01, math.nan]),
        ("optimizer.warmup_steps", [-1, 400_001]),
        ("optimizer.warmup_share", [-0.1, 1.1]),
        ("ema.decay", [1.0, -0.1, math.nan]),
        ("mesh.data", [0, -2]),
        ("mesh.tensor", [0, -2]),
        ("mesh.fsdp", [-2]),
        ("mesh.slices", [-1]),
        ("seed", [-1, 2**32]),
        ("model.mlp_ratio", [0.0, -4.0, math.nan]),
        ("model.token_hidden_ratio", [0]),
        ("autoencoder.scaling_factor", [0.0, math.nan]),
        ("encoder.token_width", [0]),
        ("objective.time_sigma", [0.0, -1.0, math.nan]),
        ("objective.time_mu", [math.nan, math.inf]),
        ("objective.residual_scale", [0.0, -0.15]),
        ("objective.smallest_t", [0.0, 1.5]),
        ("objective.perceptual_weight", [-1.0, math.nan]),
        ("objective.perceptual_power", [-1.0]),
        ("objective.perceptual_rows", [-1]),
        ("objective.perceptual_crop", [0]),
        ("objective.weak_strength", [-0.1, math.nan]),
        ("objective.average_weight", [-1.0]),
        ("objective.adaptive_power", [-1.0]),
        ("objective.adaptive_offset", [0.0]),
        ("guidance.scale", [math.nan]),
        ("guidance.condition_strength", [(math.nan, 1.0), (5.0, -1.0)]),
        ("guidance.weak_strength_range", [(-0.1, 0.2), (0.3, 0.1), (0.1, math.nan)]),
        ("guidance.interval", [(-0.1, 1.0), (0.0, 1.1)]),
        ("data.max_bad_fraction", [-0.1, 1.1, math.nan]),
        ("data.workers", [-1]),
        ("train.profile_steps", [(3, 2), (0, 2), (1, 2, 3)]),
        ("train.hang_seconds", [-1]),
        ("eval.steps", [(0,), (4, -1)]),
        ("eval.guidance_scales", [(1.0, math.nan)]),
        ("eval.weak_strengths", [(-0.1,)]),
    ],
)
def test_a_number_out_of_its_range_is_refused_by_name(key, values):
    for value in values:
        refused(nested(key, value), key)


def test_what_lies_at_the_edge_of_a_range_trains():
    for key, value in (
        ("optimizer.max_grad_norm", 0.0),
        ("optimizer.weight_decay", 0.0),
        ("optimizer.beta1", 0.0),
        ("optimizer.warmup_steps", 400_000),
        ("mesh.data", -1),
        ("mesh.fsdp", 0),
        ("seed", 2**32 - 1),
        ("objective.smallest_t", 1.0),
        ("train.profile_steps", (2, 2)),
    ):
        config = nested(key, value)
        if key == "mesh.data":
            config["mesh"]["fsdp"] = 1
        validate(config)


def test_every_number_of_a_config_has_a_range():
    # The degradation checks its own numbers.
    listed = {k for k, _ in numbers_of(_every_number_set()) if not k.startswith("data.degrada")}
    assert listed == ranged_keys()
    for key in ranged_keys():
        require_key(key)


def _every_number_set(section=Config()):  # noqa: B008
    """A config whose optional and empty numbers have a value, so that they are found."""
    changes = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = _every_number_set(value)
        elif "int | None" in str(field.type) or str(field.type) == "tuple[int, ...]":
            changes[field.name] = (1,) if "tuple" in str(field.type) else 1
        elif str(field.type) == "tuple[float, ...]" and not value:
            changes[field.name] = (1.0,)
    return dataclasses.replace(section, **changes)


@pytest.mark.parametrize("key", ["data.degradation.official.first.gaussian_probability"])
def test_a_number_of_the_degradation_that_is_none_is_refused(key):
    for value in (math.nan, -0.1):
        refused(nested(key, value), "gaussian_probability")


def test_only_one_axis_of_the_mesh_may_be_what_is_left():
    refused(nested("mesh.data", -1), "only one of mesh.data, mesh.fsdp and mesh.tensor")


def test_a_block_or_a_size_that_the_visual_encoder_has_not_is_refused():
    for kind, block in (("dinov2s", 12), ("dinov2b", 12), ("dinov2l", 24), ("dinov2g", 40)):
        config = nested("encoder.block", block)
        config["encoder"] |= {"kind": kind, "path": "FILE"}
        refused(config, f"encoder.block is {block}; {kind} has the blocks 0 to {block - 1}")
        config["encoder"]["block"] = block - 1
        validate(config)
    config["encoder"]["size"] = 450
    refused(config, "encoder.size is 450", "multiple of 14")


def test_a_warm_up_that_is_a_share_shortens_with_the_run():
    config = nested("optimizer.warmup_steps", None)
    config["optimizer"]["warmup_share"] = 0.025
    for total, warmup in ((2000, 50), (1000, 25), (16, 0)):
        config["train"] = {"total_steps": total}
        assert validate(config).optimizer.warmup(total) == warmup
    config["optimizer"]["warmup_steps"] = 20
    refused(config, "optimizer.warmup_steps is 20, longer than the run of train.total_steps=16")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config.optimizer.learning_rate=nan"], "optimizer.learning_rate must be positive"),
        (
            ["--config.optimizer.warmup_steps=100", "--config.train.total_steps=50"],
            "optimizer.warmup_steps is 100, longer than the run",
        ),
        (["--config.mesh.data=0"], "mesh.data"),
    ],
)
def test_train_refuses_before_it_touches_the_workdir(tmp_path, arguments, sentence):
    workdir = tmp_path / "run"
    command = [sys.executable, "train.py", "--workdir", str(workdir), "--config=configs/nano.py"]
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 1 and done.stderr.startswith("error: config: ")
    assert sentence in done.stderr and done.stderr.count("\n") == 1
    assert not workdir.exists()
