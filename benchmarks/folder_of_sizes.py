"""Pictures of twenty sizes: how many programs are compiled, and what a picture takes.

    python benchmarks/folder_of_sizes.py [MODEL ...] [--count 20] [--scale 4]

Without a model: nano-onestep and the tiny releases of the tests' goldens. A process restores
crops of the held-out photographs, each of another size; another process as many of one size with
the same number of pixels. Every process begins with an empty cache folder. A figure of programs
counts what XLA compiled after the first picture.
"""

import argparse
import collections
import datetime
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
RELEASES = ROOT / "tests" / "goldens" / "pipeline" / "preset" / "ckpts"
# By the names of compiled functions; those of earlier commits are here too, to compare with them.
DENOISER = ("_velocity", "_shared", "_precompute")
AUTOENCODER = ("_encode", "_decode", "_compute", "_absorb")


class Compilations(logging.Handler):
    """Names of the functions that XLA compiled."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """One line of JAX's log."""
        text = record.getMessage()
        if text.startswith("Finished XLA compilation of"):
            self.names.append(text.split()[4].removeprefix("jit(").removesuffix(")"))

    def counts(self) -> dict[str, int]:
        """How many of which part so far."""
        parts = collections.Counter(map(_part, self.names))
        return {part: parts[part] for part in ("denoiser", "autoencoder", "small ones")}


def _part(name: str) -> str:
    if name in DENOISER:
        return "denoiser"
    return "autoencoder" if name in AUTOENCODER else "small ones"


def sizes(count: int) -> list[tuple[int, int]]:
    """Heights and widths of inputs, 96 to 320 px a side."""
    sides = np.random.default_rng(0).integers(96, 321, (count, 2))
    return [(int(height), int(width)) for height, width in sides]


def equal_size(of: list[tuple[int, int]]) -> tuple[int, int]:
    """The one size of as many pixels on average."""
    side = round(float(np.sqrt(np.mean([height * width for height, width in of]))))
    return side, side


def measure(model: str, given: list[tuple[int, int]], scale: int) -> dict:
    """What this process compiles and takes for pictures of these sizes."""
    import jax
    from PIL import Image

    from vosr_jax import Upscaler

    compiled = Compilations()
    jax.config.update("jax_log_compiles", True)
    for name in ("jax._src.dispatch", "jax._src.interpreters.pxla"):
        logger = logging.getLogger(name)
        logger.addHandler(compiled)
        logger.propagate = False
    photographs = sorted((ROOT / "assets" / "heldout").glob("*.png"))
    upscaler = Upscaler.from_pretrained(model)
    seconds = []
    for number, (height, width) in enumerate(given):
        photograph = Image.open(photographs[number % len(photographs)]).convert("RGB")
        picture = photograph.resize((width, height))
        begin = time.perf_counter(), time.process_time()
        upscaler(picture, scale=scale)
        seconds.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
        if number == 0:
            first = compiled.counts()
    later = {part: count - first[part] for part, count in compiled.counts().items()}
    clock, processors = np.mean(seconds[1:], axis=0)
    return {"first": seconds[0][0], "clock": clock, "cpu": processors, "compiled": later}


def in_a_process(model: str, given: list[tuple[int, int]], scale: int) -> dict:
    """The same in a new process with an empty cache folder."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"VOSR_CACHE": cache}
        command = [sys.executable, __file__, "--one", json.dumps([model, given, scale])]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print one table and its machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.one:
        print(json.dumps(measure(*json.loads(o.one))))
        return
    releases = sorted(str(path) for path in RELEASES.glob("VOSR*"))
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    many = sizes(o.count)
    equal = [equal_size(many)] * o.count
    print(
        f"{datetime.date.today()}, {cores} cores, load {load:.1f}; {o.count} pictures, x{o.scale}"
    )
    print(
        "\n| model | compiled after the first picture: denoiser, autoencoder, small ones |", end=""
    )
    print(" first picture | a picture | of equal sizes | ratio | of CPU seconds |")
    print("|---|---|---|---|---|---|---|")
    for model in o.models or ["nano-onestep", *releases]:
        ours, same = (in_a_process(model, given, o.scale) for given in (many, equal))
        counts = ", ".join(str(count) for count in ours["compiled"].values())
        ratios = (ours[kind] / same[kind] for kind in ("clock", "cpu"))
        print(f"| {Path(model).name} | {counts} | {ours['first']:.1f} s |", end="")
        print(f" {ours['clock']:.2f} s | {same['clock']:.2f} s |", end="")
        print(" | ".join(f" {ratio:.2f}" for ratio in ratios) + " |", flush=True)


if __name__ == "__main__":
    main()
