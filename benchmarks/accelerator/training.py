"""The 0.5B training step on the device: speed, MFU, largest batch, price of determinism, data wait.

    python -m benchmarks.accelerator.training OUT.json [--sources SOURCES] [--dry]

The step is the one that train.py compiles from configs/vosr_0_5b.py:512, frozen nets included, with
random weights. Programs are compiled side by side, while nothing is timed.
"""

import argparse
import dataclasses
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator.clock import milliseconds
from benchmarks.accelerator.record import Record
from vosr_jax.chips import peak_flops
from vosr_jax.compilation_cache import use_compilation_cache
from vosr_jax.config import Config
from vosr_jax.config.from_file import config_from_file
from vosr_jax.data.pipeline import batches
from vosr_jax.diffusion.noise import index_words
from vosr_jax.training.abstract import AbstractRun, abstract_run, analytic_flops
from vosr_jax.training.setup import pipeline_settings
from vosr_jax.training.sharding import make_mesh

_CONFIG = Path(__file__).parents[2] / "configs" / "vosr_0_5b.py"
_GIB = 2**30
# Rows of the default batch, and of those that are tried after it.
_ROWS, _LARGER = 8, (16, 32, 64, 128)
_DRY_ROWS, _DRY_LARGER = 1, (2,)


def experiment(sources: str | None, *, dry: bool) -> Config:
    """The released 0.5B training at 512 px, or a tiny one at 64 px."""
    config = config_from_file(f"{_CONFIG}:512")
    workers = max(len(os.sched_getaffinity(0)) - 2, 1)
    data = dataclasses.replace(config.data, sources=sources, workers=0 if dry else workers)
    config = dataclasses.replace(config, data=data)
    if not dry:
        return with_rows(config, _ROWS)
    replace = dataclasses.replace
    config = replace(
        config,
        data=replace(data, crop_size=64),
        model=replace(config.model, width=64, depth=2, heads=2),
        encoder=replace(config.encoder, kind="dinov2s", size=56, block=0),
        autoencoder=replace(config.autoencoder, kind="space_to_depth"),
    )
    return with_rows(config, _DRY_ROWS)


def with_rows(config: Config, rows: int, **train: Any) -> Config:
    """The same with another batch size, and other settings of the run."""
    return dataclasses.replace(
        config, train=dataclasses.replace(config.train, batch_size=rows, **train)
    )


def drawn(tree: Any) -> Any:
    """Random arrays where the tree has shapes, placed as it says.

    Bytes, zeros for counts, and weights of a size that keeps activations finite. NumPy draws them,
    since JAX would compile a program for every shape.
    """
    rng = np.random.default_rng(0)

    def one(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if leaf.dtype == jnp.uint8:
            values = rng.integers(0, 256, leaf.shape, np.uint8)
        elif jnp.issubdtype(leaf.dtype, jnp.integer):
            values = np.zeros(leaf.shape, leaf.dtype)
        else:
            values = (rng.standard_normal(leaf.shape, np.float32) * 0.02).astype(leaf.dtype)
        return jax.device_put(values, leaf.sharding)

    return jax.tree.map(one, tree)


class Training:
    """Steps of several configs that share weights and state; `begin` makes both.

    Args:
      config: gives both.
    """

    def __init__(self, config: Config):
        self._mesh = make_mesh(1, 1, 1, jax.devices()[:1])
        self._config, self._flops = config, analytic_flops(config)
        self.weights: Any = None
        self.state: Any = None

    def abstract(self, config: Config) -> AbstractRun:
        """A config's step, as shapes."""
        return abstract_run(config, self._mesh)

    def begin(self) -> None:
        """Random weights and a first state on the device."""
        run = self.abstract(self._config)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, run.state)
        self.state = jax.jit(run.train_step.new_state, out_shardings=shardings)()
        self.weights = drawn(run.weights)

    def compiled(self, config: Config) -> Any:
        """A config's step, ready to run."""
        return self.abstract(config).lower().compile()

    def figures(self, config: Config, program: Any) -> dict[str, Any]:
        """Speed and memory of a compiled step."""
        if any(leaf.is_deleted() for leaf in jax.tree.leaves(self.state)):
            # A step that failed took the state with it.
            self.begin()
        batch = drawn(self.abstract(config).batch)

        def step() -> Any:
            self.state, metrics = program(self.state, self.weights, batch)
            return metrics

        step()  # What a first step allocates is not timed.
        ms = milliseconds(step, most=7, seconds=4.0)
        rows, peak = config.train.batch_size, peak_flops(jax.devices()[0].device_kind)
        speed = 1000 * rows / ms
        return {
            "batch": rows,
            "ms": ms,
            "pairs_per_second": speed,
            "mfu": speed * self._flops / peak if peak else None,
            "gib": _gib(program),
        }

    def fed(self, config: Config, program: Any, steps: int) -> dict[str, Any]:
        """Steps on photographs from the data pipeline, beside the pipeline alone."""
        shapes, rows = self.abstract(config).batch, config.train.batch_size
        with batches(pipeline_settings(config)) as data:
            batch = next(data)
            begun = time.perf_counter()
            for _ in range(steps):
                batch = next(data)
            alone = (time.perf_counter() - begun) / steps
            begun = time.perf_counter()
            for _ in range(steps):
                self.state, metrics = program(self.state, self.weights, _placed(batch, shapes))
                batch = next(data)
                jax.block_until_ready(metrics)
            spent = (time.perf_counter() - begun) / steps
        return {
            "batch": rows,
            "workers": config.data.workers,
            "ms": 1000 * spent,
            "pairs_per_second": rows / spent,
            "data_pairs_per_second": rows / alone,
        }


def _placed(batch: dict[str, np.ndarray], shapes: dict[str, Any]) -> dict[str, Any]:
    """A batch of the pipeline where the step wants it, with notes of nothing."""
    notes = np.zeros(shapes["notes"].shape, np.int32)
    rows = {"hr": batch["hr"], "lq": batch["lq"], "index": index_words(batch["index"])}
    given = rows | {"notes": notes}
    return {name: jax.device_put(given[name], shapes[name].sharding) for name in shapes}


def _gib(program: Any) -> float | None:
    """What a compiled program holds at once: arguments, results that are none, and between."""
    memory = program.memory_analysis()
    if memory is None:
        return None
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    held += memory.output_size_in_bytes - memory.alias_size_in_bytes
    return held / _GIB


def main() -> None:
    """Write one figure a case, the default batch first, the largest ones last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--sources", help="photographs; scikit-image's own unless given")
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    record = Record(options.out)
    record.note_machine()
    use_compilation_cache()
    config = experiment(options.sources, dry=options.dry)
    rows = config.train.batch_size
    attention = dataclasses.replace(config.model, remat="attention")
    cases = {
        f"batch {rows}": config,
        f"batch {rows}, deterministic": with_rows(config, rows, deterministic=True),
        f"batch {rows}, remat=attention": dataclasses.replace(config, model=attention),
    }
    for larger in _DRY_LARGER if options.dry else _LARGER:
        cases[f"batch {larger}"] = with_rows(config, larger)
    training = Training(config)
    # The first step alone, so that its figures are there whatever the others take.
    first, *others = cases
    with _pool() as pool:
        begun, compiled = pool.submit(training.begin), pool.submit(training.compiled, config)
    begun.result()
    record.measure(f"training, {first}", lambda: training.figures(config, compiled.result()))
    steps = 2 if options.dry else 12
    record.measure(
        "training, fed by the data pipeline",
        lambda: training.fed(config, compiled.result(), steps),
    )
    with _pool() as pool:
        programs = {name: pool.submit(training.compiled, cases[name]) for name in others}
    largest = rows
    for name in others:

        def figures(name: str = name) -> dict[str, Any]:
            return training.figures(cases[name], programs[name].result())

        done = record.measure(f"training, {name}", figures)
        if not done and cases[name].train.batch_size > rows:
            # Out of memory: larger ones are too.
            break
        largest = max(largest, cases[name].train.batch_size)
    record.note("training, largest batch that ran", {"batch": largest})


def _pool() -> ThreadPoolExecutor:
    """For compiling: nothing is timed while it works."""
    return ThreadPoolExecutor(max(len(os.sched_getaffinity(0)) - 2, 1))


if __name__ == "__main__":
    main()
