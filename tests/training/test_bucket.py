"""Runs whose workdir is an address in a bucket, on a real server of the protocol."""

import json
import signal

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from tests.training.processes import finish, start, wait_for_line
from tests.training.tiny import tiny_config
from vosr_jax import Upscaler
from vosr_jax.errors import UserError
from vosr_jax.evaluation.evaluate import run_evaluation
from vosr_jax.files import listing, to_path
from vosr_jax.training.loop import train

STEPS, EVERY = 30, 5
OPTIONS = (f"--config.train.total_steps={STEPS}", f"--config.train.checkpoint_every={EVERY}")


def rows(home):
    return [json.loads(line) for line in (home / "metrics.jsonl").read_text().splitlines()]


def plain(rows):
    """What does not depend on the clock."""
    keys = ("step", "loss", "grad_norm", "samples_seen")
    return [{key: row[key] for key in keys if key in row} for row in rows]


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory):
    """Programs compile fast, and those of one training are the next one's."""
    values = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("cache")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    before = {name: jax.config.values[name] for name in values}
    for name, value in values.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def trained(bucket, compiled_once, tmp_path_factory):
    """A run in a bucket, broken off after two of four steps, and the same on a disk at once."""
    home = to_path(f"{bucket}/trained")
    looks = {"sample_every": 4, "eval_every": 0, "checkpoint_every": 2}
    for steps in (2, 4):
        train(tiny_config(train={"total_steps": steps, **looks}), str(home))
    disk = tmp_path_factory.mktemp("disk") / "run"
    train(tiny_config(train={"total_steps": 4, **looks}), disk)
    return home, disk


def test_a_run_in_a_bucket_has_all_that_one_on_a_disk_has(trained):
    home, disk = trained
    names = {p.name for p in listing(home) if ".tfevents." not in p.name}
    assert {p.name for p in disk.iterdir() if ".tfevents." not in p.name} <= names
    assert {"config.json", "metrics.jsonl", "goodput.json", "samples", "checkpoints"} <= names
    assert any(".tfevents." in p.name for p in listing(home))
    assert (home / "samples" / "4.png").read_bytes() == (disk / "samples" / "4.png").read_bytes()
    assert not [p.name for p in listing(home) if p.name.startswith(".")]


def test_resumed_in_a_bucket_it_is_the_uninterrupted_run_on_a_disk(trained):
    home, disk = trained
    assert plain(rows(home)) == plain(rows(disk))
    assert [row["step"] for row in rows(home)] == [1, 2, 3, 4]


def test_the_upscaler_reads_the_run_in_the_bucket(trained):
    home, disk = trained
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    pictures = [
        Upscaler.from_pretrained(place)(picture, scale=4, steps=1, output="numpy")
        for place in (str(home), disk)
    ]
    np.testing.assert_array_equal(*pictures)


def test_an_evaluation_of_it_lies_in_the_bucket_and_goes_on_there(trained, tmp_path, capsys):
    from PIL import Image

    home, _ = trained
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    (tmp_path / "hr").mkdir()
    Image.fromarray(noise).save(tmp_path / "hr" / "a.png")
    chosen = {"hr": str(tmp_path / "hr"), "metrics": ("psnr",), "peers": ("bicubic",)}
    config = tiny_config(eval=chosen)
    table = run_evaluation(config, str(home))
    assert {"results.json", "table.md", "report.html"} <= {p.name for p in listing(home / "eval")}
    assert table in (home / "eval" / "table.md").read_text()
    before = {p: p.read_bytes() for p in listing(home / "eval" / "rows" / "bicubic")}
    assert run_evaluation(config, str(home)) == table
    assert before and all(p.read_bytes() == content for p, content in before.items())


def test_a_conversion_reads_it_and_writes_an_export_into_the_bucket(trained, monkeypatch, tmp_path):
    from vosr_jax.cli import main

    home, disk = trained
    monkeypatch.setenv("VOSR_CACHE", str(tmp_path / "cache"))
    out = f"{home.parent}/export"
    assert main(["convert", str(home), "-o", out]) == 0
    assert main(["convert", str(disk), "-o", str(tmp_path / "export")]) == 0
    weights = (tmp_path / "export" / "model.safetensors").read_bytes()
    assert (to_path(out) / "model.safetensors").read_bytes() == weights
    assert Upscaler.from_pretrained(out).model.name == "export"
    assert main(["convert", str(home), "-o", out]) == 1


def test_a_bucket_that_is_not_there_is_one_sentence(bucket):
    with pytest.raises(UserError, match="gs://no-such-bucket/run.* no-such-bucket exists") as told:
        train(tiny_config(), "gs://no-such-bucket/run")
    assert "\n" not in str(told.value)


@pytest.mark.slow
def test_a_killed_run_in_a_bucket_goes_on_bit_for_bit(bucket, tmp_path):
    from tests.training.test_resume import saved_state

    cache = tmp_path / "cache"
    homes = [to_path(f"{bucket}/{name}") for name in ("whole", "killed")]
    code, said = finish(start(homes[0], cache, *OPTIONS))
    assert code == 0, said
    process = start(homes[1], cache, *OPTIONS)
    wait_for_line(process, f"step {2 * EVERY + 2}/")
    process.send_signal(signal.SIGKILL)
    finish(process)
    code, said = finish(start(homes[1], cache, *OPTIONS))
    assert code == 0, said
    assert "resumed at step" in said
    trees = [jax.tree.leaves(saved_state(home, STEPS)) for home in homes]
    for one, other in zip(*trees, strict=True):
        np.testing.assert_array_equal(one, other)
