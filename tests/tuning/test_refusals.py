"""What the command refuses, in a sentence, before anything is trained or written."""

import dataclasses
import json
import shutil

import pytest

from tests.tuning.test_photographs import write
from vosr_jax.cli import main
from vosr_jax.errors import UserError
from vosr_jax.tuning.evaluator import Outcome, Verdict, closing_lines
from vosr_jax.tuning.settings import (
    NAME,
    Record,
    Wishes,
    judged_side,
    read_record,
    require_same,
    tuning_config,
)
from vosr_jax.weights.opening import open_denoiser
from vosr_jax.weights.resolve import lasting_name, resolve

RECORD = Record("nano", "a" * 64, 16, "/photos", ["a.png"], ["b.png"])


def test_an_output_folder_of_something_else_is_refused(tmp_path):
    assert read_record(tmp_path / "new") is None and read_record(tmp_path) is None
    RECORD.write(tmp_path / "run")
    assert read_record(tmp_path / "run") == RECORD
    (tmp_path / "other").mkdir()
    (tmp_path / "other/letter.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and no folder of vosr train-on"):
        read_record(tmp_path / "other")
    with pytest.raises(UserError, match="is a file"):
        read_record(tmp_path / "other/letter.txt")
    (tmp_path / "run" / NAME).write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        read_record(tmp_path / "run")


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("model", "nano-onestep", r"another run \(-m nano, not nano-onestep\)"),
        ("rank", 8, r"another run \(--rank 16, not 8\)"),
        ("rank", 0, r"another run \(--rank 16, not --full\)"),
        ("folder", "/other", r"another run \(the photographs of /photos, not /other\)"),
        ("sha256", "b" * 64, "weights have changed"),
    ],
)
def test_another_run_in_the_output_folder_is_named(tmp_path, key, value, sentence):
    asked = dataclasses.asdict(RECORD)
    require_same(RECORD, asked, tmp_path)
    with pytest.raises(UserError, match=sentence):
        require_same(RECORD, asked | {key: value}, tmp_path)


def test_a_base_or_folder_that_is_not_there_leaves_nothing_behind(tmp_path, capsys):
    photos, out = write(tmp_path / "photos", 12, 100), tmp_path / "out"
    for call, sentence in (
        ([str(photos), "-m", "nanoo"], "did you mean nano?"),
        ([str(tmp_path / "nowhere")], "there is no folder"),
        ([str(photos)], "0 of 12 photographs serve"),
        ([str(photos), "--rank", "0"], "must be positive"),
        ([str(photos), "--minutes", "nan"], "must be positive"),
        ([str(photos), "--steps", "0"], "at least 1"),
    ):
        assert main(["train-on", *call, "-o", str(out)]) == 1
        errors = capsys.readouterr().err.strip().splitlines()
        assert sentence in errors[-1] and errors[-1].startswith("error: ")
        assert not out.exists()


def test_a_refused_base_leaves_the_folder_free_for_the_next_command(tmp_path, capsys):
    photos, out = write(tmp_path / "photos", 12, 300), tmp_path / "out"
    one_step = tmp_path / "one-step"
    shutil.copytree(resolve("nano-onestep").path, one_step)
    settings = json.loads((one_step / "config.json").read_text())
    settings["objective"]["time_distribution"] = "uniform"
    (one_step / "config.json").write_text(json.dumps(settings))
    for model, place, sentence in (
        (str(one_step), out, "makes its pictures in one step"),
        ("nano-onestep", tmp_path / "a,b", "may hold no comma"),
    ):
        assert main(["train-on", str(photos), "-m", model, "-o", str(place)]) == 1
        assert sentence in capsys.readouterr().err
        assert not place.exists()


def test_a_base_has_one_name_from_every_folder(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert lasting_name("./mine") == lasting_name("mine") == str(tmp_path / "mine")
    assert lasting_name("nano") == "nano" and lasting_name("gs://b/mine") == "gs://b/mine"
    assert lasting_name("owner/repo") == "owner/repo"


def test_the_settings_are_the_bases_own_but_for_what_a_short_run_asks_for():
    base = open_denoiser(resolve("nano-onestep")).config
    config = tuning_config(base, Wishes(rank=4), "list:x")
    assert (config.model.lora_rank, config.model.lora_alpha) == (4, 4.0)
    assert config.train.init_from == "nano-onestep" and config.optimizer.name == "adamw"
    for section in ("guidance", "sampling", "autoencoder", "encoder"):
        assert getattr(config, section) == getattr(base, section)
    assert config.data.degradation == base.data.degradation
    assert config.objective.perceptual_weight == base.objective.perceptual_weight > 0
    assert tuning_config(base, Wishes(rank=0), "list:x").model.lora_rank == 0
    assert judged_side(base) == 256


def test_a_one_step_model_of_unknown_training_is_refused():
    base = open_denoiser(resolve("nano-onestep")).config
    objective = dataclasses.replace(base.objective, time_distribution="uniform")
    with pytest.raises(UserError, match="-m 2.0 makes its pictures in one step, and its settings"):
        tuning_config(dataclasses.replace(base, objective=objective), Wishes("2.0"), "x")


def test_the_end_is_honest():
    wishes = Wishes("nano")
    better = closing_lines(Outcome(7, Verdict(0.4, 0.3, 9, 12)), "mine", wishes)
    assert better[-1] == "use it: vosr upscale photo.jpg -o out/ -m mine/model"
    assert not any("that is little" in line for line in better)
    little = closing_lines(Outcome(7, Verdict(0.4, 0.3999, 6, 12)), "mine", wishes)
    assert "that is little" in little[-2] and little[-1] == better[-1]
    worse = "\n".join(closing_lines(Outcome(7, Verdict(0.4, 0.4, 5, 12)), "mine", wishes))
    assert "NOT better than the base" in worse and "-m nano\n" in worse
