"""vosr upscale over many pictures: names, seeds, presets, manifest, failures and resuming."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.restoration.models import tiny_model
from vosr_jax import cli
from vosr_jax.files import atomic, whole_file
from vosr_jax.restoration.upscaler import Upscaler


@pytest.fixture(scope="module")
def tiny() -> Upscaler:
    return Upscaler(tiny_model())


@pytest.fixture
def photos(tmp_path, monkeypatch, tiny):
    monkeypatch.setattr(Upscaler, "from_pretrained", lambda name, *_, **__: tiny)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        _save(folder / f"p{number}.png", number)
    return folder


def _save(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def _upscale(*arguments) -> int:
    return cli.main(["upscale", *map(str, arguments), "-u", "2"])


def _manifest(out="out", name="manifest.json"):
    with open(f"{out}/{name}") as file:
        return json.load(file)


def _results(out="out"):
    from pathlib import Path

    files = Path(out).rglob("*")
    return sorted(f.relative_to(out).as_posix() for f in files if f.suffix != ".json")


def _pixels(path):
    return np.asarray(Image.open(path))


def test_the_manifest_says_what_made_each_picture(photos, tiny):
    assert _upscale(photos, "-o", "out", "--seed", 7, "--preset", "creative") == 0
    manifest = _manifest()
    run, entry = manifest["runs"][0], manifest["pictures"]["p1.png"]
    assert len(run["model"]["sha256"]) == 64 and run["seed"] == 7 and run["versions"]["jax"]
    assert run["settings"]["guidance_scale"] == tiny.preset("creative")["guidance_scale"]
    assert entry["status"] == "done" and entry["seconds"] > 0 and entry["size"] == [16, 16]
    again = tiny(photos / "p1.png", scale=2, seed=entry["seed"], **tiny.preset("creative"))
    np.testing.assert_array_equal(_pixels("out/p1.png"), again)
    enlarged = Image.open(photos / "p1.png").resize((16, 16), Image.Resampling.BICUBIC)
    moved = np.abs(_pixels("out/p1.png").mean((0, 1)) - np.asarray(enlarged).mean((0, 1))).mean()
    assert entry["colour_shift"] == pytest.approx(moved, abs=2e-3)


def test_a_shipped_model_says_once_that_it_is_small(photos, capsys):
    assert _upscale(photos, "-o", "out", "--strength", 0.5) == 0
    assert capsys.readouterr().out.count("nano-onestep is the small model") == 1
    assert _manifest()["runs"][0]["settings"]["strength"] == 0.5
    assert _upscale(photos, "-o", "other", "-m", "somebody/else") == 0
    assert "small model" not in capsys.readouterr().out


def test_what_is_given_beside_a_preset_wins(photos):
    explicit = ("--guidance-scale", 0.25, "--schedule", "cosine", "--guidance-interval", 0.2, 0.9)
    assert _upscale(photos, "-o", "out", "--preset", "faithful", *explicit) == 0
    settings = _manifest()["runs"][0]["settings"]
    assert settings["guidance_scale"] == 0.25 and settings["schedule"] == "cosine"
    assert settings["guidance_interval"] == [0.2, 0.9]


def test_a_picture_is_the_same_alone_renamed_and_among_others(photos):
    assert _upscale(photos, "-o", "all", "--seed", 3) == 0
    _save(photos.parent / "elsewhere" / "other-name.png", 1)
    assert _upscale("elsewhere/other-name.png", "-o", "alone", "--seed", 3) == 0
    np.testing.assert_array_equal(_pixels("all/p1.png"), _pixels("alone/other-name.png"))
    entries = _manifest("all")["pictures"]
    assert len({entry["seed"] for entry in entries.values()}) == 3


def test_patterns_and_subfolders_are_searched(photos):
    _save(photos / "deep" / "er" / "d.png", 9)
    _save(photos / ".hidden" / "h.png", 9)
    assert _upscale("photos/p[01].png", "-o", "some") == 0
    assert _results("some") == ["p0.png", "p1.png"]
    assert _upscale("photos", "-o", "photos/out", "--recursive") == 0
    expected = ["deep", "deep/er", "deep/er/d.png", "p0.png", "p1.png", "p2.png"]
    assert _results("photos/out") == expected
    assert _upscale("photos", "-o", "photos/out", "--recursive") == 0
    assert _results("photos/out") == expected


def test_a_pattern_that_fits_nothing_is_named(photos, capsys):
    assert _upscale("photos/*.gif", "-o", "out") == 1
    assert "photos/*.gif" in capsys.readouterr().err


def test_running_again_adds_to_the_manifest(photos, capsys):
    (photos / "p1.png").rename("p1.png")
    (photos / "broken.png").write_text("text")
    assert _upscale(photos, "-o", "out") == 1
    entry = _manifest()["pictures"]["broken.png"]
    assert entry["status"] == "failed" and "broken.png" in entry["error"]
    (photos / "broken.png").unlink()
    (photos.parent / "p1.png").rename(photos / "p1.png")
    capsys.readouterr()
    assert _upscale(photos, "-o", "out") == 0
    assert "2 finished before" in capsys.readouterr().out
    manifest = _manifest()
    assert [manifest["pictures"][f"p{i}.png"]["run"] for i in range(3)] == [0, 1, 0]


def test_processes_share_a_folder_without_gap_or_overlap(photos):
    assert _upscale(photos, "-o", "whole") == 0
    for index in (0, 1):
        shares = ("--process-index", index, "--process-count", 2)
        assert _upscale(photos, "-o", "out", *shares) == 0
    parts = [_manifest(name=f"manifest-00{i}-of-002.json")["pictures"] for i in (0, 1)]
    assert sorted(parts[0]) == ["p0.png", "p2.png"] and sorted(parts[1]) == ["p1.png"]
    for name in ("p0.png", "p1.png", "p2.png"):
        np.testing.assert_array_equal(_pixels(f"out/{name}"), _pixels(f"whole/{name}"))


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--process-index", 2, "--process-count", 2], "--process-index must be"),
        (["--process-index", 0], "give both"),
        (["--steps", 0], "steps must be"),
        (["--guidance-interval", 0.9, 0.1], "guidance_interval"),
        (["--tile-overlap", -1], "tile_overlap"),
    ],
)
def test_a_setting_that_cannot_be_used_stops_the_run_at_once(photos, capsys, arguments, said):
    assert _upscale(photos, "-o", "out", *arguments) == 1
    shown = capsys.readouterr().err
    assert said in shown and shown.count("error") == 1
    assert _results() == []


def test_pictures_that_cannot_be_restored_are_each_named(photos, capsys):
    (photos / "empty.png").write_bytes(b"")
    (photos / "text.png").write_text("no picture")
    (photos / "cut.png").write_bytes((photos / "p0.png").read_bytes()[:100])
    Image.new("1", (11000, 10000)).save(photos / "vast.png")
    first = Image.new("RGB", (8, 8))
    first.save(photos / "pages.tif", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])
    Image.new("RGB", (1, 1)).save(photos / "dot.png")
    assert _upscale(photos, "-o", "out") == 1
    shown = capsys.readouterr()
    for name in ("empty.png", "text.png", "cut.png", "vast.png", "pages.tif"):
        lines = [line for line in shown.err.splitlines() if name in line]
        assert len(lines) == 1 and lines[0].startswith("failed: ")
    assert "--max-megapixels" in shown.err and "5 failed" in shown.out
    assert _results() == ["dot.png", "p0.png", "p1.png", "p2.png"]
    assert Image.open("out/dot.png").size == (2, 2)


def test_a_full_disk_is_named_and_leaves_nothing_half_written(photos, monkeypatch, capsys):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    assert _upscale(photos, "-o", "out") == 1
    shown = capsys.readouterr()
    assert shown.err.count("out/manifest.json cannot be written (No space left on device)") == 1
    assert "out/p1.png cannot be written (No space left on device)" in shown.err
    assert "3 failed" in shown.out
    assert list((photos.parent / "out").iterdir()) == []


def test_an_output_folder_that_cannot_be_written_is_named(photos, monkeypatch, capsys):
    monkeypatch.setattr(atomic.os, "access", lambda path, mode: False)
    assert _upscale(photos, "-o", "out") == 1
    assert "the folder out cannot be written" in capsys.readouterr().err


def test_what_a_killed_run_left_half_written_is_cleared_away(photos):
    out = photos.parent / "out"
    out.mkdir()
    with whole_file(out / "p1.png") as part:
        part.write_bytes(b"")
    (out / "p1.png").unlink()
    part.write_bytes(b"half")
    assert _upscale(photos, "-o", "out") == 0
    assert _results() == ["p0.png", "p1.png", "p2.png"]


def test_another_files_manifest_is_not_overwritten(photos, capsys):
    (photos.parent / "out").mkdir()
    (photos.parent / "out" / "manifest.json").write_text('{"name": "web app"}')
    assert _upscale(photos, "-o", "out") == 1
    assert "manifest.json" in capsys.readouterr().err
    assert _manifest() == {"name": "web app"}
