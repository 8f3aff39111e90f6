"""Sweep files, trials that run once, and figures compared at equal PSNR."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vosr_jax.errors import UserError
from vosr_jax.sweeps import running
from vosr_jax.sweeps.aggregate import interval, table_of
from vosr_jax.sweeps.hyper import chainit, fixed, product, sweep, zipit
from vosr_jax.sweeps.running import array_index, chosen, finished, run_trials
from vosr_jax.sweeps.score import at_psnr
from vosr_jax.sweeps.trials import load_sweep

_ROOT = Path(__file__).parents[2]
_SWEEPS = sorted((_ROOT / "configs" / "sweeps").glob("*.py"))

# Stands in for train.py: a checkpoint a moment, from where it was.
_PROGRAM = """
import pathlib, signal, sys, time
flags = dict(part.split("=", 1) for part in sys.argv[1:])
folder = pathlib.Path(flags["--workdir"]) / "checkpoints"
folder.mkdir(parents=True, exist_ok=True)
print("started", flush=True)
if flags.get("--config.seed") == "13":
    sys.exit("error: seed 13 brings bad luck")
for step in range(1, int(flags["--config.train.total_steps"]) + 1):
    if not (folder / str(step)).exists():
        time.sleep(0.05)
        (folder / str(step)).mkdir()
"""


def _file(tmp_path, sweep_text, config="configs/nano.py"):
    path = tmp_path / "configs" / "sweeps" / "own.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "from vosr_jax.sweeps.hyper import *\n"
        f"CONFIG = {str(_ROOT / config)!r}\n"
        f"def get_sweep():\n    return {sweep_text}\n"
    )
    return path


@pytest.fixture
def trials(tmp_path, monkeypatch):
    program = tmp_path / "train.py"
    program.write_text(_PROGRAM)
    monkeypatch.setattr(running, "_program", lambda: program)
    text = 'product(fixed("train.total_steps", 4), sweep("seed", [1, 2, 3]))'
    return load_sweep(_file(tmp_path, text)).trials


def test_overrides_are_put_together():
    ab = sweep("a", [1, 2])
    assert product(ab, fixed("b", 3)) == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]
    assert zipit(ab, sweep("b", "xy")) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert chainit(ab, fixed("b", 3)) == [{"a": 1}, {"a": 2}, {"b": 3}]
    with pytest.raises(ValueError, match="sets* a"):
        product(ab, ab)
    with pytest.raises(ValueError, match="one length"):
        zipit(ab, fixed("b", 1))


@pytest.mark.parametrize("path", _SWEEPS, ids=lambda path: path.stem)
def test_shipped_sweeps_are_valid(path):
    common = ["--config.encoder.path=FILE"] if path.stem == "dinov2" else []
    made = load_sweep(path, common)
    assert len({trial.name for trial in made.trials}) == len(made.trials) >= 6
    for first, second in getattr(made.module, "COMPARISONS", ()):
        arms = [{k: v for k, v in t.overrides.items() if k != "seed"} for t in made.trials]
        assert first in arms and second in arms


def test_trials_have_names_of_their_own_and_checked_configs(tmp_path):
    text = (
        'zipit(sweep("model.depth", [2, 3]), sweep("guidance.interval", [(0.0, 1.0), (0.2, 0.8)]))'
    )
    made = load_sweep(_file(tmp_path, text), ["--config.train.batch_size=2"])
    assert (
        made.trials[0].name
        == "model.depth=2,guidance.interval=_0.0,1.0,_-" + (made.trials[0].name[-8:])
    )
    assert made.trials[1].config.guidance.interval == (0.2, 0.8)
    assert made.trials[1].config.train.batch_size == 2


@pytest.mark.parametrize(
    "text, sentence",
    [
        ('sweep("modle.depth", [1])', "modle"),
        ('sweep("seed", [1, 1])', "seed=1 twice"),
        ("[]", "no trials"),
        ('zipit(sweep("seed", [1]), sweep("a", [1, 2]))', "one length"),
    ],
)
def test_wrong_sweeps_are_refused(tmp_path, text, sentence):
    with pytest.raises(UserError, match=sentence):
        load_sweep(_file(tmp_path, text))
    with pytest.raises(UserError, match="no sweep file"):
        load_sweep(tmp_path / "absent.py")


def test_finished_trials_are_not_run_again(trials, tmp_path):
    work, said = tmp_path / "work", []
    assert run_trials(trials, work, said.append) == []
    assert all(finished(trial, work) for trial in trials)
    logs = [(work / f"{trial.name}.log").read_text() for trial in trials]
    assert logs == ["started\n"] * 3
    assert run_trials(trials, work, said.append) == []
    assert [(work / f"{trial.name}.log").read_text() for trial in trials] == logs
    assert sum("finished before" in line for line in said) == 3


def test_a_failing_trial_costs_itself_alone_and_tells_why(tmp_path, monkeypatch):
    program = tmp_path / "train.py"
    program.write_text(_PROGRAM)
    monkeypatch.setattr(running, "_program", lambda: program)
    text = 'product(fixed("train.total_steps", 1), sweep("seed", [13, 2]))'
    listed = load_sweep(_file(tmp_path, text)).trials
    said = []
    assert run_trials(listed, tmp_path / "work", said.append) == [listed[0].name]
    assert finished(listed[1], tmp_path / "work")
    assert any("exit code 1" in line and "bad luck" in line for line in said)


def test_a_killed_sweep_goes_on_without_repeating(trials, tmp_path):
    work = tmp_path / "work"
    script = (
        "from vosr_jax.sweeps import running, trials; from pathlib import Path\n"
        f"running._program = lambda: Path({str(running._program())!r})\n"
        f"made = trials.load_sweep({str(tmp_path / 'configs/sweeps/own.py')!r}).trials\n"
        f"running.run_trials(made, Path({str(work)!r}))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=_ROOT, stdout=subprocess.DEVNULL)
    second = work / trials[1].name / "checkpoints"
    deadline = time.monotonic() + 60
    while not second.is_dir() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    said = []
    assert run_trials(trials, work, said.append) == []
    # The killed sweep's trial went on by itself; it was waited for, not begun a second time.
    logs = [(work / f"{trial.name}.log").read_text() for trial in trials]
    assert logs == ["started\n"] * 3
    assert "finished before" in said[0] and any("another process" in line for line in said)


def test_a_job_array_takes_one_trial_each(trials, monkeypatch):
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    monkeypatch.delenv("JOB_COMPLETION_INDEX", raising=False)
    with pytest.raises(UserError, match="job array"):
        array_index()
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    assert chosen(trials, array_index()) == [trials[2]]
    with pytest.raises(UserError, match="0 to 2"):
        chosen(trials, 3)


def _figures(points, pictures=4):
    """Rows of a curve of (scale, PSNR, LPIPS), pictures spread evenly around it."""
    return [
        {
            "scale": scale,
            "name": f"p{n}-{draw}",
            "photograph": f"p{n}",
            "psnr": decibels + n - (pictures - 1) / 2,
            "lpips": perceived + 0.01 * n,
        }
        for scale, decibels, perceived in points
        for n in range(pictures)
        for draw in range(2)
    ]


def test_figures_are_compared_at_equal_psnr():
    figures = _figures([(0.0, 22.0, 0.5), (1.0, 21.0, 0.4), (2.0, 19.0, 0.3)])
    perceived, scale, reached = at_psnr(figures, 20.0)
    assert scale == pytest.approx(1.5) and reached == pytest.approx(20.0)
    assert perceived["p1-0"] == pytest.approx(0.36)
    _, scale, reached = at_psnr(figures, 30.0)
    assert (scale, reached) == (0.0, pytest.approx(22.0))


def test_tables_and_intervals_are_paired_over_seeds(tmp_path):
    text = 'product(sweep("guidance.kind", ["none", "restoration"]), sweep("seed", [0, 1]))'
    made = load_sweep(_file(tmp_path, text))
    none, guided = (("guidance.kind", "none"),), (("guidance.kind", "restoration"),)
    made.module.REFERENCE = dict(none)
    made.module.COMPARISONS = [(dict(guided), dict(none))]
    arms = {
        none: {seed: _figures([(1.0, 20.0, 0.5 + seed)]) for seed in (0, 1)},
        guided: {
            seed: _figures([(0.5, 20.5, 0.5 + seed), (1.0, 19.5, 0.4 + seed)]) for seed in (0, 1)
        },
    }
    table = table_of(made, arms)
    # However far the seeds lie apart, the difference within each is the same.
    assert "-0.1000 [-0.1000, -0.1000]" in table and "-0.0500 [-0.0500, -0.0500]" in table
    wide = interval(
        {0: {"a-0": 0.0, "b-0": 1.0}, 1: {"a-0": 0.0, "b-0": 1.0}},
        {seed: [{"name": f"{p}-0", "photograph": p} for p in "ab"] for seed in (0, 1)},
    )
    assert (wide.low, wide.mean, wide.high) == (0.0, 0.5, 1.0)
