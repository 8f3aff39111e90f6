"""Run by test_preview.py in a process with 4 simulated devices; prints JSON.

The figures and pictures of one and the same state on one device and on four, and how much of the
validation pictures each device is given.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from tests.training.tiny import tiny_config
from vosr_jax.training.build import abstract_state, mesh_of
from vosr_jax.training.preview import Preview, rows_over
from vosr_jax.training.setup import Run, load_train_step
from vosr_jax.training.state import new_state


def run_on(config, devices: int) -> Run:
    """An untrained run on so many devices."""
    mesh = mesh_of(config, jax.devices()[:devices])
    train_step, weights = load_train_step(config, mesh)
    abstract = abstract_state(train_step, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)

    def initialize():
        state = new_state(train_step.network.initialize(), train_step.optimizer)
        # A new network gives nothing at all.
        ema = {
            k: v + 0.05 * jnp.cos(jnp.arange(v.size).reshape(v.shape)) for k, v in state.ema.items()
        }
        return dataclasses.replace(state, ema=ema)

    state = jax.jit(initialize, out_shardings=shardings)()
    return Run(config, mesh, train_step, weights, state, abstract)


def main() -> None:
    assert jax.device_count() == 4, jax.device_count()
    config = tiny_config(
        train={"eval_every": 1}, eval={"pictures": 6}, mesh={"data": -1, "fsdp": 1}
    )
    results: dict = {}
    for count in (1, 4):
        preview, run = Preview(config, Path("nowhere")), run_on(config, count)
        figures = preview.evaluate(run)
        pictures = preview.restore(run)
        given = rows_over(run.mesh, preview._pictures("lq"))
        results[str(count)] = {
            "figures": figures,
            "pictures": pictures.tolist(),
            "rows a device": [shard.data.shape[0] for shard in given.addressable_shards],
            "filled with the last": bool(np.array_equal(given[5], given[-1])),
        }
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
