"""vosr upscale into a folder that holds results: the same is skipped, another is an error."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.restoration.models import tiny_model
from vosr_jax import cli
from vosr_jax.restoration.upscaler import Upscaler


@pytest.fixture(scope="module")
def tiny() -> Upscaler:
    return Upscaler(tiny_model())


@pytest.fixture
def folder(tmp_path, monkeypatch, tiny):
    """A folder with a.png and b.png, the working directory; and the models tiny and other."""
    monkeypatch.chdir(tmp_path)
    other = tiny_model()
    bias = other.denoiser.final.linear.bias
    bias[...] = bias[...] + 0.01
    models = {"tiny": tiny, "other": Upscaler(dataclasses.replace(other, name="other"))}
    monkeypatch.setattr(
        Upscaler, "from_pretrained", lambda name, *_, **__: models.get(name, models["tiny"])
    )
    for number, name in enumerate("ab"):
        _save(Path(f"{name}.png"), number)
    return tmp_path


def _save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def _upscale(*arguments, scale=2) -> int:
    return cli.main(["upscale", *map(str, arguments), "-u", str(scale)])


def _files(folder) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and path.suffix != ".json"
    }


def test_the_same_is_skipped(folder, capsys):
    assert _upscale("a.png", "b.png", "-o", "out") == 0
    before = _files("out")
    capsys.readouterr()
    assert _upscale("a.png", "b.png", "-o", "out") == 0
    assert "2 finished before and skipped" in capsys.readouterr().out
    assert _files("out") == before
    shutil.copy("a.png", "moved.png")
    Path("elsewhere").mkdir()
    shutil.move("moved.png", "elsewhere/a.png")
    assert _upscale("elsewhere/a.png", "-o", "out") == 0


def test_another_picture_of_the_same_name_is_an_error_that_names_both(folder, capsys):
    assert _upscale("a.png", "-o", "out") == 0
    before = _files("out")
    _save(Path("other/a.png"), 7)
    assert _upscale("other/a.png", "b.png", "-o", "out") == 1
    said = capsys.readouterr().err
    assert "out/a.png was made from a.png, not from other/a.png" in said
    assert "--overwrite" in said and "another folder" in said
    after = _files("out")
    assert after.pop("b.png") and after == before
    assert _upscale("other/a.png", "-o", "out", "--overwrite") == 0
    assert _files("out")["a.png"] != before["a.png"]


def test_an_edited_source_is_an_error(folder, capsys):
    assert _upscale("a.png", "-o", "out") == 0
    _save(Path("a.png"), 9)
    assert _upscale("a.png", "-o", "out") == 1
    assert "out/a.png was made from a.png as it was before a change" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["-u", "3"], "scale 2, not 3"),
        (["-m", "other"], "model tiny, not other"),
        (["--seed", "4"], "seed 0, not 4"),
        (["--steps", "1"], "steps 2, not 1"),
        (["--strip-metadata"], "strip_metadata False, not True"),
    ],
)
def test_other_settings_stop_the_run_before_it_mixes_results(folder, capsys, arguments, said):
    assert _upscale("a.png", "-o", "out") == 0
    before = _files("out")
    assert cli.main(["upscale", "a.png", "b.png", "-o", "out", "-u", "2", *arguments]) == 1
    shown = capsys.readouterr().err
    assert f"out/a.png was made from a.png with {said}" in shown and "--overwrite" in shown
    assert _files("out") == before


def test_a_comparison_that_is_asked_for_later_is_made_from_what_is_there(folder, capsys):
    assert _upscale("a.png", "b.png", "-o", "out", "--compare") == 0
    at_once = _files("out")
    assert _upscale("a.png", "b.png", "-o", "later") == 0
    before = _files("later")
    assert _upscale("a.png", "b.png", "-o", "later", "--compare") == 0
    assert "2 compared" in capsys.readouterr().out
    assert _files("later") == at_once and _files("later").items() >= before.items()
    capsys.readouterr()
    assert _upscale("a.png", "b.png", "-o", "later", "--compare") == 0
    assert "compared" not in capsys.readouterr().out


def test_a_result_whose_record_was_not_finished_counts_if_it_is_whole(folder, capsys):
    assert _upscale("a.png", "b.png", "-o", "out") == 0
    manifest = json.loads(Path("out/manifest.json").read_text())
    for entry in manifest["pictures"].values():
        entry["status"] = "begun"
    Path("out/manifest.json").write_text(json.dumps(manifest))
    before = _files("out")
    Path("out/b.png").write_bytes(b"an older result, which this run was to replace")
    capsys.readouterr()
    assert _upscale("a.png", "b.png", "-o", "out") == 0
    assert "1 finished before" in capsys.readouterr().out
    assert _files("out") == before


def test_what_other_processes_made_is_known(folder, capsys):
    for index in (0, 1):
        shares = ["--process-index", index, "--process-count", 2]
        assert _upscale("a.png", "b.png", "-o", "out", *shares) == 0
    capsys.readouterr()
    assert _upscale("a.png", "b.png", "-o", "out") == 0
    assert "2 finished before" in capsys.readouterr().out


def test_results_may_lie_beside_their_sources_and_are_not_taken_for_some(folder, capsys):
    Image.open("a.png").save("c.jpg")
    for _ in range(2):
        assert _upscale(".", "-o", ".", "--compare") == 0
    expected = {f"{name}.png" for name in ("a", "a.png", "b", "b.png", "c")}
    expected |= {f"{name}-compare.png" for name in ("a.png", "b.png", "c")} | {"c.jpg"}
    assert set(_files(".")) == expected
    assert "3 finished before" in capsys.readouterr().out
    assert Image.open("a.png").size == (8, 8)
    assert _upscale(".", "-o", "elsewhere") == 0
    assert set(_files("elsewhere")) == {"a.png", "b.png", "c.png"}


def test_the_folder_of_results_may_lie_above_the_pictures(folder):
    _save(Path("deep/er/c.png"), 3)
    for _ in range(2):
        assert _upscale("deep", "-r", "-o", ".", "--suffix", "-x2") == 0
    assert set(_files(".")) == {"a.png", "b.png", "deep/er/c.png", "er/c-x2.png"}


def test_one_picture_goes_into_one_file(folder):
    assert _upscale("a.png", "-o", "new/result.jpg") == 0
    assert Image.open("new/result.jpg").size == (16, 16)
    assert Image.open("new/result.jpg").format == "JPEG"
    assert Path("new/manifest.json").is_file()
    assert _upscale("a.png", "-o", "new/result.jpg") == 0
    assert _upscale("b.png", "-o", "new/result.jpg") == 1
