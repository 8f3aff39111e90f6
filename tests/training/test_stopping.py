"""SIGTERM and Ctrl-C save and leave; a second Ctrl-C leaves at once and says what is kept."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.tiny import tiny_config
from vosr_jax.training import loop
from vosr_jax.training.checkpoints import Checkpoints
from vosr_jax.training.processes import StopRequest
from vosr_jax.weights.saved_run import load_ema

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT], ids=["sigterm", "ctrl-c"])
def test_a_signal_saves_the_step_it_reached(tmp_path: Path, monkeypatch, capsys, sent):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    plain = loop.Watchdog.see

    def see(self, step: int) -> None:
        if step == 2:
            signal.raise_signal(sent)
        plain(self, step)

    monkeypatch.setattr(loop.Watchdog, "see", see)
    config = tiny_config(train={"total_steps": 500, "checkpoint_every": 0})
    run = loop.train(config, tmp_path / "run")
    assert 2 <= run.step < 500
    assert load_ema(tmp_path / "run")[1] == run.step
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == run.step
    told = capsys.readouterr().err
    assert f"stopped at step {run.step} and saved; run the same command to go on" in told
    assert ("once more leaves at once, and nothing is saved yet" in told) == (sent == signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


# A call into C that lets no Python handler run, as a compilation does.
BUSY = """
import hashlib
from vosr_jax.training.processes import StopRequest

stop = StopRequest(lambda: {newest})
print("busy", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


@pytest.mark.parametrize(
    ("newest", "sentence"),
    [(40, "the same command goes on from step 40"), (None, "nothing is saved yet")],
)
def test_a_second_interrupt_leaves_at_once_wherever_the_program_is(newest, sentence):
    with subprocess.Popen(
        [sys.executable, "-c", BUSY.format(newest=newest)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "busy\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().startswith("interrupted: the run saves after this step")
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=120)
    assert process.returncode == 130
    assert told.startswith(f"left at once; {sentence}")


def test_a_stop_that_nobody_asked_for_is_none():
    stop = StopRequest(lambda: None)
    assert not stop.at(1) and not stop.seen
    stop.restore()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_run_that_cannot_close_its_checkpoints_gives_the_signals_back(tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT)

    def fail(*_) -> None:
        raise OSError("no room")

    monkeypatch.setattr(Checkpoints, "close", fail)
    monkeypatch.setattr(loop, "start_run", fail)
    with pytest.raises(OSError, match="no room"):
        loop.train(tiny_config(), tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is before
