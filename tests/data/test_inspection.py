"""Looking at pairs, and writing fixed ones."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import encoded, picture
from vosr_jax.cli import main
from vosr_jax.data.degradation import RealESRGANSettings, sample_plan
from vosr_jax.data.inspection import describe_plan, inspect
from vosr_jax.data.pipeline import PipelineSettings, batches
from vosr_jax.evaluation.pairs import folder_entries


def test_the_sheet_shows_the_runs_first_pairs(photographs):
    settings = PipelineSettings(sources=str(photographs), seed=5, batch_size=4, crop_size=32)
    seen = inspect(settings, count=4, seconds=0.1)
    with batches(settings) as own:
        batch = next(own)
    sheet = np.asarray(seen.sheet)
    # Two pairs a row; HR, a margin of 8 and LQ.
    assert np.array_equal(sheet[8:40, 8:40], batch["hr"][0])
    assert np.array_equal(sheet[8:40, 48:80], batch["lq"][0])
    width = sheet.shape[1] // 2
    assert np.array_equal(sheet[8:40, width + 8 : width + 40], batch["hr"][1])
    assert seen.pairs_per_second > 0 and seen.degraded_per_second > 0
    assert seen.sources == [(str(photographs), 20, 1.0)]


def test_given_samples_are_made_again(photographs):
    settings = PipelineSettings(sources=str(photographs), seed=5, batch_size=8, crop_size=32)
    seen = inspect(settings, count=1, seconds=0.1, indices=(6, 3))
    with batches(settings) as own:
        batch = next(own)
    sheet = np.asarray(seen.sheet)
    width = sheet.shape[1] // 2
    assert np.array_equal(sheet[8:40, 48:80], batch["lq"][6])
    assert np.array_equal(sheet[8:40, width + 8 : width + 40], batch["hr"][3])


def test_indices_are_numbers(photographs, capsys):
    arguments = ["data", "inspect", str(photographs), "--crop", "32", "--indices"]
    for wrong in ("x", "3,-1"):
        assert main([*arguments, wrong]) == 1
        assert f"--indices {wrong}" in capsys.readouterr().err


def test_every_operation_of_a_plan_has_its_line():
    settings = RealESRGANSettings(grey_probability=1, jitter_probability=1)
    for seed in range(30):
        plan = sample_plan(np.random.default_rng(seed), 64, 64, settings)
        lines = describe_plan(plan)
        assert len(lines) == len(plan.operations) + 1
        for kind in ("resize", "noise", "jpeg", "grey", "hue", "contrast"):
            assert any(line.startswith(kind) for line in lines)


def test_inspect_writes_the_sheet_and_names_what_cannot_be_read(photographs, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    arguments = ["--count", "3", "--crop", "32", "--seconds", "1"]
    assert main(["data", "inspect", str(photographs), "-o", str(out), *arguments]) == 0
    said = capsys.readouterr().out
    assert "pairs/s per core" in said and "20 pictures" in said
    assert "picture99.png" in said and "1 unreadable" in said
    assert Image.open(out).size[0] == 2 * (2 * 32 + 24)


def make(sources, out, *more):
    arguments = ["--crop", "32", "--seed", "4", *more]
    return main(["data", "make-eval", str(sources), "-o", str(out), *arguments])


def test_evaluation_pairs_are_the_same_every_time_and_fit_eval(photographs, tmp_path, capsys):
    for name in ("one", "two"):
        assert make(photographs, tmp_path / name, "--count", "5", "--crops", "2") == 0
    assert "eval.hr" in capsys.readouterr().out
    one, two = (folder_entries(tmp_path / n / "hr", tmp_path / n / "lr") for n in ("one", "two"))
    assert len(one) == 10
    for entry, other in zip(one, two, strict=True):
        first, again = entry.load(), other.load()
        assert first.truth.shape == (32, 32, 3) and first.source.shape == (8, 8, 3)
        assert np.array_equal(first.truth, again.truth)
        assert np.array_equal(first.source, again.source)
    about = json.loads((tmp_path / "one" / "pairs.json").read_text())
    assert about["seed"] == 4 and len(about["pairs"]) == 10
    assert make(photographs, tmp_path / "other", "--count", "5", "--seed", "6") == 0


def test_pictures_of_one_name_get_two_and_unreadable_ones_are_told_of(tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "view.png").write_bytes(encoded(picture(ord(folder))))
    (tmp_path / "in" / "broken.png").write_bytes(b"")
    assert make(tmp_path / "in", tmp_path / "out") == 0
    assert "passed over" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "hr").iterdir())) == 2


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--crop", "30"], "multiple"),
        (["--crops", "0"], "at least 1"),
        (["--seed", "-1"], "negative"),
    ],
)
def test_settings_that_cannot_work_are_one_sentence(
    photographs, tmp_path, capsys, arguments, message
):
    assert make(photographs, tmp_path / "out", *arguments) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(photographs, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert make(photographs, tmp_path / "out") == 1
    assert "not empty" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.part"))
