"""Step time, pairs/s, data wait, peak memory, and where the time of a train step goes.

    python benchmarks/train_step.py --config configs/nano.py [--steps 20] [--config.key=value]

Each part is timed by itself as a jitted program on the same batch: the frozen nets, the
denoiser's objective forward, its gradient, and the optimizer with the EMA. What the whole step
takes beyond their sum, or saves, is what the compiler fuses or overlaps.

    python benchmarks/train_step.py --official DIR [--official_python PYTHON] [--rounds 3]
        --config configs/vosr_0_5b.py:512 --config.model.depth=4 --config.train.batch_size=1

compares with the official step instead: random weights in the official sizes, a checkout of the
official repository in DIR, and a Python that has torch, einops, timm and diffusers.
"""

import datetime
import os
import platform
import sys
import time
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags
from process_memory import peak_memory

_CONFIG = config_flags.DEFINE_config_file("config", "configs/nano.py", "The experiment.")
_OFFICIAL = flags.DEFINE_string("official", None, "Checkout of the official repository.")
_PYTHON = flags.DEFINE_string("official_python", sys.executable, "What runs it.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Alternating measurements beside the official step.")
_STEPS = flags.DEFINE_integer("steps", 10, "Timed steps, after two that warm up.")


def seconds_a_call(call, repeats: int) -> float:
    """Median time of a call whose result is waited for, after one warm-up."""
    import jax

    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def parts(run, batch, repeats: int) -> dict[str, float]:
    """Seconds of each part of the step."""
    import jax

    train_step, state, weights = run.train_step, run.state, run.weights
    key = jax.random.key(train_step.seed)
    frozen = jax.jit(train_step.frozen.inputs)
    loss = jax.jit(lambda p, w, b: train_step.loss(p, w, b, state.step)[0])
    gradient = jax.jit(lambda p, w, b: train_step.gradient(p, w, b, state.step)[0])
    update = jax.jit(train_step.update)
    gradients = gradient(state.parameters, weights, batch)
    inputs = seconds_a_call(lambda: frozen(weights, batch, key), repeats)
    forward = seconds_a_call(lambda: loss(state.parameters, weights, batch), repeats)
    both = seconds_a_call(lambda: gradient(state.parameters, weights, batch), repeats)
    return {
        "frozen nets": inputs,
        "objective, forward": forward - inputs,
        "objective, backward": both - forward,
        "optimizer and EMA": seconds_a_call(lambda: update(state, gradients), repeats),
    }


def timed_steps(run, data, steps: int) -> tuple[float, float]:
    """(seconds a step, seconds of it spent waiting for data), after two warm-up steps."""
    import jax

    from vosr_jax.training.build import jit_train_step
    from vosr_jax.training.loop import device_batch

    step_fn = jit_train_step(run.train_step, run.abstract_state, run.mesh)
    waited, started = 0.0, 0.0
    for number in range(steps + 2):
        if number == 2:
            jax.block_until_ready(run.state)
            waited, started = 0.0, time.perf_counter()
        asked = time.perf_counter()
        batch = device_batch(next(data), run)
        waited += time.perf_counter() - asked
        run.state, metrics = step_fn(run.state, run.weights, batch)
        jax.block_until_ready(metrics)
    return (time.perf_counter() - started) / steps, waited / steps


def main(argv: list[str]) -> None:
    """Print one table and its machine."""
    del argv
    import tempfile

    import jax

    from vosr_jax.config import validate
    from vosr_jax.data.pipeline import batches
    from vosr_jax.training.checkpoints import Checkpoints
    from vosr_jax.training.loop import device_batch
    from vosr_jax.training.setup import pipeline_settings, start_run

    config = validate(_CONFIG.value)
    if _OFFICIAL.value is not None:
        from train_step_beside import compare

        compare(config, Path(_OFFICIAL.value), _PYTHON.value, _ROUNDS.value)
        return
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(folder)
        run = start_run(config, checkpoints)
        checkpoints.close()
        with batches(pipeline_settings(config)) as data:
            table = parts(run, device_batch(next(data), run), max(_STEPS.value // 2, 3))
            seconds, waited = timed_steps(run, data, _STEPS.value)
    rows = config.train.batch_size
    print(f"\n{datetime.date.today()}  {platform.processor() or platform.machine()}, ", end="")
    print(f"{os.cpu_count()} cores, {jax.devices()[0].device_kind} x {jax.device_count()}")
    print(
        f"{rows} pairs of {config.data.crop_size} px, {run.train_step.network.count():,} parameters"
    )
    print(f"\n| part | seconds | share |\n|{'---|' * 3}")
    for name, value in table.items():
        print(f"| {name} | {value:.3f} | {value / seconds:.0%} |")
    print(f"| waiting for data | {waited:.3f} | {waited / seconds:.0%} |")
    print(f"| whole step | {seconds:.3f} | {rows / seconds:.2f} pairs/s |")
    memory = jax.devices()[0].memory_stats() or {}
    peak = memory.get("peak_bytes_in_use")
    if peak is None:
        peak = peak_memory()
    print(f"\npeak memory {peak / 2**30:.2f} GiB")
    sys.stdout.flush()


if __name__ == "__main__":
    app.run(main)
