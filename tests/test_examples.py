"""The examples run as they are printed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]


def test_the_parts_restore_a_photo_and_take_a_gradient(tmp_path: Path):
    with Image.open(ROOT / "assets" / "demo" / "coffee.png") as photo:
        small = photo.convert("RGB").resize((32, 24))
    small.save(tmp_path / "small.png")
    command = [sys.executable, "examples/parts.py", tmp_path / "small.png", tmp_path / "result.png"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("loss ") and "nan" not in ran.stdout
    with Image.open(tmp_path / "result.png") as result:
        assert result.size == (128, 96)
        reduced = np.asarray(result.resize(small.size, Image.Resampling.BOX), float)
    assert np.abs(reduced - np.asarray(small, float)).mean() < 6
