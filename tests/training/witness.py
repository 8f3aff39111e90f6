"""train.py with a witness: python -m tests.training.witness OUT [train.py's arguments].

OUT gets a JSON line for every row of every batch as it lies on the devices: its index and hashes of
the pictures, of the noise and of the timestep that the objective draws for it; and, where the run
ends by itself, one line with how often compiled programs were found on disk and not found.
"""

import hashlib
import json
import runpy
import sys
from pathlib import Path


def main() -> None:
    import jax
    import numpy as np

    from vosr_jax.diffusion.objectives.flow_matching import draw
    from vosr_jax.training import loop

    out = Path(sys.argv[1]).open("a", buffering=1)
    events: list[str] = []
    jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
    plain = loop.device_batch

    def draws(run):
        train_step = run.train_step

        @jax.jit
        def drawn(weights, batch):
            key = jax.random.key(train_step.seed)
            inputs = train_step.frozen.inputs(weights, batch, key) | {"step": 0}
            found = draw(key, inputs, train_step.objective)
            return found["noise"], train_step.objective.time.to_t(found["time_draw"])

        return drawn

    def witnessed(batch, run):
        placed = plain(batch, run)
        if not hasattr(run, "drawn"):
            run.drawn = draws(run)
        columns = [placed["hr"], placed["lq"], *run.drawn(run.weights, placed)]
        for index, *row in zip(batch["index"], *map(np.asarray, columns), strict=True):
            hashes = [hashlib.sha256(np.ascontiguousarray(x)).hexdigest()[:16] for x in row]
            out.write(json.dumps({"index": int(index), "hashes": hashes}) + "\n")
        return placed

    loop.device_batch = witnessed
    sys.argv = ["train.py", *sys.argv[2:]]
    try:
        runpy.run_path("train.py", run_name="__main__")
    finally:
        name = "/jax/compilation_cache/cache_"
        counts = {what: events.count(name + what) for what in ("hits", "misses")}
        out.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    main()
