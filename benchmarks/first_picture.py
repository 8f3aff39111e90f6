"""Time to the first picture of a process: imports, and with and without compiled programs.

    python benchmarks/first_picture.py [--model nano] [--side 64] [--steps 2]

Two processes do the same with a fresh cache folder: the first compiles, the second finds the
programs on disk. Their start is the time to the first picture less that of a second picture,
which neither compiles nor loads. Three more processes only import.
"""

import argparse
import datetime
import os
import subprocess
import sys
import tempfile

_IMPORTS = """
import time
begin = time.perf_counter()
import vosr_jax
from vosr_jax import Upscaler
import vosr_jax.restoration.loading, vosr_jax.weights.export
print(time.perf_counter() - begin)
"""

_PICTURE = """
import sys, time
clocks = time.perf_counter, time.process_time
begin = [clock() for clock in clocks]
import numpy as np
from vosr_jax import Upscaler
model, side, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
upscaler = Upscaler.from_pretrained(model)
marks = [begin, [clock() for clock in clocks]]
for _ in range(2):
    upscaler(picture, scale=4, steps=steps, progress=lambda share: None)
    marks.append([clock() for clock in clocks])
for a, b, c, d in zip(*marks):
    print(b - a, c - b, d - c, c - a - (d - c))
"""


def run(program: str, *arguments: str, cache: str = "") -> list[float]:
    """The numbers that a new process prints."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")}
    if cache:
        environment["VOSR_CACHE"] = cache
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return [float(line) for line in done.stdout.split()]


def main() -> None:
    """Print one table and its machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--side", type=int, default=64, help="of the input; the result is x4")
    parser.add_argument("--steps", type=int, default=2)
    o = parser.parse_args()
    imports = sorted(run(_IMPORTS)[0] for _ in range(3))[1]
    arguments = (o.model, str(o.side), str(o.steps))
    with tempfile.TemporaryDirectory() as cache:
        first, second = (run(_PICTURE, *arguments, cache=cache) for _ in range(2))
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{datetime.date.today()}, {cores} cores, load {load:.1f}; {o.model}, ", end="")
    print(f"{o.side} px to {4 * o.side} px, {o.steps} steps\n")
    print("| | compiled anew | programs on disk | ratio |\n|---|---|---|---|")
    parts = "imports and weights", "first picture", "second picture", "start: all but a picture"
    names = [f"{part}, {unit}" for unit in ("seconds", "CPU seconds") for part in parts]
    for name, before, after in zip(names, first, second, strict=True):
        print(f"| {name} | {before:.2f} | {after:.2f} | {after / before:.2f} |")
    print(f"\nimports alone: {imports:.2f} s (median of 3)")


if __name__ == "__main__":
    main()
