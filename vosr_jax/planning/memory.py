"""Memory of a run in bytes: a step's by kind, and what a first start needs before that step."""

import math
from typing import Any

import jax

from vosr_jax.compilation_cache import no_compilation_cache
from vosr_jax.parameters.lazy import PIECE_BYTES
from vosr_jax.training.abstract import AbstractRun
from vosr_jax.training.setup import beginning


def memory_by_kind(run: AbstractRun, analysis: Any) -> dict[str, float]:
    """Bytes per device by kind: a step's inputs, and what it allocates."""
    state = run.state
    kinds = {
        "parameters": state.parameters,
        "ema": state.ema,
        "optimizer": state.optimizer,
        "frozen": {net: w for net, w in run.weights.items() if net not in ("teacher", "base")},
        "base": run.weights.get("base", {}),
        "teacher": run.weights.get("teacher", {}),
        "batch": run.batch,
    }
    found = {kind: float(sum(map(shard_bytes, jax.tree.leaves(t)))) for kind, t in kinds.items()}
    found["activations"] = float(analysis.temp_size_in_bytes)
    found["program"] = float(analysis.generated_code_size_in_bytes)
    # The state is updated in place.
    fresh = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    found["total"] = float(
        analysis.argument_size_in_bytes
        + fresh
        + analysis.temp_size_in_bytes
        + analysis.generated_code_size_in_bytes
    )
    return found


def start_memory(run: AbstractRun) -> dict[str, float]:
    """Bytes of a run's first start.

    Args:
      run: the step, as shapes.

    Returns:
      "device": a device's peak memory while the state is made, by the compiler; "host read": what
      the busiest host reads of weights' files, in the dtypes that it passes on; "host held": the
      most that a host holds of them at once.
    """
    placed: list[Any] = list(jax.tree.leaves(run.weights))
    given = run.config.teacher is not None or run.config.train.init_from is not None
    base = run.weights.get("base", {})
    given = given and not base  # adapters are initialized; only the base is read
    resident = sum(map(shard_bytes, placed))
    with no_compilation_cache():
        program = beginning(run.train_step, run.state, given=given)
        lowered = program.lower(*([run.state.parameters] if given else []))
        made = lowered.compile().memory_analysis()
    device = (
        made.argument_size_in_bytes
        + made.output_size_in_bytes
        - made.alias_size_in_bytes
        + made.temp_size_in_bytes
        + made.generated_code_size_in_bytes
    )
    if given:
        placed += run.state.parameters.values()
    hosts = [_host_bytes(leaf) for leaf in placed]
    read: dict[int, float] = {}
    for leaf in hosts:
        for host, size in leaf.items():
            read[host] = read.get(host, 0.0) + size
    # Hashing a teacher and a base reads all of them, piece by piece.
    known = [*run.weights.get("teacher", {}).values(), *base.values()]
    hashed = sum(4.0 * math.prod(leaf.shape) for leaf in known)
    held = max((max(leaf.values()) for leaf in hosts), default=0.0)
    return {
        "device": float(device + resident),
        "host read": max(read.values(), default=0.0) + hashed,
        "host held": max(held, float(min(PIECE_BYTES, hashed))),
    }


def shard_bytes(leaf: jax.ShapeDtypeStruct) -> float:
    """Bytes of an array on one device; the whole array if it has no sharding."""
    shape = leaf.sharding.shard_shape(leaf.shape) if leaf.sharding is not None else leaf.shape
    return float(math.prod(shape) * leaf.dtype.itemsize)


def _host_bytes(leaf: jax.ShapeDtypeStruct) -> dict[int, float]:
    """{process: bytes of the distinct shards on its devices}."""
    parts: dict[int, set] = {}
    for device, index in leaf.sharding.devices_indices_map(leaf.shape).items():
        key = tuple((part.start, part.stop) for part in index)
        parts.setdefault(device.process_index, set()).add(key)
    own = shard_bytes(leaf)
    return {process: len(different) * own for process, different in parts.items()}
