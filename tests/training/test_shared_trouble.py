"""One of two processes has the trouble: both end at the same step, and nothing is lost."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import picture
from tests.training.processes import LIGHT, finish, job, rows
from tests.training.test_resume import checkpoint_steps

STEPS = 8
OPTIONS = (*LIGHT, f"--config.train.total_steps={STEPS}", "--config.train.checkpoint_every=0")


def ended(workdir: Path, cache: Path, *overrides: str, hooks: dict | None = None) -> list:
    """(exit code, what it said) of both processes."""
    members = job(workdir, cache, 2, *OPTIONS, *overrides, hooks=hooks)
    return [finish(process, timeout=900) for process in members]


def sentence(outcomes: list) -> str:
    """The one error that both say."""
    told = {re.findall(r"^error: (.*)$", output, re.MULTILINE)[-1] for _, output in outcomes}
    assert [code for code, _ in outcomes] == [1, 1], outcomes
    assert len(told) == 1, told
    return told.pop()


def photographs(folder: Path, good: int, bad: int) -> Path:
    folder.mkdir()
    for number in range(good):
        Image.fromarray(picture(number)).save(folder / f"good{number}.png")
    for number in range(bad):
        (folder / f"bad{number}.png").write_bytes(b"cut short")
    return folder


@pytest.mark.slow
def test_a_loader_that_breaks_in_one_process_costs_nothing_and_the_run_goes_on(tmp_path: Path):
    cache, whole, broken = tmp_path / "cache", tmp_path / "whole", tmp_path / "broken"
    assert [code for code, _ in ended(whole, cache)] == [0, 0]
    told = sentence(ended(broken, cache, hooks={"process": 1, "fails_at": 5}))
    assert re.match(r"process 1 \(.*\): the data pipeline failed with KeyError .*a bug", told)
    assert checkpoint_steps(broken) == [4] and [row["step"] for row in rows(broken)] == [1, 2, 3, 4]
    assert [code for code, _ in ended(broken, cache)] == [0, 0]
    expected, found = ([row["loss"] for row in rows(folder)] for folder in (whole, broken))
    assert found == expected and len(found) == STEPS


@pytest.mark.slow
def test_too_many_bad_records_of_both_end_both_with_one_count(tmp_path: Path):
    folder = photographs(tmp_path / "photographs", 6, 2)
    overrides = (f"--config.data.sources={folder}", "--config.data.max_bad_fraction=0.005")
    told = sentence(ended(tmp_path / "run", tmp_path / "cache", *overrides))
    assert re.match(r"\d+ of \d+ samples could not be read, more than data.max_bad_fraction", told)
    listed = [json.loads(line) for line in (tmp_path / "run" / "bad_records.jsonl").open()]
    names = sorted(Path(line["record"]).name for line in listed)
    assert names == ["bad0.png", "bad1.png"]
    (step,) = checkpoint_steps(tmp_path / "run")
    assert rows(tmp_path / "run")[-1]["step"] in (step, step - 1)


@pytest.mark.slow
def test_a_source_that_goes_away_and_a_full_disk_beside_it(tmp_path: Path):
    folder = photographs(tmp_path / "photographs", 6, 1)
    overrides = (
        f"--config.data.sources={folder}",
        "--config.data.max_bad_fraction=1.0",
        "--config.data.cache_bytes=0",
    )
    hooks = {"process": 1, "folder_goes_at": 2, "folder": str(folder), "full": True}
    told = sentence(ended(tmp_path / "run", tmp_path / "cache", *overrides, hooks=hooks))
    assert f"no picture of {folder} can be read any more" in told
    (step,) = checkpoint_steps(tmp_path / "run")
    assert step >= 1
    shutil.rmtree(tmp_path / "run" / "checkpoints")


@pytest.mark.slow
def test_the_first_processes_full_disk_ends_nothing(tmp_path: Path):
    folder = photographs(tmp_path / "photographs", 6, 1)
    overrides = (f"--config.data.sources={folder}", "--config.data.max_bad_fraction=1.0")
    hooks = {"process": 0, "full": True, "poison": 9}
    (code, output), (other, _) = ended(
        tmp_path / "run", tmp_path / "cache", *overrides, hooks=hooks
    )
    assert (code, other) == (0, 0), output
    assert output.count("bad_records.jsonl cannot be written") == 1
    assert output.count("incidents.jsonl cannot be written") == 1
    assert checkpoint_steps(tmp_path / "run") == [STEPS]
    assert np.isfinite([row["loss"] for row in rows(tmp_path / "run") if "loss" in row][-1])
