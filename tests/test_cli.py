"""The vosr command: results, failures by name, exit codes, and a quick start."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.restoration.models import tiny_model
from vosr_jax import cli
from vosr_jax.restoration.inputs import picture_seed
from vosr_jax.restoration.upscaler import Upscaler


@pytest.fixture(scope="module")
def tiny() -> Upscaler:
    return Upscaler(tiny_model())


@pytest.fixture
def photos(tmp_path, monkeypatch, tiny):
    monkeypatch.setattr(Upscaler, "from_pretrained", lambda name, *_, **__: tiny)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 10, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"p{number}.png")
    return folder


def _names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_folder_is_restored_with_the_settings_given(photos, tmp_path, tiny, capsys):
    out = tmp_path / "out"
    options = ["-u", "2", "--steps", "1", "--guidance-scale", "0.3", "--seed", "5", "--compare"]
    assert cli.main(["upscale", str(photos), "-o", str(out), *options, "--suffix", "_x2"]) == 0
    results = ["p0_x2-compare.png", "p0_x2.png", "p1_x2-compare.png", "p1_x2.png"]
    assert _names(out) == ["manifest.json", *results]
    seed = picture_seed(5, (photos / "p1.png").read_bytes())
    expected = tiny(photos / "p1.png", scale=2, steps=1, guidance_scale=0.3, seed=seed)
    np.testing.assert_array_equal(Image.open(out / "p1_x2.png"), expected)
    assert Image.open(out / "p1_x2-compare.png").size == (60, 32)
    assert "2 restored" in capsys.readouterr().out


def test_a_broken_picture_is_named_and_does_not_stop_the_rest(photos, tmp_path, capsys):
    (photos / "a.png").write_text("no picture")
    out = tmp_path / "out"
    assert cli.main(["upscale", str(photos), "-o", str(out)]) == 1
    assert _names(out) == ["manifest.json", "p0.png", "p1.png"]
    shown = capsys.readouterr()
    assert "a.png" in shown.err and "1 failed" in shown.out


def test_a_file_that_no_run_made_is_kept_unless_told_otherwise(photos, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "p0.png").write_bytes(b"mine")
    assert cli.main(["upscale", str(photos), "-o", str(out)]) == 1
    assert (out / "p0.png").read_bytes() == b"mine" and Image.open(out / "p1.png").size == (40, 32)
    assert "p0.png is there and no manifest says" in capsys.readouterr().err
    assert cli.main(["upscale", str(photos), "-o", str(out), "--overwrite"]) == 0
    assert Image.open(out / "p0.png").size == (40, 32)


def test_transparency_is_not_lost_in_a_jpeg(photos, tmp_path, capsys):
    clear = Image.open(photos / "p0.png")
    clear.putalpha(9)
    clear.save(photos / "p0.png")
    out = tmp_path / "out"
    assert cli.main(["upscale", str(photos), "-o", str(out), "--format", "jpg"]) == 1
    assert _names(out) == ["manifest.json", "p1.jpg"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["empty", "-o", "out"], "holds no pictures"),
        (["photos", "-o", "photos/p0.png"], "one file for 2 pictures"),
        (["photos", "-o", "photos/p0.png/out"], "cannot make the folder"),
        (["photos/p0.png", "-o", "out.gif"], "cannot write '.gif' files"),
        (["photos/p0.png", "-o", "out.png", "--suffix", "x"], "leave --suffix out"),
        (["photos/p0.png", "-o", "photos/p0.png"], "replaced by its result"),
        (["", "-o", "out"], "an empty path"),
    ],
)
def test_a_call_that_cannot_work_says_why(photos, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert cli.main(["upscale", *arguments]) == 1
    assert said in capsys.readouterr().err


def test_an_unknown_model_is_refused_with_what_is_known(tmp_path, capsys, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    arguments = ["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "out")]
    assert cli.main([*arguments, "-m", "nanoo"]) == 1
    assert "nano" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert cli.main([*arguments, "-m", "0.5b"]) == 1
    assert "vosr_jax[hub]" in capsys.readouterr().err


def test_help_imports_neither_jax_nor_pictures():
    code = (
        "import sys; from vosr_jax import cli\n"
        "try: cli.main(['upscale', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'jax', 'PIL', 'numpy', 'cv2'} & set(sys.modules), 'slow imports'"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "--guidance-scale" in shown.stdout
