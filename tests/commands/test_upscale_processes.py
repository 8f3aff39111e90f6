"""vosr upscale as a process of its own: killed and run again, and on several devices."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"p{number}.png")
    return folder


def _start(kind, photos, out, **environment):
    program = [sys.executable, "-m", "tests.commands.small_vosr", kind]
    return subprocess.Popen(
        [*program, "upscale", str(photos), "-o", str(out), "-u", "2"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(process) -> str:
    shown, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return shown


def _pictures(out):
    return {path.name: np.asarray(Image.open(path)) for path in sorted(out.glob("*.png"))}


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stopped(photos, tmp_path):
    out = tmp_path / "out"
    process = _start("slow", photos, out)
    deadline = time.monotonic() + 300
    while not list(out.glob("p1.png")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = _pictures(out)
    written = {name: (out / name).stat().st_mtime_ns for name in before}
    assert 2 <= len(before) < 6
    recorded = json.loads((out / "manifest.json").read_text())["pictures"]
    done = [name for name, entry in recorded.items() if entry["status"] == "done"]
    assert len(before) - 1 <= len(done) <= len(before) and set(before) <= set(recorded)

    shown = _finish(_start("quick", photos, out))
    assert f"{len(before)} finished before" in shown and f"{6 - len(before)} restored" in shown
    assert {name: (out / name).stat().st_mtime_ns for name in before} == written
    assert not list(out.glob(".*"))
    pictures = json.loads((out / "manifest.json").read_text())["pictures"]
    assert sorted(pictures) == [f"p{number}.png" for number in range(6)]

    _finish(_start("quick", photos, tmp_path / "whole"))
    for name, pixels in _pictures(tmp_path / "whole").items():
        np.testing.assert_array_equal(_pictures(out)[name], pixels)


@pytest.mark.slow
def test_two_devices_share_a_folder_and_give_the_same_pictures(photos, tmp_path):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    shown = _finish(_start("slow", photos, tmp_path / "two", **flags))
    assert "6 restored" in shown
    _finish(_start("quick", photos, tmp_path / "one"))
    manifest = json.loads((tmp_path / "two" / "manifest.json").read_text())
    assert len(manifest["runs"][0]["devices"]) == 2
    makers = {entry["device"] for entry in manifest["pictures"].values()}
    assert makers == {0, 1}
    for name, pixels in _pictures(tmp_path / "one").items():
        np.testing.assert_array_equal(_pictures(tmp_path / "two")[name], pixels)
