"""Damaged files: a photo of the stated size, or one sentence; soon and in little memory."""

import json
import os
import subprocess
import sys

import pytest

_PROGRAM = """
import json, sys, time
from pathlib import Path
from tests.files.damaging import damaged, photos
from vosr_jax.errors import UserError
from vosr_jax.files.photo_reading import photo_size, read_photo
from vosr_jax.files.photo_writing import write_photo

folder, count = Path(sys.argv[1]), int(sys.argv[2])
read, wrong, slowest = 0, [], 0.0
for name, data in damaged(photos(folder), count):
    started = time.monotonic()
    try:
        photo = read_photo(data, name=name)
        read += 1
        if sorted(photo.size) != sorted(photo_size(data)):
            wrong.append(f"{name}: {photo.size}")
        if photo.pixels.shape[0] * photo.pixels.shape[1] < 1e6:
            for ending in ("png", "jpg", "tif"):
                if photo.alpha is not None and ending == "jpg":
                    continue
                write_photo(photo, folder / f"result.{ending}")
                again = read_photo(folder / f"result.{ending}")
                if again.size != photo.size:
                    wrong.append(f"{name}: {ending} {again.size}")
    except UserError as error:
        said = str(error)
        if "\\n" in said or name not in said and "result" not in said:
            wrong.append(f"{name}: {said}")
    except BaseException as error:
        wrong.append(f"{name}: {type(error).__name__}: {error}")
    slowest = max(slowest, time.monotonic() - started)
# Of this program alone: what getrusage tells begins with the parent's.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0]) / 1024
print(json.dumps({"read": read, "wrong": wrong, "slowest": slowest, "peak": peak}))
"""


def _check(folder, count: int) -> dict:
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(folder), str(count)],
        capture_output=True,
        text=True,
        timeout=900,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads(ran.stdout)
    assert not found["wrong"], found["wrong"][:10]
    assert found["slowest"] < 20 and found["peak"] < 1000
    return found


def test_fifty_damaged_files(tmp_path):
    assert 0 < _check(tmp_path, 50)["read"] < 50


@pytest.mark.slow
def test_five_hundred_damaged_files(tmp_path):
    found = _check(tmp_path, 500)
    assert 50 < found["read"] < 450
