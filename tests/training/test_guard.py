"""What the loop notices: updates that are not finite, spikes, hangs, and where the time went."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.tiny import tiny_batch, tiny_config
from vosr_jax.chips import peak_flops
from vosr_jax.diffusion.noise import index_columns, index_words
from vosr_jax.errors import UserError
from vosr_jax.training.build import mesh_of
from vosr_jax.training.guard import UpdateGuard
from vosr_jax.training.setup import load_train_step
from vosr_jax.training.state import new_state
from vosr_jax.training.timing import KINDS, Goodput, Rates


def test_an_update_that_is_not_finite_leaves_all_but_the_counts():
    config = tiny_config()
    train_step, weights = load_train_step(config, mesh_of(config, jax.devices()[:1]))
    good = new_state(train_step.network.initialize(), train_step.optimizer)
    step = jax.jit(train_step.step)
    good, metrics = step(good, weights, tiny_batch(0))
    assert float(metrics["skipped"]) == 0
    name = next(iter(good.parameters))
    bad = jax.tree.map(jnp.copy, good)
    bad.parameters[name] = bad.parameters[name].at[(0,) * bad.parameters[name].ndim].set(jnp.nan)
    after, metrics = step(bad, weights, tiny_batch(1))
    assert float(metrics["skipped"]) == 1 and not np.isfinite(float(metrics["loss"]))
    assert int(after.step) == 2
    counts = [x for x in jax.tree.leaves(after.optimizer) if jnp.issubdtype(x.dtype, jnp.integer)]
    assert counts and all(int(count) == 2 for count in counts)
    for before, now in ((bad.parameters, after.parameters), (bad.ema, after.ema)):
        jax.tree.map(np.testing.assert_array_equal, before, now)
    floats = [
        (old, new)
        for old, new in zip(
            jax.tree.leaves(bad.optimizer), jax.tree.leaves(after.optimizer), strict=True
        )
        if not jnp.issubdtype(old.dtype, jnp.integer)
    ]
    assert floats and all(np.array_equal(old, new) for old, new in floats)


# Beyond 32 bits, and in no order that a step's number could tell.
INDICES = np.array([7, 2**33 + 5, 3, 1000])


def metrics(loss: float, rows=(1.0, 2.0, 3.0, 4.0), skipped: float = 0.0) -> dict:
    return index_columns(jnp.asarray(index_words(INDICES))) | {
        "loss": jnp.float32(loss),
        "skipped": jnp.float32(skipped),
        "loss_rows": jnp.asarray(rows, jnp.float32),
    }


def test_skipped_updates_are_written_down_with_their_samples_and_too_many_end_the_run(tmp_path):
    guard = UpdateGuard(tmp_path, limit=2)
    guard.see(1, metrics(0.5))
    guard.see(2, metrics(np.nan, rows=(1.0, np.nan, 2.0, np.inf), skipped=1.0))
    guard.see(3, metrics(0.5))
    guard.see(4, metrics(0.5, skipped=1.0))
    guard.see(5, metrics(0.5, skipped=1.0))
    with pytest.raises(UserError, match="2 updates in a row .* names the samples"):
        guard.finish()
    found = [json.loads(line) for line in (tmp_path / "incidents.jsonl").read_text().splitlines()]
    assert [(one["step"], one["kind"]) for one in found] == [(n, "skipped") for n in (2, 4, 5)]
    assert found[0]["indices"] == [2**33 + 5, 1000] and found[1]["indices"] == INDICES.tolist()


def test_a_spike_of_the_loss_is_written_down(tmp_path, capsys):
    guard = UpdateGuard(tmp_path, limit=2)
    for step in range(1, 41):
        guard.see(step, metrics(1.0 + 0.01 * (step % 5)))
    guard.see(41, metrics(9.0))
    guard.finish()
    (found,) = [json.loads(line) for line in (tmp_path / "incidents.jsonl").open()]
    assert (found["kind"], found["step"]) == ("spike", 41) and found["indices"][0] == 1000
    assert "far above" in capsys.readouterr().err


def test_the_ledger_sums_to_the_wall_time_over_lives(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("vosr_jax.training.timing.time.time", lambda: now[0])
    first = Goodput(tmp_path, 0)
    for kind, seconds, step in (("start", 5, None), ("compile", 7, 1), ("train", 3, 2)):
        now[0] += seconds
        first.lap(kind, step)
    first.write()
    now[0] += 20  # killed, and begun again at step 1
    second = Goodput(tmp_path, 1)
    now[0] += 4
    second.lap("start")
    now[0] += 3
    second.lap("train", 2)
    now[0] += 3
    second.lap("train", 3)
    assert second.seconds["repeat"] == 3 and second.seconds["train"] == 6
    assert second.seconds["down"] == 20
    assert sum(second.seconds[kind] for kind in KINDS) == now[0] - 1000
    assert second.share == pytest.approx(6 / 45)


def test_it_is_said_once_that_the_data_cannot_keep_up(capsys):
    config = tiny_config()
    rates = Rates(config, mesh_of(config, jax.devices()[:1]))
    for _ in range(2):
        for _ in range(4):
            rates.waited(0.5)
            rates.stepped(0.5)
        values = rates.take()
    assert values["pairs_per_second"] == 4 and values["data_wait_seconds"] == 0.5
    told = capsys.readouterr().err
    assert told.count("cannot keep up: 50%") == 1 and "data.workers" in told


def test_peaks_are_found_by_the_devices_names():
    assert peak_flops("TPU v5 lite") == 197e12 and peak_flops("TPU v5") == 459e12
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12 and peak_flops("cpu") == 0
    assert peak_flops("NVIDIA H100 PCIe") == 756e12 and peak_flops("NVIDIA L40S") == 362e12
    assert peak_flops("NVIDIA A100-SXM4-80GB") == 312e12 and peak_flops("NVIDIA A10") == 125e12


def test_a_hang_prints_every_stack_and_ends_the_process():
    code = (
        "import time\n"
        "from vosr_jax.training.watchdog import Watchdog\n"
        "def stuck(): time.sleep(60)\n"
        "with Watchdog(1):\n"
        "    stuck()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "no step finished for 1 s (train.hang_seconds)" in done.stderr
    assert "in stuck" in done.stderr
