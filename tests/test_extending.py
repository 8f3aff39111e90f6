"""What is added in one place and forgotten in the other is found here; see CONTRIBUTING.md."""

import argparse
import importlib
import pkgutil
from pathlib import Path
from typing import get_args, get_type_hints

import jax
import pytest
from flax import nnx

from vosr_jax import commands, metrics
from vosr_jax.commands import parser
from vosr_jax.config import Config, EncoderConfig, ObjectiveConfig
from vosr_jax.data.sources import parsing
from vosr_jax.diffusion import objectives
from vosr_jax.evaluation import measures
from vosr_jax.models.dinov2.network import visual_tokens
from vosr_jax.parameters import initial
from vosr_jax.training.abstract import abstract_encoder


def _modules(package) -> dict:
    names = [info.name for info in pkgutil.iter_modules(package.__path__)]
    return {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}


def test_every_objective_of_the_config_is_a_file_and_every_file_is_of_the_config():
    names = get_args(get_type_hints(ObjectiveConfig)["name"])
    losses = {
        objectives.loss_of(Config(objective=ObjectiveConfig(name=name)).objective_settings())
        for name in names
    }
    files = {m.loss for m in _modules(objectives).values() if hasattr(m, "loss")}
    assert losses == files and len(losses) == len(names)


def test_every_metric_is_a_measure():
    text = Path(measures.__file__).read_text()
    for name in _modules(metrics):
        assert f"vosr_jax.metrics.{name} import" in text or f"{name}." in text, name


def test_every_measure_has_what_a_table_needs():
    found, missing = measures.chosen_measures(measures.MEASURES)
    assert {m.key for m in found} | missing.keys() == set(measures.MEASURES)
    for measure in found:
        assert measure.title and format(0.5, measure.spec) and measure.better
    assert len({measure.title for measure in found}) == len(found)


@pytest.mark.parametrize("kind", get_args(get_type_hints(EncoderConfig)["kind"]))
def test_every_encoder_gives_tokens_of_the_width_that_the_denoiser_expects(kind):
    if kind in ("none", "dinov2"):
        pytest.skip("no network, or one whose sizes only its file tells")
    config = Config(encoder=EncoderConfig(kind=kind, size=224, block=8))
    graph, weights = nnx.split(abstract_encoder(config))
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), "float32")
    tokens = jax.eval_shape(
        lambda weights, image: visual_tokens(nnx.merge(graph, weights), image, 224, 8),
        weights,
        image,
    )
    assert tokens.shape[-1] == config.model_settings().token_width


@pytest.mark.parametrize("prefix", parsing.PREFIXES)
def test_every_prefix_of_a_source_is_opened(monkeypatch, tmp_path, prefix):
    opened = []
    for name in ("text_sources", "tar_source", "_open_array_records", "folder_source"):
        monkeypatch.setattr(parsing, name, lambda *a, own=name, **k: opened.append(own) or ())
    monkeypatch.setattr(parsing, "tfds_source", lambda *a: opened.append("tfds") or ())
    monkeypatch.setattr(parsing, "_shards", lambda *a: ())
    parsing._open(f"{prefix}:{tmp_path / 'none'}", 1.0)
    assert len(opened) == 1


def test_every_command_is_offered():
    offered = next(
        action.choices
        for action in parser.make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    made = {m for m in _modules(commands).values() if hasattr(m, "add_parser")}
    assert len(made) == len(offered)


def test_random_starts_can_be_left_out():
    package = Path(initial.__file__).parents[1]
    for file in (
        f for folder in ("models", "parameters") for f in (package / folder).rglob("*.py")
    ):
        drawn = "jax.random." in file.read_text() and file.name != "initial.py"
        assert not drawn, f"{file.name} draws; use parameters/initial.py"


@pytest.mark.parametrize(
    "row", ["an objective", "a source of images", "an encoder", "a metric", "a subcommand"]
)
def test_contributing_says_where_it_goes(row):
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    assert f"| {row} |" in text
