"""One run in a workdir, and no lock that a crash leaves behind."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from etils import epath

from vosr_jax.errors import UserError
from vosr_jax.files.paths import to_path
from vosr_jax.training.run_lock import NAME, RunLock

HOLD = (
    "import sys, time; from vosr_jax.files.paths import to_path;"
    "from vosr_jax.training.run_lock import RunLock;"
    "lock = RunLock(to_path(sys.argv[1]), beat_seconds=0.1);"
    "print('held', flush=True); time.sleep(60)"
)


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def lock(folder: Path | epath.Path, **options) -> RunLock:
    return RunLock(to_path(folder), **{"beat_seconds": 0.1, "silent_seconds": 1.0} | options)


def test_a_second_run_is_refused_while_the_first_lives_and_not_after_its_kill(
    tmp_path: Path, holder: subprocess.Popen, capsys
):
    with pytest.raises(UserError, match=f"in use by process {holder.pid} on .* since 20"):
        lock(tmp_path)
    holder.kill()
    holder.wait()
    began = time.monotonic()
    lock(tmp_path).release()
    assert time.monotonic() - began < 1, "a dead process of this machine needs no waiting"
    assert f"process {holder.pid}" in capsys.readouterr().err
    assert not (tmp_path / NAME).exists()


def test_a_process_with_the_number_of_a_dead_one_is_another(tmp_path: Path, holder):
    content = json.loads((tmp_path / NAME).read_text())
    (tmp_path / NAME).write_text(json.dumps(content | {"started": "1"}))
    lock(tmp_path).release()
    assert not (tmp_path / NAME).exists()


def elsewhere(folder: Path, **changes) -> dict:
    """A lock of another machine."""
    content = {"host": "b", "process": 7, "since": "then", "machine": "b", "token": "theirs"}
    (folder / NAME).write_text(json.dumps(content | {"beat": time.time()} | changes))
    return content


def test_a_silent_holder_on_another_machine_is_replaced_after_a_while(tmp_path: Path, capsys):
    elsewhere(tmp_path)
    began = time.monotonic()
    lock(tmp_path).release()
    assert 0.9 < time.monotonic() - began < 20
    assert "process 7 on b since then" in capsys.readouterr().err


def test_the_holder_shows_signs_of_life(tmp_path: Path):
    held = lock(tmp_path)
    first = os.stat(tmp_path / NAME).st_mtime_ns
    deadline = time.monotonic() + 20
    while os.stat(tmp_path / NAME).st_mtime_ns == first:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    held.release()


def test_a_lock_that_says_nothing_is_no_obstacle_for_good(tmp_path: Path):
    (tmp_path / NAME).write_bytes(b"")
    lock(tmp_path).release()
    assert not (tmp_path / NAME).exists()


def test_a_holder_whose_workdir_was_taken_ends(tmp_path: Path, holder: subprocess.Popen):
    elsewhere(tmp_path)
    assert holder.wait(20) == 1


def test_a_bucket_is_held_by_a_lease(bucket: str, capsys):
    folder = to_path(f"{bucket}/lease")
    held = lock(folder, beat_seconds=0.2)
    content = json.loads((folder / NAME).read_text())
    with pytest.raises(UserError, match="in use by"):
        # As another machine would see it.
        (folder / NAME).write_text(json.dumps(content | {"machine": "b"}))
        lock(folder, silent_seconds=10.0)
    held.release()
    assert not (folder / NAME).exists()
    stale = content | {"machine": "b", "beat": time.time() - 100, "token": "theirs"}
    (folder / NAME).write_text(json.dumps(stale))
    lock(folder).release()
    assert "left over" not in capsys.readouterr().out
