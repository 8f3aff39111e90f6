"""Run by test_accumulation.py in a process with 4 simulated devices; prints JSON.

For each way to sum gradients over `data`: losses and norms of some steps, and the bytes of the
sums over `data` in the compiled step.
"""

import json
import sys

import jax
import numpy as np

from tests.training.tiny import tiny_batch, tiny_config
from vosr_jax.planning.communication import collectives
from vosr_jax.planning.hlo import parse
from vosr_jax.training.build import abstract_state, jit_train_step, mesh_of
from vosr_jax.training.placing import put_batch
from vosr_jax.training.setup import begin, load_train_step

STEPS, ROWS = 4, 16


def outcome(**mesh) -> dict:
    config = tiny_config(
        mesh={"data": 2, "fsdp": 2} | mesh,
        model={"remat": "full", "width": 64, "depth": 1},
        train={"batch_size": ROWS, "microbatches": 4},
        optimizer={"learning_rate": 1e-3},
    )
    devices = mesh_of(config)
    train_step, weights = load_train_step(config, devices)
    abstract = abstract_state(train_step, devices)
    state, step_fn = begin(train_step, abstract), jit_train_step(train_step, abstract, devices)
    losses, norms, rows = [], [], []
    for step in range(STEPS):
        batch = {k: np.asarray(v) for k, v in tiny_batch(step, ROWS).items()}
        state, metrics = step_fn(state, weights, put_batch(batch, devices))
        losses.append(float(metrics["loss"]))
        norms.append(float(metrics["grad_norm"]))
        rows.append(metrics["loss_rows"].tolist())
    text = step_fn.lower(abstract, weights, put_batch(batch, devices)).compile().as_text()
    sums = [c for c in collectives(parse(text), devices_a_slice=2) if c.across]
    return {"losses": losses, "norms": norms, "rows": rows, "sent": sum(c.total for c in sums)}


def main() -> None:
    assert jax.device_count() == 4, jax.device_count()
    results = {
        "microbatch": outcome(),
        "update": outcome(gradient_sum="update"),
        "short": outcome(gradient_sum="update", gradient_dtype="bfloat16"),
    }
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
