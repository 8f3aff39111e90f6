"""Sweeps whose folder is an address in a bucket."""

import subprocess
import sys

import pytest

from tests.sweeps.test_sweeps import _ROOT, _file
from vosr_jax.files import listing, to_path
from vosr_jax.sweeps import running
from vosr_jax.sweeps.running import finished, held, run_trials
from vosr_jax.sweeps.trials import load_sweep

# Stands in for train.py.
_PROGRAM = """
import sys
from vosr_jax.files import write_text
flags = dict(part.split("=", 1) for part in sys.argv[1:])
print("started", flush=True)
if flags.get("--config.seed") == "13":
    sys.exit("error: seed 13 brings bad luck")
write_text(flags["--workdir"] + "/checkpoints/4/commit_success.txt", "")
"""
_HOLDER = """
import sys
from vosr_jax.sweeps.running import held
with held(sys.argv[1], sys.argv[2], wait=False) as lock:
    print(lock is not None, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def sweep_file(tmp_path, monkeypatch):
    program = tmp_path / "train.py"
    program.write_text(_PROGRAM)
    monkeypatch.setattr(running, "_program", lambda: program)
    monkeypatch.setenv("PYTHONPATH", str(_ROOT))
    return _file(tmp_path, 'product(fixed("train.total_steps", 4), sweep("seed", [1, 13]))')


def test_trials_run_once_and_their_logs_lie_in_the_bucket(bucket, tmp_path, sweep_file):
    home, said = f"{bucket}/{tmp_path.name}", []
    good, bad = load_sweep(sweep_file).trials
    assert run_trials([good, bad], home, said.append) == [bad.name]
    assert finished(good, home) and not finished(bad, home)
    assert any("seed 13 brings bad luck" in line for line in said)
    assert (to_path(home) / f"{bad.name}.log").read_text().count("started") == 1
    assert run_trials([good], home, said.append) == []
    assert "finished before" in said[-1]
    assert (to_path(home) / f"{good.name}.log").read_text().count("started") == 1
    assert not listing(f"{home}/locks")


def test_what_is_not_committed_is_not_finished(bucket, tmp_path, sweep_file):
    home = f"{bucket}/{tmp_path.name}"
    trial = load_sweep(sweep_file).trials[0]
    half = to_path(home) / trial.name / "checkpoints" / "4" / "state" / "d"
    half.write_text("half")
    assert not finished(trial, home)


def test_of_processes_that_share_the_bucket_one_has_a_trial(bucket, tmp_path):
    home = f"{bucket}/{tmp_path.name}"
    command = [sys.executable, "-c", _HOLDER, home, "one"]
    holder = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
    )
    assert holder.stdout.readline() == "True\n"
    with held(home, "one", wait=False) as lock:
        assert lock is None
    with held(home, "other", wait=False) as lock:
        assert lock == []
    holder.communicate("")
    with held(home, "one", wait=False) as lock:
        assert lock == []
