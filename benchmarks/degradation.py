"""Pairs per second of the degradation on one core, ours and the official one's, and the shares.

    python benchmarks/degradation.py --official DIR [--official-python PYTHON]

DIR is a checkout of the official repository (its dataloaders/ is enough); PYTHON one that has
torch, torchvision and basicsr. The official degradation runs there in a process of its own, on
the CPU with one thread and batches of one, as ours. Rounds alternate, so that other programs on
the machine disturb both alike; times are those of the processor.
"""

import argparse
import collections
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Before numpy is imported: one core each.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.pipeline import write_jpegs
from vosr_jax.data.degradation import RealESRGANSettings, sample_plan
from vosr_jax.data.pictures import read_picture
from vosr_jax.data.pipeline import PipelineSettings, batches
from vosr_jax.data.scikit_image_photos import HELD_OUT, scikit_image_photographs

PAIRS = {128: 200, 512: 30}

# Newer versions of torchvision have moved a function that basicsr 1.4.2 asks for.
OFFICIAL_PROGRAM = """
import json, sys, time, types
import numpy as np, torch
import torchvision.transforms.functional as functional
name = "torchvision.transforms.functional_tensor"
moved = types.ModuleType(name)
moved.rgb_to_grayscale = functional.rgb_to_grayscale
sys.modules.setdefault(name, moved)
sys.path.insert(0, sys.argv[1])
from dataloaders.realesrgan_gpu import RealESRGAN_degradation
torch.set_num_threads(1)
degradation = RealESRGAN_degradation("params_realsr.yml", device="cpu")
print("ready", flush=True)
for line in sys.stdin:
    path, pairs = json.loads(line)
    crops = torch.from_numpy(np.load(path)).permute(0, 3, 1, 2).float() / 255
    for number in range(-3, pairs):
        if number == 0:
            start = time.process_time()
        degradation.degrade_process(crops[number % len(crops)][None], resize_bak=True)
    print(json.dumps(time.process_time() - start), flush=True)
"""


def crops(side: int) -> np.ndarray:
    """One crop of each held-out photograph, enlarged where it is too small: [N, side, side, 3]."""
    found = []
    for path in scikit_image_photographs(HELD_OUT):
        picture = read_picture(path)
        shorter = min(picture.shape[:2])
        square = np.ascontiguousarray(picture[:shorter, :shorter])
        if shorter < side:
            square = cv2.resize(square, (side, side), interpolation=cv2.INTER_CUBIC)
        found.append(square[:side, :side])
    return np.stack(found)


def measure(pictures: np.ndarray, pairs: int, seed: int) -> tuple[float, collections.Counter]:
    """Processor seconds of so many pairs, and those of each operation among them."""
    side = pictures.shape[1]
    seconds: collections.Counter[str] = collections.Counter()
    rng = np.random.default_rng(seed)
    start = 0.0
    for number in range(-3, pairs):
        if number == 0:
            seconds.clear()
            start = time.process_time()
        before = time.process_time()
        plan = sample_plan(rng, side, side, RealESRGANSettings())
        image = pictures[number % len(pictures)].astype(np.float32) / np.float32(255)
        seconds["plan"] += time.process_time() - before
        for operation in (*plan.operations, plan.resize_back):
            before = time.process_time()
            image = operation.apply(image)
            name = type(operation).__name__
            seconds["Resize" if name.startswith("Resize") else name] += time.process_time() - before
    return time.process_time() - start, seconds


class Official:
    """The official degradation in a process of its own."""

    def __init__(self, folder: str, python: str):
        self._process = subprocess.Popen(
            [python, "-c", OFFICIAL_PROGRAM, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._read() != "ready":
            sys.exit("the official degradation does not start; see its error above")

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def measure(self, path: Path, pairs: int) -> float:
        """Processor seconds of so many pairs of the crops in a file."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(path), pairs]) + "\n")
        self._process.stdin.flush()
        return float(self._read())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def whole_pipeline(folder: str, side: int, pairs: int) -> float:
    """Processor seconds a pair, from JPEG files to a ready batch, in one process."""
    settings = PipelineSettings(sources=folder, crop_size=side, batch_size=4, cache_bytes=0)
    with batches(settings) as own:
        next(own)
        start, count = time.process_time(), 0
        while count < pairs:
            count += len(next(own)["index"])
        return (time.process_time() - start) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", metavar="DIR", help="checkout of the official repository")
    parser.add_argument("--official-python", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    official = None
    if options.official:
        official = Official(options.official, options.official_python)
    ours: dict[int, list[float]] = {side: [] for side in PAIRS}
    theirs: dict[int, list[float]] = {side: [] for side in PAIRS}
    shares: dict[int, collections.Counter] = {side: collections.Counter() for side in PAIRS}
    whole: dict[int, list[float]] = {side: [] for side in PAIRS}
    with tempfile.TemporaryDirectory() as folder:
        jpegs = Path(folder) / "jpegs"
        jpegs.mkdir()
        write_jpegs(jpegs, 16)
        for round_, (side, pairs) in itertools.product(range(options.rounds), PAIRS.items()):
            pictures, path = crops(side), Path(folder) / f"{side}.npy"
            np.save(path, pictures)
            spent, seconds = measure(pictures, pairs, round_)
            ours[side].append(spent / pairs)
            shares[side] += seconds
            if official is not None:
                few = max(pairs // 4, 5)
                theirs[side].append(official.measure(path, few) / few)
            whole[side].append(whole_pipeline(str(jpegs), side, pairs))
    if official is not None:
        official.close()
    report(ours, theirs, shares, whole)


def report(ours, theirs, shares, whole) -> None:
    """Print the tables."""
    machine = platform.processor() or platform.machine()
    print(f"{machine}, one core each, scale 4, load {os.getloadavg()[0]:.1f}\n")
    print(
        "| crop | ours, pairs/s | official, pairs/s | ratio (rounds) | from JPEG files, pairs/s |"
    )
    print("|---|---|---|---|---|")
    for side in PAIRS:
        mine = 1 / statistics.median(ours[side])
        pipeline = 1 / statistics.median(whole[side])
        other = ratio = "-"
        if theirs[side]:
            ratios = [b / a for a, b in zip(ours[side], theirs[side], strict=True)]
            other = f"{1 / statistics.median(theirs[side]):.1f}"
            ratio = f"{statistics.median(ratios):.1f} ({', '.join(f'{r:.1f}' for r in ratios)})"
        print(f"| {side}x{side} | {mine:.0f} | {other} | {ratio} | {pipeline:.1f} |")
    print("\n| crop | share of the degradation's time |\n|---|---|")
    for side, seconds in shares.items():
        total = sum(seconds.values())
        listed = ", ".join(f"{name} {spent / total:.0%}" for name, spent in seconds.most_common())
        print(f"| {side}x{side} | {listed} |")


if __name__ == "__main__":
    main()
