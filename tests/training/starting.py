"""One process's start of a student of several processes, measured; run by test_starting.py.

python -m tests.training.starting TEACHER OUT: writes OUT/<process>.json.
"""

import json
import sys
import tracemalloc
from pathlib import Path

import jax
import numpy as np

from tests.training.tiny import tiny_config
from vosr_jax.parameters.lazy import HostArray
from vosr_jax.training import setup as beginning
from vosr_jax.training import setup as run
from vosr_jax.training.checkpoints import Checkpoints
from vosr_jax.training.distributed import join

SIZES = {"width": 384, "depth": 6, "heads": 6, "remat": "none"}


def main(teacher: str, out: Path) -> None:
    """Start the run, count what is read and held, and compare every shard with the file."""
    join()
    seen = {"read": 0, "largest": 0, "before": 0, "while": 0, "placed": 0}
    read, place = HostArray.__getitem__, run.place

    def counted(self: HostArray, index) -> np.ndarray:
        part = read(self, index)
        seen["read"] += part.nbytes
        seen["largest"] = max(seen["largest"], part.nbytes)
        return part

    def measured(tree, shardings):
        # A CPU device takes the host's memory as it is; that is the device's.
        before = tracemalloc.get_traced_memory()[0] - seen["placed"]
        seen["before"] = max(seen["before"], before)
        tracemalloc.reset_peak()
        placed = place(tree, shardings)
        after, peak = tracemalloc.get_traced_memory()
        seen["while"] = max(seen["while"], peak - after)
        leaves = jax.tree.leaves(placed)
        seen["placed"] += sum(s.data.nbytes for x in leaves for s in x.addressable_shards)
        return placed

    HostArray.__getitem__ = counted  # type: ignore[method-assign]
    run.place = beginning.place = measured
    config = tiny_config(
        model=SIZES | {"r_embedding": True},
        objective={"name": "rcgm"},
        mesh={"data": 1, "fsdp": -1},
    )
    config = config.__class__(**vars(config) | {"teacher": teacher})
    checkpoints = Checkpoints(out / "run")
    tracemalloc.start()
    started = run.start_run(config, checkpoints)
    tracemalloc.stop()
    HostArray.__getitem__ = read  # type: ignore[method-assign]
    checkpoints.close()
    expected = beginning.weights_of(teacher)
    held = 0
    for name, array in expected.items():
        for tree in (started.state.parameters, started.state.ema, started.weights["teacher"]):
            for shard in tree[name].addressable_shards:
                np.testing.assert_array_equal(shard.data, np.asarray(array)[shard.index])
        held += sum(shard.data.nbytes for shard in tree[name].addressable_shards)
    whole = sum(array.nbytes for array in expected.values())
    file = out / f"{jax.process_index()}.json"
    file.write_text(json.dumps(seen | {"whole": whole, "held": held}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
