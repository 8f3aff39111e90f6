"""Kills many short trainings at awkward moments and asks whether anything was lost.

    python benchmarks/kill_campaign.py [--kills 30] [--stops 5] [--truncated 5] [--devices 5]
    python benchmarks/kill_campaign.py --bucket --kills 10 --stops 0 --truncated 0 --devices 0

A nano made tiny trains for some steps once without interruption. Then, each in a workdir of its
own: it is killed (SIGKILL) when a drawn step shows in its log, or when a checkpoint is being
written; told to stop (SIGTERM); its newest checkpoint is cut in half between two lives; or it goes
on with fewer devices, 8, then 4, then 2. Every run is resumed until it is done. On the same
devices parameters, EMA and optimizer must be the uninterrupted run's bit for bit; on others every
step's loss must be the uninterrupted eight-device run's to 1e-5, and every row's pictures, noise
and timestep, hashed as they lie on the devices, the same. With --bucket all workdirs lie in a
bucket, on a server of Google's protocol on loopback that keeps it in memory.
"""

import argparse
import contextlib
import datetime
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np

from tests.bucket import bucket_environment
from tests.training.processes import finish, rows, start, wait_for_line, wait_for_step
from tests.training.test_errors import truncate
from tests.training.test_resume import checkpoint_steps, saved_state
from vosr_jax.files import is_remote, to_path
from vosr_jax.weights.checkpoint_files import finished_steps, unfinished_folders

STEPS, EVERY = 24, 4
OPTIONS = (
    f"--config.train.total_steps={STEPS}",
    f"--config.train.checkpoint_every={EVERY}",
    "--config.train.batch_size=8",
)
# For a save to begin, and for a run to end on a busy machine.
SECONDS, PATIENCE = 120, 1800


def on(devices: int) -> dict[str, str]:
    """The environment of a process with so many simulated devices."""
    return {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}


def witness_of(workdir: Path) -> Path:
    """What a watched run's rows were."""
    return workdir.with_name(workdir.name + ".witness")


def begin(workdir: Path, cache: Path, devices: int = 1, *, watched: bool = False):
    """Start or resume a run."""
    mesh = "--config.mesh.fsdp=-1"
    witness = witness_of(workdir) if watched else None
    return start(workdir, cache, *OPTIONS, mesh, environment=on(devices), witness=witness)


def complete(workdir: Path, cache: Path, devices: int = 1, *, watched: bool = False) -> None:
    """Resume until done."""
    code, said = finish(begin(workdir, cache, devices, watched=watched), PATIENCE)
    if code:
        raise RuntimeError(said[-2000:])


def wait_for_a_save(process, workdir: Path) -> None:
    """Until a checkpoint is half written, or the run is over."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if is_remote(workdir) and unfinished_folders(workdir):
            return
        if not is_remote(workdir) and any((workdir / "checkpoints").glob("*-checkpoint-tmp*")):
            return
        time.sleep(0.0005)


def wait_until(process, workdir: Path, step: int) -> int:
    """Until a step is done; which was seen last."""
    if not is_remote(workdir):
        return wait_for_step(process, workdir, step)
    wait_for_line(process, f"step {step}/")
    return step


def differing(one: Path, other: Path) -> list[str]:
    """Names of arrays that are not the same bit for bit."""
    trees = [jax.tree_util.tree_leaves_with_path(saved_state(path, STEPS)) for path in (one, other)]
    return [
        jax.tree_util.keystr(path)
        for (path, value), (_, twin) in zip(*trees, strict=True)
        if not np.array_equal(value, twin)
    ]


def killed(workdir: Path, cache: Path, draw: random.Random, *, in_a_save: bool) -> str:
    """A run that is killed once; where."""
    process = begin(workdir, cache)
    step = wait_until(process, workdir, draw.randrange(1, STEPS - EVERY))
    if in_a_save:
        wait_for_a_save(process, workdir)
    process.send_signal(signal.SIGKILL)
    finish(process)
    seen = max((row["step"] for row in rows(workdir)), default=step)
    left = finished_steps(to_path(workdir))
    complete(workdir, cache)
    return f"killed {'in a save ' if in_a_save else ''}at step {seen}, checkpoints {left}"


def stopped(workdir: Path, cache: Path, draw: random.Random) -> str:
    """A run that is told to stop; it must leave with 0 and a checkpoint of its last step."""
    process = begin(workdir, cache)
    wait_until(process, workdir, draw.randrange(1, STEPS - EVERY))
    process.send_signal(signal.SIGTERM)
    code, said = finish(process, PATIENCE)
    last = max(row["step"] for row in rows(workdir))
    if code or last != max(checkpoint_steps(workdir)):
        raise RuntimeError(f"exit code {code}: {said[-1000:]}")
    complete(workdir, cache)
    return f"stopped at step {last}"


def cut(workdir: Path, cache: Path, draw: random.Random) -> str:
    """A killed run whose newest checkpoint is damaged."""
    process = begin(workdir, cache)
    wait_for_step(process, workdir, draw.randrange(2 * EVERY + 2, STEPS - EVERY))
    # One must be left to go back to.
    while len(checkpoint_steps(workdir)) < 2 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    finish(process)
    newest = max(checkpoint_steps(workdir))
    truncate(workdir / "checkpoints" / str(newest))
    complete(workdir, cache)
    if not (workdir / "checkpoints" / f"{newest}.damaged").exists():
        raise RuntimeError(f"the damaged checkpoint {newest} was not set aside")
    return f"checkpoint {newest} cut in half"


def fewer(workdir: Path, cache: Path, draw: random.Random) -> str:
    """A run on 8, then 4, then 2 devices."""
    steps = []
    for devices in (8, 4):
        process = begin(workdir, cache, devices, watched=True)
        seen = max((row["step"] for row in rows(workdir)), default=0)
        steps.append(wait_for_step(process, workdir, seen + draw.randrange(4, 8)))
        process.send_signal(signal.SIGTERM)
        finish(process)
    complete(workdir, cache, 2, watched=True)
    return f"8 devices to step {steps[0]}, 4 to {steps[1]}, then 2"


def row_hashes(workdir: Path) -> dict[int, set[tuple[str, ...]]]:
    """By index, what was seen of it: one, unless a life made it otherwise."""
    seen: dict[int, set[tuple[str, ...]]] = {}
    # A killed life leaves its last line unfinished.
    for line in witness_of(workdir).read_text().splitlines():
        row = json.loads(line) if line.endswith("}") else {}
        if "index" in row:
            seen.setdefault(row["index"], set()).add(tuple(row["hashes"]))
    return seen


def losses(workdir: Path) -> np.ndarray:
    """By step, the latest row of each."""
    by_step = {row["step"]: row["loss"] for row in rows(workdir) if "loss" in row}
    return np.array([by_step[step] for step in sorted(by_step)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind, number in (("kills", 30), ("stops", 5), ("truncated", 5), ("devices", 5)):
        parser.add_argument(f"--{kind}", type=int, default=number)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bucket", action="store_true", help="workdirs in a bucket on loopback")
    o = parser.parse_args()
    draw = random.Random(o.seed)
    kinds = {
        "killed": (o.kills, lambda path, cache, i: killed(path, cache, draw, in_a_save=i % 2 == 1)),
        "stopped": (o.stops, lambda path, cache, i: stopped(path, cache, draw)),
        "truncated": (o.truncated, lambda path, cache, i: cut(path, cache, draw)),
        "devices": (o.devices, lambda path, cache, i: fewer(path, cache, draw)),
    }
    if o.bucket and (o.truncated or o.devices):
        parser.error("--bucket goes with --truncated 0 --devices 0")
    failed = 0
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        root, cache = Path(folder), Path(folder) / "cache"
        if o.bucket:
            root = to_path(stack.enter_context(bucket_environment(Path(folder) / "bucket")))
        complete(root / "whole", cache)
        if o.devices:
            complete(root / "eight", cache, 8, watched=True)
        for kind, (number, run) in kinds.items():
            same = 0
            for i in range(number):
                path = root / f"{kind}{i}"
                where = run(path, cache, i)
                if kind == "devices":
                    wrong = np.abs(losses(path) / losses(root / "eight") - 1).max()
                    whole, others = row_hashes(root / "eight"), row_hashes(path)
                    same_rows = whole == others and all(len(one) == 1 for one in whole.values())
                    fine = wrong < 1e-5 and same_rows
                    told = f"losses differ by {wrong:.1e}, {len(others)} rows "
                    told += "the same" if same_rows else "NOT the same"
                else:
                    names = differing(root / "whole", path)
                    fine, told = not names, f"{len(names)} arrays differ {names[:2]}"
                same += fine
                print(f"{kind} {i}: {where}; {told}", flush=True)
            print(f"== {kind}: {same} of {number}", flush=True)
            failed += number - same
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, jax {jax.__version__}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
