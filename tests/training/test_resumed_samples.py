"""A resumed run goes on where it says: at the right sample, with its config, on a full disk."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import jax
import pytest

from tests.training.tiny import tiny_config
from vosr_jax.errors import UserError
from vosr_jax.training import loop
from vosr_jax.training.loop import train
from vosr_jax.weights.saved_run import load_run


@pytest.fixture(scope="module", autouse=True)
def programs(tmp_path_factory):
    """Compiled programs are kept for the tests of this file."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("programs")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    """Two steps of four samples."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    train(tiny_config(train={"total_steps": 2}), folder)
    return folder


@pytest.fixture
def run(workdir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(workdir, tmp_path / "run"))


def rows_of(folder: Path) -> dict[int, int]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return {row["step"]: row["samples_seen"] for row in map(json.loads, lines)}


def test_another_batch_size_goes_on_at_the_next_sample(run: Path, monkeypatch):
    original, seen = loop.device_batch, []

    def watched(batch, run):
        seen.append(batch["index"].tolist())
        return original(batch, run)

    monkeypatch.setattr(loop, "device_batch", watched)
    smaller = tiny_config(train={"total_steps": 4, "batch_size": 2})
    train(smaller, run, allow_config_changes=True)
    assert seen[:2] == [[8, 9], [10, 11]]
    assert rows_of(run) == {1: 4, 2: 8, 3: 10, 4: 12}
    found = load_run(run)
    assert (found.step, found.progress.samples_seen) == (4, 12)
    assert found.config["train"]["batch_size"] == 2

    seen.clear()
    train(tiny_config(train={"total_steps": 5}), run, allow_config_changes=True)
    assert seen[0] == [12, 13, 14, 15] and load_run(run).progress.samples_seen == 16


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"model": {"width": 48}}, "of another model"),
        ({"data": {"sources": "/no/such/folder"}}, "/no/such/folder"),
    ],
    ids=["width", "sources"],
)
def test_a_refused_change_leaves_the_config_and_the_run_as_they_were(run, wrong, sentence):
    before = (run / "config.json").read_bytes()
    with pytest.raises(UserError, match=sentence):
        train(tiny_config(train={"total_steps": 3}, **wrong), run, allow_config_changes=True)
    assert (run / "config.json").read_bytes() == before
    assert not (run / "run.lock").exists()
    assert train(tiny_config(train={"total_steps": 3}), run).step == 3


def test_whoever_reads_a_checkpoint_gets_the_config_that_it_was_made_with(run: Path):
    content = json.loads((run / "config.json").read_text())
    content["model"]["width"] = 48
    (run / "config.json").write_text(json.dumps(content))
    assert load_run(run).config["model"]["width"] == 32


@pytest.fixture
def small_disk(tmp_path: Path):
    """A disk of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_costs_a_line_a_save_and_nothing_else(small_disk: Path, capfd):
    config = tiny_config(train={"total_steps": 6, "checkpoint_every": 1})
    with pytest.raises(UserError, match="the last checkpoint could not be saved"):
        train(config, small_disk / "run")
    told = capfd.readouterr().err
    assert "step 6/6" in told, "training goes on to its last step"
    assert 2 <= told.count("could not be saved (") <= 5
    assert "Traceback" not in told and len(told.splitlines()) < 40, told
    assert not list((small_disk / "run" / "checkpoints").glob("*tmp*")), "the half-made one is gone"
    saved = load_run(small_disk / "run").step
    assert 1 <= saved < 6


def test_bookkeeping_on_a_full_disk_is_said_once(small_disk: Path, capsys):
    from vosr_jax.training.timing import Goodput

    goodput = Goodput(small_disk, 0)
    (small_disk / "fill").write_bytes(b"0" * 1990000)
    (small_disk / "rest").touch()
    with (small_disk / "rest").open("wb", 0) as rest, pytest.raises(OSError):
        while True:
            rest.write(b"0" * 4096)
    for _ in range(3):
        goodput.write()
    (small_disk / "fill").unlink()
    goodput.write()
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "goodput.json" in told[0] and "training goes on" in told[0]
    assert json.loads((small_disk / "goodput.json").read_text())["step"] == 0


def test_a_ledger_that_cannot_be_read_begins_anew(tmp_path: Path, capsys):
    from vosr_jax.training.timing import Goodput

    (tmp_path / "goodput.json").write_text('{"seconds": ')
    Goodput(tmp_path, 3).write()
    assert "begins anew" in capsys.readouterr().err
    assert json.loads((tmp_path / "goodput.json").read_text())["step"] == 3


def test_samples_on_a_full_disk_cost_a_line(tmp_path: Path, monkeypatch, capsys):
    def full(path):
        raise UserError(f"{path} cannot be written (No space left on device)")

    monkeypatch.setattr("vosr_jax.training.preview.whole_file", full)
    train(tiny_config(train={"total_steps": 2, "sample_every": 1}), tmp_path / "run")
    told = capsys.readouterr().err
    assert told.count("No space left on device") == 1 and "training goes on without it" in told
    assert load_run(tmp_path / "run").step == 2
