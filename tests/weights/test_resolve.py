"""What is at a name or path, by one rule for everybody who asks."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from vosr_jax.errors import UserError
from vosr_jax.training.setup import weights_of
from vosr_jax.weights import hub, load_denoiser
from vosr_jax.weights.resolve import Found, resolve


def _export(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_names_paths_and_files_become_what_lies_there(tmp_path: Path):
    assert resolve("nano").kind == "export" and resolve("nano").path.name == "nano"
    export = _export(tmp_path / "mine")
    assert resolve(export) == resolve(str(export)) == Found("export", export)
    assert resolve(export / "model.safetensors") == Found("export", export)
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/config.json").write_text("{}")
    assert resolve(tmp_path / "run") == Found("workdir", tmp_path / "run")
    weights = tmp_path / "official/checkpoints/ema_model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"")
    (tmp_path / "official/args.json").write_text("{}")
    for path in (tmp_path / "official", weights):
        assert resolve(path) == Found("release", path)


def test_a_path_of_this_machine_goes_before_the_hub(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _export(Path("me/nets"))
    monkeypatch.setattr(hub, "fetch", lambda model: pytest.fail("the hub was asked"))
    assert resolve("me/nets").path == Path("me/nets")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("nanno", "nano"),
        ("Nano", "nano"),
        ("nano_onestep", "nano-onestep"),
        ("0.5b-one-step", "0.5b-onestep"),
        ("1.4B", "1.4b"),
    ],
)
def test_a_name_with_a_mistake_is_answered_with_the_nearest(name: str, near: str):
    with pytest.raises(UserError, match=f"teacher={name}: .*did you mean {near}?") as error:
        resolve(name, "teacher")
    assert "\n" not in str(error.value)


def test_what_is_like_no_name_gets_no_guess():
    with pytest.raises(UserError, match="model holiday: there is no such name or path; known are"):
        resolve("holiday")


def test_a_path_with_a_mistake_is_not_only_told_about_the_hub(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def fetch(model):
        raise UserError(f"the hub has no repository {model.repo}")

    monkeypatch.setattr(hub, "fetch", fetch)
    with pytest.raises(UserError, match="train.init_from=runs/1: there is no such path here.*hub"):
        resolve("runs/1", "train.init_from")


def test_folders_that_are_none_say_what_is_missing(tmp_path: Path):
    with pytest.raises(UserError, match="eval.model=.* is no model: it has neither"):
        resolve(tmp_path, "eval.model")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="no model yet"):
        resolve(tmp_path)


def test_addresses_are_paths_and_never_ids_of_the_hub(monkeypatch):
    monkeypatch.setattr(hub, "fetch", lambda model: pytest.fail("the hub was asked"))
    with pytest.raises(UserError, match="https://x/y is no address of a model"):
        resolve("https://x/y")


def test_a_teacher_in_a_bucket_is_compared_as_one_on_a_disk_is(bucket):
    from tests.training.tiny import tiny_config
    from vosr_jax.files import to_path, write_json
    from vosr_jax.training.teacher import open_teacher

    write_json(f"{bucket}/taught/config.json", tiny_config(model={"width": 64}).to_dict())
    write_json(f"{bucket}/taught/checkpoints/3/progress/metadata", {})
    assert resolve(f"{bucket}/taught") == Found("workdir", to_path(f"{bucket}/taught"))
    student = tiny_config(model={"r_embedding": True}, objective={"name": "rcgm"})
    config = dataclasses.replace(student, teacher=f"{bucket}/taught")
    with pytest.raises(UserError, match="teacher=gs://.*model.width is 64, here 32"):
        open_teacher(config)
    with pytest.raises(UserError, match="there is nothing at this address"):
        resolve(f"{bucket}/absent")


def test_training_begins_from_a_shipped_name():
    given = weights_of("nano")
    network, _ = load_denoiser("nano")
    from vosr_jax.parameters.blueprint import flatten

    taught = flatten(network)
    assert given.keys() == taught.keys()
    name = "blocks.attn.qkv.kernel"
    np.testing.assert_array_equal(np.asarray(given[name]), taught[name])
    with pytest.raises(UserError, match="train.init_from=nanno: .*did you mean nano"):
        weights_of("nanno")


def test_everybody_asks_the_same(tmp_path: Path):
    """Upscaling, the teacher, init_from, evaluation and conversion know the same things."""
    from tests.training.tiny import tiny_config
    from vosr_jax.commands.convert import run as convert  # noqa: F401
    from vosr_jax.restoration.loading import load_model
    from vosr_jax.training.teacher import open_teacher
    from vosr_jax.weights.package import read_package

    missing = str(tmp_path / "absent")
    student = tiny_config(model={"r_embedding": True}, objective={"name": "rcgm"}).to_dict()
    from vosr_jax.config import validate

    config = validate(json.loads(json.dumps(student)) | {"teacher": missing})
    for ask in (
        load_model,
        read_package,
        weights_of,
        load_denoiser,
        lambda _: open_teacher(config),
    ):
        with pytest.raises(UserError, match=f"{missing}: there is no such name or path"):
            ask(missing)
