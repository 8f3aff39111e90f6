"""Pairs per second of the degradation on one core, and which operation takes what share.

    OPENBLAS_NUM_THREADS=1 python benchmarks/degradation.py

Times are those of the processor, so other programs on the machine disturb them little.
"""

import collections
import platform
import sys
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from vosr_jax.data.degradation import RealESRGANSettings, sample_plan
from vosr_jax.data.photographs import HELD_OUT, scikit_image_photographs
from vosr_jax.data.pictures import read_picture

PAIRS = {128: 300, 512: 60}


def crops(side: int) -> list[np.ndarray]:
    """One crop of each held-out photograph, enlarged where it is too small."""
    found = []
    for path in scikit_image_photographs(HELD_OUT):
        picture = read_picture(path)
        shorter = min(picture.shape[:2])
        square = np.ascontiguousarray(picture[:shorter, :shorter])
        if shorter < side:
            square = cv2.resize(square, (side, side), interpolation=cv2.INTER_CUBIC)
        found.append(np.ascontiguousarray(square[:side, :side]))
    return found


def measure(side: int, pairs: int) -> tuple[float, dict[str, float]]:
    """Pairs per second of processor time, and each operation's share of it."""
    pictures = crops(side)
    seconds: collections.Counter[str] = collections.Counter()
    rng = np.random.default_rng(0)
    start = 0.0
    for number in range(-10, pairs):
        if number == 0:
            seconds.clear()
            start = time.process_time()
        hr = pictures[number % len(pictures)]
        before = time.process_time()
        plan = sample_plan(rng, side, side, RealESRGANSettings())
        seconds["sampling the plan"] += time.process_time() - before
        image = hr.astype(np.float32) / np.float32(255)
        for operation in (*plan.operations, plan.resize_back):
            before = time.process_time()
            image = operation.apply(image)
            seconds[type(operation).__name__] += time.process_time() - before
    total = time.process_time() - start
    return pairs / total, {name: spent / total for name, spent in seconds.most_common()}


def main() -> None:
    cv2.setNumThreads(1)
    print(f"{platform.processor() or platform.machine()}, one core, scale 4")
    print("| crop | pairs/s | share of the time |")
    print("|---|---|---|")
    for side, pairs in PAIRS.items():
        rate, shares = measure(side, pairs)
        listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        print(f"| {side}x{side} | {rate:.0f} | {listed} |")


if __name__ == "__main__":
    main()
