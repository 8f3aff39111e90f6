"""Runs that are killed, stopped and resumed, as real processes."""

import json
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.training.processes import finish, rows, start, wait_for_step

STEPS, EVERY = 60, 10
OPTIONS = (f"--config.train.total_steps={STEPS}", f"--config.train.checkpoint_every={EVERY}")


def checkpoint_steps(workdir: Path) -> list[int]:
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def saved_state(workdir: Path, step: int) -> dict:
    """Parameters, EMA, optimizer and step on disk, read without the project's code."""
    import orbax.checkpoint as ocp

    return ocp.PyTreeCheckpointer().restore(workdir / "checkpoints" / str(step) / "state")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An uninterrupted run, and one that was killed, resumed, stopped and resumed again."""
    folder = tmp_path_factory.mktemp("runs")
    cache = folder / "cache"
    whole, broken = folder / "whole", folder / "broken"
    code, output = finish(start(whole, cache, *OPTIONS))
    assert code == 0, output
    story = {"whole": whole, "broken": broken}

    process = start(broken, cache, *OPTIONS)
    story["killed after"] = wait_for_step(process, broken, 2 * EVERY + 4)
    process.send_signal(signal.SIGKILL)
    finish(process)
    story["left by the kill"] = checkpoint_steps(broken)
    story["rows at the kill"] = rows(broken)
    # What a save leaves that was killed in the middle.
    half = broken / "checkpoints" / f"{4 * EVERY}.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    (half / "state" / "manifest.ocdbt").write_bytes(b"half")

    process = start(broken, cache, *OPTIONS)
    wait_for_step(process, broken, story["killed after"] + 5)
    process.send_signal(signal.SIGTERM)
    story["stopped"] = finish(process)
    story["left by the stop"] = checkpoint_steps(broken)
    story["rows at the stop"] = rows(broken)

    story["resumed"] = finish(start(broken, cache, *OPTIONS))
    return story


def test_a_killed_and_resumed_run_is_the_uninterrupted_one_bit_for_bit(runs: dict):
    assert runs["killed after"] < STEPS, "the run was over before the kill"
    assert runs["resumed"][0] == 0, runs["resumed"][1]
    whole, broken = (saved_state(runs[name], STEPS) for name in ("whole", "broken"))
    assert {"parameters", "ema", "optimizer", "step"} <= whole.keys()
    assert int(np.asarray(whole["step"])) == STEPS
    paths = jax.tree_util.tree_leaves_with_path(whole)
    others = jax.tree_util.tree_leaves_with_path(broken)
    assert [path for path, _ in paths] == [path for path, _ in others]
    for (path, value), (_, other) in zip(paths, others, strict=True):
        np.testing.assert_array_equal(value, other, err_msg=jax.tree_util.keystr(path))


def test_every_steps_loss_is_the_uninterrupted_runs(runs: dict):
    whole, broken = ({row["step"]: row for row in rows(runs[n])} for n in ("whole", "broken"))
    assert sorted(whole) == sorted(broken) == list(range(1, STEPS + 1))
    for step, row in whole.items():
        for key in ("loss", "grad_norm", "learning_rate", "samples_seen"):
            assert row[key] == broken[step][key], (step, key)


def test_the_kill_loses_no_finished_checkpoint_and_half_ones_are_passed_over(runs: dict):
    assert runs["left by the kill"], "nothing was saved before the kill"
    assert max(runs["left by the kill"]) in (EVERY, 2 * EVERY)
    newest = max(runs["left by the kill"])
    assert f"resumed at step {newest}" in runs["stopped"][1]
    # Rows after the newest finished checkpoint are void and are written again, once.
    assert max(row["step"] for row in runs["rows at the kill"]) > newest
    assert f"rows after step {newest} cut" in runs["stopped"][1]
    steps = [row["step"] for row in runs["rows at the stop"]]
    assert steps == list(range(1, len(steps) + 1))


def test_sigterm_saves_the_step_it_reached_and_exits_cleanly(runs: dict):
    code, output = runs["stopped"]
    last = runs["rows at the stop"][-1]["step"]
    assert code == 0, output
    assert last < STEPS, "the run was over before the signal"
    assert max(runs["left by the stop"]) == last
    assert f"stopped at step {last} and saved; run the same command to go on" in output
    assert f"resumed at step {last}" in runs["resumed"][1]


def test_a_second_start_compiles_nothing_and_draws_the_same_rows(tmp_path: Path):
    options = ("--config.train.total_steps=2", "--config.train.checkpoint_every=0")
    told = []
    for name in ("one", "two"):
        witness = tmp_path / f"{name}.jsonl"
        process = start(tmp_path / name, tmp_path / "cache", *options, witness=witness)
        code, output = finish(process)
        assert code == 0, output
        told.append([json.loads(line) for line in witness.read_text().splitlines()])
    (*rows_before, first), (*rows_after, second) = told
    assert first["misses"] > 0 and first["hits"] < second["hits"]
    assert second["misses"] == 0
    assert rows_before == rows_after and len({tuple(row["hashes"]) for row in rows_after}) >= 8


def test_a_finished_run_says_what_to_do(runs: dict):
    folder = runs["whole"]
    cache = folder.parent / "cache"
    code, output = finish(start(folder, cache, *OPTIONS))
    assert code == 0
    assert f"already at step {STEPS} of {STEPS}; raise train.total_steps" in output
    assert len(rows(folder)) == STEPS
