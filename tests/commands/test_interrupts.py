"""Ctrl-C ends the command with code 130, whenever it comes."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from vosr_jax.commands import interrupts


def _press_after(seconds: float, arguments, cwd):
    process = subprocess.Popen(
        [sys.executable, "-m", "vosr_jax.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


@pytest.mark.slow
def test_it_ends_a_command_in_its_first_seconds(tmp_path):
    Image.fromarray(np.zeros((1500, 1500, 3), np.uint8)).save(tmp_path / "a.png")
    codes = []
    for number in range(13):
        code, errors = _press_after(0.4 + 0.35 * number, ["upscale", "a.png", "-o", "o"], tmp_path)
        # Before Python runs a line of ours, the signal itself ends it; when, is the machine's.
        begun = "vosr_jax" in errors or code != -signal.SIGINT
        assert code == (130 if begun else -signal.SIGINT), (number, code, errors)
        assert not (tmp_path / "o" / "a.png").exists()
        codes.append(code)
    assert 130 in codes


_SWALLOWS = """
import os, signal, sys, time
from vosr_jax.commands import interrupts
def press():
    try:
        os.kill(os.getpid(), signal.SIGINT); time.sleep(1)
    except BaseException:
        pass
with interrupts.watched():
    {then}
    press()
    {after}
    print("went on")
    sys.exit(130 if interrupts.was_interrupted() else 0)
"""


@pytest.mark.parametrize(
    "then, after, goes_on",
    [("pass", "pass", False), ("interrupts.running()", "pass", True)],
)
def test_a_library_that_swallows_it_changes_nothing(then, after, goes_on):
    code = _SWALLOWS.format(then=then, after=after)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 130
    assert ("went on" in ran.stdout) == goes_on
    assert goes_on or "interrupted from the keyboard" in ran.stderr


def test_a_swallowed_one_is_raised_again_at_the_next_picture():
    with interrupts.watched():
        interrupts.running()
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except KeyboardInterrupt:
            pass
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        assert interrupts.was_interrupted()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
