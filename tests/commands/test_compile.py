"""`vosr compile`: afterwards pictures of other sizes compile nothing; else a line says that."""

import os
import subprocess
import sys

import pytest

from vosr_jax import cli
from vosr_jax.restoration.denoising import rows_of
from vosr_jax.restoration.restore import images_for_programs
from vosr_jax.restoration.tiled.latent import plan_tiles

_PICTURES = "assets/demo/coffee.png", "assets/demo/dragonfly.jpg"


def _vosr(cache, *arguments: str) -> str:
    environment = os.environ | {"VOSR_CACHE": str(cache), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "vosr_jax.cli", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_what_was_compiled_ahead_is_not_compiled_again(tmp_path):
    small = "--tile-size", "128"
    said = _vosr(tmp_path, "compile", *small)
    assert "nano-onestep is compiled for" in said and str(tmp_path) in said
    first = _vosr(tmp_path, "upscale", *_PICTURES, "-u", "1", "-o", str(tmp_path / "a"), *small)
    assert "compiling" not in first
    other = "--tile-size", "96"
    second = _vosr(tmp_path, "upscale", *_PICTURES, "-u", "1", "-o", str(tmp_path / "b"), *other)
    assert second.count("compiling for this model and device, once; kept in") == 1


def test_each_picture_is_of_a_program_of_its_own():
    sizes = [image.size for image in images_for_programs(512, 1)]
    assert sizes == [(256, 256), (384, 384), (576, 576)]
    strips = [image.size for image in images_for_programs(512, 8)[3:]]
    assert strips == [(960, 512), (1856, 512), (3648, 512)]
    for (width, height), tiles in zip(strips, (2, 4, 8), strict=True):
        grid = plan_tiles((height // 8, width // 8), 512, 64, 8, 2)
        assert grid is not None and len(grid.starts) == tiles == rows_of(tiles, 8)


@pytest.mark.parametrize("flags", [["--device", "99"], ["--tile-size", "0"]])
def test_what_cannot_be_is_refused(flags, capsys):
    assert cli.main(["compile", *flags]) == 1
    assert flags[0] in capsys.readouterr().err
