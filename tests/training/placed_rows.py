"""One of two processes whose devices lie mixed in the mesh; prints what it has as JSON.

python -m tests.training.placed_rows DATA FSDP TENSOR, with the variables of `distributed.join`.
"""

import json
import sys

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from tests.training.hooked import reorder
from vosr_jax.data.samples import BadRecord
from vosr_jax.training.data_failures import Board
from vosr_jax.training.distributed import join
from vosr_jax.training.placing import process_rows, put_batch, put_notes
from vosr_jax.training.processes import compiled_together
from vosr_jax.training.sharding import make_mesh

ROWS = 8


def main() -> None:
    join()
    own = jax.process_index()
    reorder([2, 0, 3, 1])
    mesh = make_mesh(*map(int, sys.argv[1:4]))
    rows = process_rows(mesh, ROWS, own)
    # Row r holds r, r + 100, ...: what the whole batch holds there.
    whole = np.arange(ROWS)[:, None] + 100 * np.arange(3)
    batch = put_batch({"x": whole[rows].astype(np.int32)}, mesh)
    notes = put_notes(np.array([1 + own, 5], np.int32), mesh)
    everywhere = NamedSharding(mesh, P())
    program = jax.jit(lambda x, n: (x, n.sum(0)), out_shardings=everywhere)
    program = compiled_together(program.lower(batch["x"], notes).compile)
    seen, summed = jax.device_get(program(batch["x"], notes))

    board = Board()
    board.name([BadRecord("source", f"{own}.png", "cut short")])
    if own == 1:
        board.fail("the disk is gone")
    client = jax._src.distributed.global_state.client
    client.wait_at_barrier("told", 60_000)
    if own == 0:
        board.fail("too late")
    named = sorted(record.record for record in board.named()) if own == 0 else []
    result = {
        "rows": rows.tolist(),
        "right": bool((seen == whole).all()),
        "notes": summed.tolist(),
        "failure": board.failure(),
        "named": named,
        "left": len(board.named()) if own == 0 else 0,
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
