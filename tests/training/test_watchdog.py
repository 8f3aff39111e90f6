"""The watchdog ends what hangs and leaves alone what only takes long."""

import subprocess
import sys

from tests.training.tiny import tiny_config
from vosr_jax.training import loop, preview, watchdog
from vosr_jax.training.checkpoints import Checkpoints


def run(code: str) -> subprocess.CompletedProcess:
    program = "import time\nfrom vosr_jax.training.watchdog import Watchdog\n" + code
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_phase_may_take_longer_than_a_step_and_a_step_after_it_may_not():
    done = run(
        "with Watchdog(0.5) as dog:\n"
        "    dog.begin('the first step')\n"
        "    time.sleep(1.2)\n"
        "    dog.see(1)\n"
        "    with dog.phase('the preview'):\n"
        "        time.sleep(1.2)\n"
        "    print('both lived', flush=True)\n"
        "    time.sleep(20)\n"
    )
    assert done.returncode == 1 and "both lived" in done.stdout
    assert "no step finished for 0 s (train.hang_seconds)" in done.stderr


def test_a_phase_that_hangs_ends_too_and_is_named():
    done = run(
        "def stuck(): time.sleep(30)\n"
        "with Watchdog(0.2, phase_seconds=0.8) as dog:\n"
        "    with dog.phase('saving'):\n"
        "        stuck()\n"
    )
    assert done.returncode == 1 and "in stuck" in done.stderr
    assert "saving did not end for 1 s (train.hang_seconds, but an hour at least)" in done.stderr


def test_a_phase_has_an_hour_or_what_a_step_has_if_that_is_longer():
    assert watchdog.PHASE_SECONDS == 3600
    assert watchdog.Watchdog(0)._longest == 3600
    assert watchdog.Watchdog(0, phase_seconds=10)._longest == 10


def test_the_loop_says_of_a_preview_and_a_save_that_they_are_no_steps(tmp_path, monkeypatch):
    dogs, phases = [], []

    class Noted(watchdog.Watchdog):
        def __init__(self, seconds):
            super().__init__(seconds)
            dogs.append(self)

    def noting(name, then):
        def call(*arguments, **options):
            phases.append((name, dogs[-1]._state[1]))
            return then(*arguments, **options)

        return call

    monkeypatch.setattr(loop, "Watchdog", Noted)
    judged = noting("evaluate", lambda *_: {"eval_psnr": 20.0})
    monkeypatch.setattr(preview.Preview, "evaluate", judged)
    monkeypatch.setattr(Checkpoints, "save", noting("save", Checkpoints.save))
    monkeypatch.setattr(Noted, "see", noting("step", Noted.see))
    config = tiny_config(
        train={"hang_seconds": 3600, "eval_every": 1, "total_steps": 2, "checkpoint_every": 1}
    )
    loop.train(config, tmp_path / "run")
    assert phases == [
        ("step", "the first step with its compilation"),
        ("evaluate", "the preview"),
        ("save", "saving"),
        ("step", None),
        ("evaluate", "the preview"),
        ("save", "saving"),
        ("save", "the last save"),
    ]
