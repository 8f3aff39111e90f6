"""The whole pipeline: from JPEG files on disk to ready batches, by workers, and a million records.

    python benchmarks/pipeline.py rates     # pairs/s with 0, 1 and 2 workers, waits of a consumer
    python benchmarks/pipeline.py million   # start-up and memory over 2,000 batches

`rates` takes the median of several rounds, in each of which every number of workers has its
turn, so that other programs on the machine disturb all alike; the load is printed beside it.
"""

import argparse
import dataclasses
import itertools
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from vosr_jax.data.pictures import read_picture
from vosr_jax.data.pipeline import PipelineSettings, batches
from vosr_jax.data.scikit_image_photos import scikit_image_photographs

RECORDS = 1_000_000


def write_jpegs(folder: Path, count: int, width: int = 1600, height: int = 1200) -> None:
    """Photographs of a camera's usual quality: scikit-image's, enlarged to two megapixels."""
    pictures = [read_picture(path) for path in scikit_image_photographs()]
    for number in range(count):
        picture = Image.fromarray(pictures[number % len(pictures)])
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        picture = picture.transpose(Image.Transpose(number // len(pictures) % 4))
        picture.save(folder / f"{number:04d}.jpg", quality=92)


def rate(settings: PipelineSettings, seconds: float) -> tuple[float, float]:
    """(pairs/s by the clock, processor seconds of all processes a pair), once all workers run."""
    with batches(settings) as own:
        # What was made ahead does not count.
        for _ in range(2 + 4 * max(settings.workers, 1)):
            next(own)
        began, cpu, pairs = time.monotonic(), cpu_seconds(), 0
        while time.monotonic() - began < seconds:
            pairs += len(next(own)["index"])
        spent = time.monotonic() - began
        return pairs / spent, (cpu_seconds() - cpu) / pairs


def cpu_seconds() -> float:
    """Of this process and its workers."""
    ticks = 0.0
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return ticks + time.process_time()


def rates(options: argparse.Namespace) -> None:
    """Print pairs/s by number of workers."""
    with tempfile.TemporaryDirectory() as folder:
        write_jpegs(Path(folder), 24)
        for side in options.crops:
            base = PipelineSettings(
                sources=folder, crop_size=side, batch_size=options.batch, cache_bytes=0
            )
            found: dict[int, list[tuple[float, float]]] = {w: [] for w in options.workers}
            for _, workers in itertools.product(range(options.rounds), options.workers):
                settings = dataclasses.replace(base, workers=workers)
                found[workers].append(rate(settings, options.seconds))
            print(f"\n{side}x{side} from 1600x1200 JPEG files, load {os.getloadavg()[0]:.1f}")
            print("| workers | pairs/s, median | of the rounds | processor seconds a pair |")
            print("|---|---|---|---|")
            for workers, runs in found.items():
                clock, cpu = zip(*runs, strict=True)
                listed = ", ".join(f"{one:.1f}" for one in clock)
                print(
                    f"| {workers} | {statistics.median(clock):.1f} | {listed} "
                    f"| {statistics.median(cpu):.4f} |"
                )
            if 1 in found and 2 in found:
                ratios = [b[0] / a[0] for a, b in zip(found[1], found[2], strict=True)]
                print(f"2 workers over 1: {statistics.median(ratios):.2f}")


def memory(pid: int) -> float:
    """Memory in MB that a process has taken for itself, without files and what is shared."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} tells no RssAnon")


def write_list(folder: Path, records: int) -> Path:
    """A list of so many pictures, which are a few files named again and again."""
    names = []
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"picture-of-a-long-name-{number}.png")
        names.append(str(folder / f"picture-of-a-long-name-{number}.png"))
    listed = folder / "million.txt"
    listed.write_text("".join(f"{names[k % len(names)]}\n" for k in range(records)))
    return listed


def million(options: argparse.Namespace) -> None:
    """Print start-up time and memory along the run."""
    with tempfile.TemporaryDirectory() as folder:
        listed = write_list(Path(folder), RECORDS)
        settings = PipelineSettings(
            sources=str(listed), crop_size=32, batch_size=options.batch, workers=options.workers[-1]
        )
        began, cpu = time.monotonic(), time.process_time()
        with batches(settings) as own:
            opened = time.monotonic() - began
            next(own)
            first, spent = time.monotonic() - began, cpu_seconds() - cpu
            print(f"{RECORDS:,} records, {settings.workers} workers, load {os.getloadavg()[0]:.1f}")
            print(f"opened after {opened:.2f} s, first batch after {first:.2f} s")
            print(f"processor seconds of all processes until then: {spent:.2f}")
            print("| batches | MB of the program | MB of every worker |\n|---|---|---|")
            for count in range(2, options.batches + 1):
                next(own)
                if count in (100, 500) or count % 500 == 0:
                    workers = [memory(child.pid) for child in multiprocessing.active_children()]
                    listed_workers = ", ".join(f"{one:.0f}" for one in workers)
                    print(f"| {count} | {memory(os.getpid()):.0f} | {listed_workers} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("rates", "million"))
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--crops", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    {"rates": rates, "million": million}[options.what](options)


if __name__ == "__main__":
    main()
