"""Whose a workdir is, which config it has, and what a start finds beside its checkpoints."""

import json
from pathlib import Path

import pytest

from tests.training.saved_states import restored, same, saved_run, state_of
from tests.training.tiny import tiny_config
from vosr_jax.errors import UserError
from vosr_jax.files.atomic import write_json
from vosr_jax.training.checkpoints import Checkpoints
from vosr_jax.training.workdir import CONFIG, Workdir, open_workdir

COSINE = {"schedule": "cosine"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A workdir of `tiny_config` with a cosine over 100 steps and one checkpoint."""
    return begun(tmp_path / "run", optimizer=COSINE, train={"total_steps": 100})


def begun(folder: Path, **sections) -> Path:
    saved_run(folder, (10,))
    (folder / CONFIG).unlink()
    write_json(folder / CONFIG, tiny_config(**sections).to_dict())
    return folder


def opened(folder: Path, allow: bool = False, **sections) -> Workdir:
    place = open_workdir(folder, tiny_config(**sections), allow_changes=allow)
    place.close()
    return place


def test_a_longer_run_keeps_its_schedule_and_says_so(run: Path, capsys):
    place = opened(run, optimizer=COSINE, train={"total_steps": 200})
    assert place.config.optimizer.decay_steps == 100
    told = capsys.readouterr().err
    assert "the cosine schedule ends at step 100" in told
    assert "--config.optimizer.decay_steps=200 --allow_config_changes" in told
    place.keep_config()
    assert (
        opened(run, optimizer=COSINE, train={"total_steps": 300}).config.optimizer.decay_steps
        == 100
    )


def test_another_length_of_the_schedule_is_a_change_of_the_config(run: Path):
    longer = {"optimizer": COSINE | {"decay_steps": 200}, "train": {"total_steps": 200}}
    with pytest.raises(UserError, match="optimizer.decay_steps: 100 -> 200"):
        opened(run, **longer)
    assert opened(run, allow=True, **longer).config.optimizer.decay_steps == 200


def test_another_schedule_is_as_long_as_the_run(run: Path):
    linear = {"optimizer": {"schedule": "linear"}, "train": {"total_steps": 200}}
    with pytest.raises(UserError, match=r"\(optimizer.schedule: 'cosine' -> 'linear'\)"):
        opened(run, **linear)
    assert opened(run, allow=True, **linear).config.optimizer.decay_steps == 200


def test_a_warm_up_by_share_keeps_its_length_too(tmp_path: Path):
    share = {"warmup_steps": None, "warmup_share": 0.5}
    folder = begun(tmp_path / "run", optimizer=share, train={"total_steps": 100})
    longer = opened(folder, optimizer=share, train={"total_steps": 200}).config.optimizer
    assert longer.decay_steps == 100 and longer.warmup(longer.decay_steps) == 50


def test_a_constant_schedule_has_no_length(tmp_path: Path, capsys):
    folder = begun(tmp_path / "run", train={"total_steps": 100})
    assert opened(folder, train={"total_steps": 200}).config.optimizer.decay_steps is None
    assert not capsys.readouterr().err


@pytest.mark.parametrize("change", [{"batch_size": 8}, {"batch_size": 2}, {"microbatches": 2}])
def test_another_batch_size_or_accumulation_is_refused_unless_asked_for(run: Path, change: dict):
    sections = {"optimizer": COSINE, "train": {"total_steps": 100} | change}
    with pytest.raises(UserError, match=f"train.{next(iter(change))}: .*--allow_config_changes"):
        opened(run, **sections)
    opened(run, allow=True, **sections)


def test_a_workdir_from_before_a_key_existed_goes_on(run: Path):
    plain = json.loads((run / CONFIG).read_text())
    del plain["optimizer"]["decay_steps"], plain["train"]["max_skipped"]
    write_json(run / CONFIG, plain)
    place = opened(run, optimizer=COSINE, train={"total_steps": 100})
    assert place.config.optimizer.decay_steps == 100


def test_config_json_changes_only_when_everything_was_found_usable(run: Path):
    before = (run / CONFIG).read_bytes()
    place = opened(run, allow=True, optimizer=COSINE, train={"total_steps": 100, "batch_size": 8})
    assert (run / CONFIG).read_bytes() == before
    place.keep_config()
    assert json.loads((run / CONFIG).read_text())["train"]["batch_size"] == 8


def test_a_run_never_begins_anew_beside_damaged_checkpoints(run: Path):
    checkpoints = run / "checkpoints"
    (checkpoints / "10").rename(checkpoints / "10.damaged")
    with pytest.raises(UserError, match=r"damaged checkpoints alone \(10.damaged\).*begin again"):
        opened(run, optimizer=COSINE, train={"total_steps": 100})
    (checkpoints / "10.damaged").rename(run / "looked at")
    opened(run, optimizer=COSINE, train={"total_steps": 100})


def test_checkpoints_without_a_config_are_no_beginning(run: Path):
    (run / CONFIG).unlink()
    with pytest.raises(UserError, match=f"holds no {CONFIG}"):
        opened(run)


def test_what_a_killed_save_left_is_removed_and_said(run: Path, capsys):
    left = run / "checkpoints" / "20.orbax-checkpoint-tmp"
    (left / "state").mkdir(parents=True)
    (left / "state" / "manifest.ocdbt").write_bytes(b"half")
    opened(run, optimizer=COSINE, train={"total_steps": 100})
    assert not left.exists() and same(restored(run)[0], state_of(10))
    assert "unfinished saves have left (20.orbax-checkpoint-tmp)" in capsys.readouterr().err


def test_a_living_run_keeps_its_unfinished_save(run: Path):
    left = run / "checkpoints" / "20.orbax-checkpoint-tmp"
    left.mkdir()
    lock = {"machine": "elsewhere", "process": 1, "host": "b", "beat": 0, "token": "t"}
    write_json(run / "run.lock", lock)
    with Beats(run / "run.lock"), pytest.raises(UserError, match="in use by process 1 on b"):
        opened(run, optimizer=COSINE, train={"total_steps": 100})
    assert left.exists()


class Beats:
    """Signs of life of a holder on another machine."""

    def __init__(self, path: Path):
        import threading

        self._path, self._ended = path, threading.Event()
        self._thread = threading.Thread(target=self._beat)

    def _beat(self) -> None:
        import os

        while not self._ended.wait(0.05):
            os.utime(self._path)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._thread.join()


def steps_left(folder: Path) -> list[int]:
    return sorted(int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdigit())


@pytest.mark.parametrize(("key", "best"), [("eval_lpips", 20), ("eval_psnr", 10)])
def test_the_best_checkpoint_outlives_restarts(tmp_path: Path, key: str, best: int):
    folder = tmp_path / "run"
    for life in ((10, 20), (30, 40)):
        checkpoints = Checkpoints(folder, keep=1, keep_best=key)
        for step in life:
            figure = {10: 5.0, 20: 1.0, 30: 3.0}.get(step)
            if figure is not None:
                checkpoints.judge(step, {key: figure})
            checkpoints.save(state_of(step), samples_seen=step)
        checkpoints.close()
    assert steps_left(folder) == [best, 40]


def test_a_validation_belongs_to_the_checkpoint_of_its_step_alone(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path / "run", keep=5, keep_best="eval_psnr")
    checkpoints.judge(9, {"eval_psnr": 1.0})
    checkpoints.save(state_of(10), samples_seen=10)
    checkpoints.close()
    assert Checkpoints(tmp_path / "run").progress().judged is None


@pytest.mark.parametrize("every", [{"eval_every": 3}, {"eval_every": 0}, {"checkpoint_every": 0}])
def test_the_best_of_steps_that_are_not_saved_is_refused(every: dict):
    settings = {"eval_every": 4, "checkpoint_every": 2, "keep_best": "eval_psnr"}
    tiny_config(train=settings)
    with pytest.raises(UserError, match="multiple of train.checkpoint_every"):
        tiny_config(train=settings | every)


def test_a_workdir_is_given_back_where_another_process_is_refused(run: Path, monkeypatch):
    import vosr_jax.training.processes as agreement

    monkeypatch.setattr(agreement, "worst_of_all", lambda *_: (1, "process 1 cannot read it"))
    with pytest.raises(UserError, match="process 1 cannot read it"):
        opened(run, optimizer=COSINE, train={"total_steps": 100})
    assert not (run / "run.lock").exists()
