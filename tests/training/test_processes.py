"""train.py as several processes on one machine."""

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from tests.training import processes
from tests.training.processes import finish, rows, wait_for_step
from tests.training.saved_states import flip_bit
from tests.training.test_errors import truncate
from vosr_jax.errors import UserError
from vosr_jax.files.checksums import parse
from vosr_jax.training.distributed import join
from vosr_jax.weights.checkpoint_files import SUMS, verify
from vosr_jax.weights.saved_run import load_ema

OPTIONS = (
    "--config.train.checkpoint_every=4",
    "--config.mesh.fsdp=-1",
    # Runs of four steps are gone on with for eight.
    "--config.optimizer.decay_steps=8",
)


def job(workdir: Path, cache: Path, count: int, *overrides: str) -> list[subprocess.Popen]:
    """A run of so many processes, which share four simulated devices."""
    return processes.job(workdir, cache, count, *OPTIONS, *overrides)


def finish_all(started: list[subprocess.Popen]) -> list[str]:
    said = []
    for process in started:
        code, output = finish(process)
        assert code == 0, output
        said.append(output)
    return said


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same eight steps by one process and by two, and four steps by two, then four by one."""
    folder = tmp_path_factory.mktemp("processes")
    cache = folder / "cache"
    long, short = "--config.train.total_steps=8", "--config.train.total_steps=4"
    finish_all(job(folder / "one", cache, 1, long))
    said = finish_all(job(folder / "two", cache, 2, long))
    finish_all(job(folder / "mixed", cache, 2, short))
    finish_all(
        job(folder / "mixed", cache, 1, long, "--config.mesh.fsdp=2", "--config.mesh.data=2")
    )
    return folder, said


def losses(workdir: Path) -> list[float]:
    return [row["loss"] for row in rows(workdir)]


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(runs):
    folder, _ = runs
    assert len(losses(folder / "one")) == 8
    np.testing.assert_allclose(losses(folder / "two"), losses(folder / "one"), rtol=1e-5)


@pytest.mark.slow
def test_what_two_processes_saved_one_continues_on_another_mesh(runs):
    folder, _ = runs
    np.testing.assert_allclose(losses(folder / "mixed"), losses(folder / "one"), rtol=1e-5)
    (_, step, one), (_, _, mixed) = (load_ema(folder / name) for name in ("one", "mixed"))
    assert step == 8
    for name, value in one.items():
        np.testing.assert_allclose(mixed[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_only_the_first_process_speaks(runs):
    _, (first, second) = runs
    assert "step 8/8" in first and "step" not in second


@pytest.mark.slow
def test_four_processes_continue_what_two_saved(tmp_path: Path):
    cache = tmp_path / "cache"
    finish_all(job(tmp_path / "one", cache, 1, "--config.train.total_steps=8"))
    finish_all(job(tmp_path / "many", cache, 2, "--config.train.total_steps=4"))
    finish_all(job(tmp_path / "many", cache, 4, "--config.train.total_steps=8"))
    np.testing.assert_allclose(losses(tmp_path / "many"), losses(tmp_path / "one"), rtol=1e-5)


@pytest.mark.slow
def test_two_processes_pass_over_a_damaged_newest_checkpoint(runs, tmp_path: Path):
    folder, _ = runs
    shutil.copytree(folder / "two", tmp_path / "run")
    truncate(tmp_path / "run" / "checkpoints" / "8")
    said = finish_all(job(tmp_path / "run", folder / "cache", 2, "--config.train.total_steps=8"))
    assert "checkpoints/8 is damaged" in said[0] and "resumed at step 4" in said[0]
    np.testing.assert_allclose(losses(tmp_path / "run")[-4:], losses(folder / "one")[-4:], 1e-5)


@pytest.mark.slow
def test_a_bit_that_flips_in_the_second_processes_file_is_noticed(runs, tmp_path: Path):
    folder, _ = runs
    shutil.copytree(folder / "two", tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoints" / "8"
    assert verify(epath.Path(checkpoint)).kind == "whole"
    own = [name for name in parse((checkpoint / SUMS).read_bytes()) if "process_1/" in name]
    flip_bit(max((checkpoint / name for name in own), key=lambda f: f.stat().st_size), 8000)
    said = finish_all(job(tmp_path / "run", folder / "cache", 2, "--config.train.total_steps=8"))
    assert "fails its checksum" in said[0] and "resumed at step 4" in said[0]
    np.testing.assert_allclose(losses(tmp_path / "run")[-4:], losses(folder / "one")[-4:], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_process_that_falls_silent_is_named_and_ends_the_job(tmp_path: Path, sent):
    first, second = job(tmp_path / "run", tmp_path / "cache", 2, "--config.train.total_steps=9999")
    wait_for_step(first, tmp_path / "run", 3)
    second.send_signal(sent)
    began = time.monotonic()
    code, output = finish(first, timeout=300)
    second.kill()
    assert code != 0 and time.monotonic() - began < 200
    if sent == signal.SIGSTOP:
        assert re.search(r"stopped sending heartbeats\):\s+1\b", output)


@pytest.mark.slow
def test_one_process_told_to_stop_makes_both_save_and_leave(tmp_path: Path):
    first, second = job(tmp_path / "run", tmp_path / "cache", 2, "--config.train.total_steps=9999")
    wait_for_step(first, tmp_path / "run", 3)
    second.send_signal(signal.SIGTERM)
    said = finish_all([first, second])
    assert "saved; run the same command to go on" in said[0]


def test_half_a_description_of_a_job_is_refused(monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    with pytest.raises(UserError, match="JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID"):
        join()
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("JAX_PROCESS_ID", "5")
    with pytest.raises(UserError, match="JAX_PROCESS_ID=5"):
        join()
