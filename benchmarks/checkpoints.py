"""What checksums of checkpoints cost, and whether a flipped bit gets past them.

    python benchmarks/checkpoints.py [--megabytes 500] [--rounds 5] [--flips 100]

A state of so many megabytes of noise is saved again and again, with and without checksums in
turn: how long the loop waits for `save`, how long until the checkpoint is committed, and how much
of that the checksums take; by the clock and in seconds of processors, which other programs on the
machine change little. Then it is verified and restored. Then bits of a small run's newest
checkpoint are flipped, one at a time, half of them in a file drawn by its size, half in any file;
each must send the run to the checkpoint before, bit for bit.
"""

import argparse
import datetime
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
from etils import epath

from tests.training.saved_states import abstract, saved_run
from tests.training.test_checksums_of_checkpoints import flips
from vosr_jax.training import checkpoint_sealing
from vosr_jax.training.checkpoints import Checkpoints
from vosr_jax.training.state import TrainState
from vosr_jax.weights.checkpoint_files import verify

_SIDE = 2048


def state_of(megabytes: int, step: int) -> TrainState:
    """Parameters, EMA and two moments of noise, which no compression makes small."""
    count = max(megabytes * 10**6 // (4 * 4 * _SIDE**2), 1)

    def arrays(seed: int) -> dict[str, jax.Array]:
        keys = jax.random.split(jax.random.key(seed), count)
        return {f"kernel{i}": jax.random.normal(k, (_SIDE, _SIDE)) for i, k in enumerate(keys)}

    optimizer = {"mu": arrays(4 * step + 2), "nu": arrays(4 * step + 3)}
    return TrainState(jnp.int32(step), arrays(4 * step), arrays(4 * step + 1), optimizer)


class Clock:
    """Seconds that sealing takes; switched off, it does nothing."""

    def __init__(self):
        self.seconds, self.processor, self.on = 0.0, 0.0, True
        self._seal = checkpoint_sealing.seal
        checkpoint_sealing.seal = self._timed

    def _timed(self, folder: epath.Path, final: epath.Path) -> None:
        began, worked = time.perf_counter(), time.process_time()
        if self.on:
            self._seal(folder, final)
        self.seconds = time.perf_counter() - began
        self.processor = time.process_time() - worked


def saved(folder: Path, state: TrainState) -> tuple[float, float, float]:
    """Seconds that the loop waits, until the checkpoint is committed, and of processors."""
    checkpoints = Checkpoints(folder)
    assert checkpoints.latest() is None
    began, worked = time.perf_counter(), time.process_time()
    checkpoints.save(state, samples_seen=0)
    waited = time.perf_counter() - began
    checkpoints.close()
    return waited, time.perf_counter() - began, time.process_time() - worked


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--flips", type=int, default=100)
    parser.add_argument("--folder", help="where to save; else a temporary folder")
    o = parser.parse_args()
    clock, state = Clock(), jax.block_until_ready(state_of(o.megabytes, 1))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    found: dict[bool, list[tuple[float, ...]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory(dir=o.folder) as folder:
        root = Path(folder)
        saved(root / "warm", state)
        for number in range(2 * o.rounds):
            clock.on = number % 2 == 0
            times = saved(root / str(number), state)
            found[clock.on].append((*times, clock.seconds, clock.processor))
        clock.on = True
        print(f"{size / 1e6:.0f} MB, {o.rounds} saves each, medians; {os.cpu_count()} cores")
        print(
            "| checksums | the loop waits, s | committed after, s | in checksums, s | share | ",
            end="",
        )
        print("processor seconds | in checksums | share |")
        print("|---|---|---|---|---|---|---|---|")
        for on, name in ((False, "no"), (True, "yes")):
            medians = [statistics.median(values) for values in zip(*found[on], strict=True)]
            waits, commits, worked, sums, own = medians
            shares = sums * on / commits, own * on / worked
            row = f"| {name} | {waits:.3f} | {commits:.2f} | {sums * on:.3f} | {shares[0]:.1%}"
            print(f"{row} | {worked:.2f} | {own * on:.3f} | {shares[1]:.1%} |")
        began = time.perf_counter()
        assert verify(epath.Path(root / "0" / "checkpoints" / "1")).kind == "whole"
        verified = time.perf_counter() - began
        began = time.perf_counter()
        jax.block_until_ready(Checkpoints(root / "0").restore(abstract(state)))
        whole = time.perf_counter() - began
        print(f"restored in {whole:.2f} s, of which {verified:.2f} s are verification")
    silent = 0
    if o.flips:
        with tempfile.TemporaryDirectory() as folder:
            run = saved_run(Path(folder) / "run")
            silent = flips(run, Path(folder) / "flipped", o.flips, seed=1)
        print(f"{o.flips} flipped bits: {silent} silent")
    print(f"{datetime.date.today()}, jax {jax.__version__}, load {os.getloadavg()[0]:.1f}")
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main())
