"""Printing never fails a picture: odd names, closed pipes, full disks."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vosr_jax.commands.output import lenient


def _photos(folder, names) -> None:
    folder.mkdir()
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3)).astype(np.uint8)
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            Image.fromarray(pixels).save(file, "PNG")


def _run(command: str, tmp_path, **environment):
    program = f"{sys.executable} -m tests.commands.small_vosr quick upscale {tmp_path}/in -u 2"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.format(vosr=f"{program} -o {tmp_path}/out")],
        capture_output=True,
        env=os.environ | environment,
        timeout=300,
    )


def test_a_closed_pipe_and_a_name_that_is_no_utf_8_fail_no_picture(tmp_path):
    _photos(tmp_path / "in", [b"a.png", b"b\xff\xe9.png", b"c.png", b"d.png"])
    ran = _run("{vosr} | head -1", tmp_path, PYTHONIOENCODING="utf-8")
    assert ran.returncode == 0 and ran.stderr == b"", ran.stderr
    assert ran.stdout.count(b"\n") == 1
    results = sorted(os.listdir(os.fsencode(tmp_path / "out")))
    assert results == [b"a.png", b"b\xff\xe9.png", b"c.png", b"d.png", b"manifest.json"]
    again = _run("{vosr}", tmp_path)
    assert again.returncode == 0 and b"4 finished before" in again.stdout


class _Closed:
    encoding = "ascii"

    def write(self, text=""):
        raise BrokenPipeError

    flush = write

    def fileno(self):
        raise OSError


def test_writing_never_raises_and_streams_are_put_back(monkeypatch):
    for stream in (_Closed(), open("/dev/full", "w")):
        monkeypatch.setattr(sys, "stdout", stream)
        with lenient():
            print("x" * 100_000, flush=True)
        assert sys.stdout is stream


def test_what_an_encoding_has_not_is_escaped(tmp_path, monkeypatch):
    with open(tmp_path / "log", "w", encoding="ascii") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with lenient():
            print("bj\u00f6rn \udcff")
    assert (tmp_path / "log").read_text() == "bj\\xf6rn \\udcff\n"


@pytest.mark.parametrize("arguments", [["--help"], ["info", "nano"]])
def test_other_commands_bear_a_closed_pipe(arguments):
    command = f"{sys.executable} -m vosr_jax.cli {' '.join(arguments)} | head -1"
    ran = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, timeout=300
    )
    assert ran.stderr == b"" and ran.stdout.count(b"\n") == 1
