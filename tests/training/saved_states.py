"""Train states small enough to be saved many times in a test, without a network."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from vosr_jax.files.atomic import write_json
from vosr_jax.training.checkpoints import Checkpoints
from vosr_jax.training.state import TrainState
from vosr_jax.training.workdir import CONFIG


def state_of(step: int, size: int = 64) -> TrainState:
    """A state whose arrays tell its step."""

    def array(name: int) -> jax.Array:
        return jax.random.normal(jax.random.key(100 * step + name), (size, size))

    return TrainState(
        jnp.asarray(step, jnp.int32),
        {"kernel": array(0)},
        {"kernel": array(1)},
        {"mu": array(2), "count": jnp.asarray(step, jnp.int32)},
    )


def abstract(state: TrainState) -> TrainState:
    """Shapes and shardings."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def saved_run(folder: Path, steps: tuple[int, ...] = (10, 20), **options) -> Path:
    """A workdir with checkpoints of those steps, eight samples a step."""
    write_json(folder / CONFIG, {"seed": 1})
    checkpoints = Checkpoints(folder, config={"seed": 2}, **options)
    for step in steps:
        checkpoints.save(state_of(step), samples_seen=8 * step)
    checkpoints.close()
    return folder


def copy_of(folder: Path, target: Path) -> Path:
    """A copy of a run; an older one at the place goes."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(folder, target))


def restored(folder: Path) -> tuple[TrainState, Checkpoints]:
    """What a start finds."""
    checkpoints = Checkpoints(folder)
    try:
        return checkpoints.restore(abstract(state_of(0))), checkpoints
    finally:
        checkpoints.close()


def same(one: TrainState, other: TrainState) -> bool:
    """Bit for bit."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def flip_bit(file: Path, bit: int) -> None:
    """Turn one bit of a file over."""
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(bytes(data))


def files_of(folder: Path) -> list[Path]:
    """Files below a folder that hold something."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
