"""What a run says where it cannot go on, what it writes, and what can begin from it."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.training.tiny import tiny_config
from vosr_jax.errors import UserError
from vosr_jax.parameters.blueprint import flatten
from vosr_jax.training import loop
from vosr_jax.training.build import jit_train_step
from vosr_jax.training.checkpoints import Checkpoints
from vosr_jax.training.loop import train
from vosr_jax.training.setup import start_run
from vosr_jax.training.workdir import open_workdir
from vosr_jax.weights.export import load_export, save_export
from vosr_jax.weights.opening import open_denoiser
from vosr_jax.weights.resolve import resolve
from vosr_jax.weights.saved_run import load_ema


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    """A finished run of `tiny_config()`, with one preview; no step may copy anything by accident.

    What a step reads lies on the devices before, and what is read of it is asked for explicitly.
    """
    folder = tmp_path_factory.mktemp("trained") / "run"

    def guarded(*arguments):
        step_fn = jit_train_step(*arguments)

        def step(*arguments):
            with jax.transfer_guard("disallow"):
                return step_fn(*arguments)

        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "jit_train_step", guarded)
        train(tiny_config(train={"sample_every": 3, "eval_every": 3}), folder)
    return folder


def refused(config, folder: Path, sentence: str, **options) -> str:
    """Training is refused with one sentence."""
    with pytest.raises(UserError, match=sentence) as error:
        train(config, folder, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_metrics_hold_the_documented_fields_in_full_precision(workdir: Path):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2, 3]
    assert [row["samples_seen"] for row in steps] == [4, 8, 12]
    for row in steps:
        assert {"grad_norm", "learning_rate", "pairs_per_second", "data_wait_seconds"} <= row.keys()
        assert 0 < row["update_norm"] < row["param_norm"]
        tenths = {name: value for name, value in row.items() if name.startswith("loss_t")}
        assert 1 <= len(tenths) <= 4 and min(tenths.values()) <= row["loss"] * (1 + 1e-6)
        assert row["learning_rate"] == float(np.float32(1e-3))
        assert row["loss"] == float(np.float32(row["loss"])) > 0
    evaluation = next(row for row in rows if "eval_psnr" in row)
    assert evaluation["step"] == 3
    assert 0 < evaluation["eval_lpips"] < 2 and 5 < evaluation["eval_psnr"] < 60
    assert list(workdir.glob("events.out.tfevents*"))


def test_sample_pictures_show_input_ours_and_truth(workdir: Path):
    from PIL import Image

    picture = np.asarray(Image.open(workdir / "samples" / "3.png"))
    assert picture.shape == (3 * 32, 3 * 32, 3)
    lq, ours, hr = np.split(picture.astype(float), 3, axis=1)
    assert np.abs(lq - hr).mean() < np.abs(ours - hr).mean(), "three steps cannot beat the input"


def test_a_foreign_folder_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("years of work")
    before = snapshot(tmp_path)
    refused(tiny_config(), tmp_path, "not empty and holds no config.json of a run; choose another")
    assert snapshot(tmp_path) == before


def test_a_workdir_that_cannot_be_made_is_named(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("")
    refused(tiny_config(), file / "run", f"workdir {file}/run cannot be written")
    refused(tiny_config(), file, f"workdir {file} cannot be written")


def test_a_damaged_config_of_the_workdir_is_named(workdir: Path, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(workdir, folder)
    (folder / "config.json").write_text('{"seed": ')
    refused(tiny_config(), folder, "config.json cannot be read")


def test_a_changed_config_is_refused_with_the_differing_keys(workdir: Path):
    before = snapshot(workdir)
    changed = tiny_config(optimizer={"learning_rate": 2e-3}, data={"flip": True})
    told = refused(changed, workdir, "begun with another config")
    assert "optimizer.learning_rate: 0.001 -> 0.002" in told and "data.flip" in told
    assert "--allow_config_changes" in told and "ema" not in told
    assert snapshot(workdir) == before
    config = tiny_config(train={"total_steps": 9, "checkpoint_every": 1}, data={"workers": 3})
    open_workdir(workdir, config, allow_changes=False).close()
    open_workdir(workdir, changed, allow_changes=True).close()
    assert snapshot(workdir) == before, "nothing is written before everything is checked"


def test_before_the_first_checkpoint_the_config_may_be_corrected(tmp_path: Path):
    wrong = tiny_config(data={"sources": "/no/such/folder"})
    open_workdir(tmp_path / "run", wrong, allow_changes=False).close()
    open_workdir(tmp_path / "run", tiny_config(), allow_changes=False).close()
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == json.loads(
        json.dumps(tiny_config().to_dict())
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"width": 48}},
        {"model": {"depth": 3}},
        {"model": {"detail_width": 4}},
        {"optimizer": {"name": "muon"}},
    ],
    ids=["width", "depth", "more parameters", "optimizer"],
)
def test_a_checkpoint_of_another_model_is_refused(workdir: Path, tmp_path: Path, changes: dict):
    folder = tmp_path / "run"
    shutil.copytree(workdir, folder)
    before = snapshot(folder / "checkpoints")
    told = refused(tiny_config(**changes), folder, "checkpoint", allow_config_changes=True)
    assert str(folder / "checkpoints" / "3") in told
    assert snapshot(folder / "checkpoints") == before


def truncate(checkpoint: Path) -> None:
    """Halve every large file of a checkpoint."""
    for file in (checkpoint / "state").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(
    workdir: Path, tmp_path: Path, capsys
):
    folder = tmp_path / "run"
    shutil.copytree(workdir, folder)
    truncate(folder / "checkpoints" / "3")
    assert train(tiny_config(train={"total_steps": 4}), folder).step == 4
    told = capsys.readouterr().err
    assert "checkpoints/3 is damaged" in told and "resumed at step 2" in told
    assert (folder / "checkpoints" / "3.damaged").is_dir()


def test_where_every_checkpoint_is_damaged_the_run_is_refused(workdir: Path, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(workdir, folder)
    for step in ("2", "3"):
        truncate(folder / "checkpoints" / step)
    told = refused(tiny_config(train={"total_steps": 4}), folder, "every checkpoint is damaged")
    assert str(folder) in told


@pytest.mark.parametrize("kind", ["empty", "missing", "unreadable"])
def test_folders_without_photographs_are_refused(tmp_path: Path, kind: str):
    folder = tmp_path / "photographs"
    if kind != "missing":
        folder.mkdir()
    if kind == "unreadable":
        for number in range(3):
            (folder / f"{number}.jpg").write_bytes(b"no picture")
    told = refused(tiny_config(data={"sources": str(folder)}), tmp_path / "run", str(folder))
    assert {"empty": "no photographs", "missing": "no folder", "unreadable": "read"}[kind] in told


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (UserError("data.sources: the disk is gone"), "data.sources: the disk is gone"),
        (KeyError("a bug"), "data pipeline failed with KeyError .'a bug'."),
    ],
    ids=["known", "unforeseen"],
)
def test_data_that_fail_cost_no_finished_step(tmp_path: Path, monkeypatch, error, sentence):
    """The third batch fails; the state of step 2 is saved and the sentence said."""
    from vosr_jax.data.pipeline import Batches

    original, asked = Batches.take, []

    def fail_at_the_third(self):
        asked.append(1)
        if len(asked) > 2:
            raise error
        return original(self)

    monkeypatch.setattr(Batches, "take", fail_at_the_third)
    config = tiny_config(train={"checkpoint_every": 0})
    refused(config, tmp_path / "run", sentence)
    assert load_ema(tmp_path / "run")[1] == 2
    assert [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").open()] == [
        1,
        2,
    ]


def test_a_wrong_folder_of_previews_is_refused_before_the_first_step(tmp_path: Path):
    config = tiny_config(train={"eval_every": 1000}, eval={"hr": str(tmp_path / "none")})
    refused(config, tmp_path / "run", "eval.hr: there is no folder")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def started(tmp_path: Path, **sections):
    """A run at its first step."""
    folder = tmp_path / "new"
    config = tiny_config(**sections)
    open_workdir(folder, config, allow_changes=False).close()
    checkpoints = Checkpoints(folder)
    try:
        return start_run(config, checkpoints)
    finally:
        checkpoints.close()


def test_weights_of_a_run_serve_at_another_crop_size(workdir: Path, tmp_path: Path):
    run = started(tmp_path, train={"init_from": str(workdir)}, data={"crop_size": 64})
    _, step, ema = load_ema(workdir)
    assert step == 3 and run.step == 0
    assert run.train_step.network.merge(run.state.ema).settings.latent_size == 32
    for name, value in ema.items():
        np.testing.assert_array_equal(run.state.parameters[name], value)
        np.testing.assert_array_equal(run.state.ema[name], value)
    slots = jax.tree.leaves(run.state.optimizer)
    assert not any(np.asarray(slot).any() for slot in slots), "the optimizer must be new"
    # Both are donated to the step, so they must not be one buffer.
    pointers = [run.state.parameters[n].unsafe_buffer_pointer() for n in ema]
    assert not set(pointers) & {run.state.ema[n].unsafe_buffer_pointer() for n in ema}


def test_weights_of_another_model_are_refused_with_the_parameters_name(workdir, tmp_path: Path):
    with pytest.raises(UserError, match="train.init_from=.*should be .* another model"):
        started(tmp_path, train={"init_from": str(workdir)}, model={"width": 48})


def test_weights_that_are_not_there_are_named(tmp_path: Path):
    with pytest.raises(UserError, match="nowhere"):
        started(tmp_path, train={"init_from": str(tmp_path / "nowhere")})


def test_an_export_gives_back_the_ema_and_serves_as_a_beginning(workdir: Path, tmp_path: Path):
    config, _, ema = load_ema(workdir)
    folder = save_export(tmp_path / "export", config, ema, "float32", {"steps": 3})
    assert json.loads((folder / "provenance.json").read_text()) == {"steps": 3}
    stored, model = load_export(folder)
    assert stored == config
    again = flatten(model)
    assert again.keys() == ema.keys()
    for name, value in ema.items():
        np.testing.assert_array_equal(again[name], value)
    from_run = flatten(open_denoiser(resolve(workdir)).network.network())
    assert all((from_run[name] == value).all() for name, value in ema.items())
    run = started(tmp_path, train={"init_from": str(folder)})
    assert all((run.state.parameters[name] == value).all() for name, value in ema.items())


def test_a_half_precision_export_is_half_as_large_and_close(workdir: Path, tmp_path: Path):
    config, _, ema = load_ema(workdir)
    sizes = {}
    for dtype in ("float32", "float16"):
        folder = save_export(tmp_path / dtype, config, ema, dtype)
        sizes[dtype] = (folder / "model.safetensors").stat().st_size
    assert sizes["float16"] < 0.6 * sizes["float32"]
    for name, value in flatten(load_export(tmp_path / "float16")[1]).items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, ema[name], rtol=1e-3, atol=1e-6)


def test_an_export_that_lacks_a_parameter_is_refused(workdir: Path, tmp_path: Path):
    config, _, ema = load_ema(workdir)
    first = sorted(ema)[0]
    folder = save_export(tmp_path, config, {k: v for k, v in ema.items() if k != first}, "float32")
    with pytest.raises(UserError, match=f"lacks {first}"):
        load_export(folder)


def test_batches_cannot_be_split_over_more_rows_than_they_have(tmp_path: Path):
    config = tiny_config(mesh={"data": 1, "fsdp": 1})
    config = dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, data=3))
    with pytest.raises(UserError, match="mesh.data"):
        train(config, tmp_path / "run")
