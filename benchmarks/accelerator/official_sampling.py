"""The official 0.5B network on the same device, under torch.compile in bfloat16.

    python -m benchmarks.accelerator.official_sampling OUT.json FOLDER [--python PYTHON] [--dry]

FOLDER is a checkout of the official repository. Its network alone is timed, as `denoise_ms` of ours
is; autoencoder and DINOv2 are other packages' there.
"""

import argparse
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.accelerator.record import Record
from benchmarks.accelerator.restorers import STEPS
from benchmarks.official_process import Official

_GIB = 2**30


def figures(official: Official, steps: int, guided: bool) -> dict[str, Any]:
    """Median of five runs after one that compiles."""
    official.ask("sample", steps=1, guided=guided)
    answers = [official.ask("sample", steps=steps, guided=guided) for _ in range(5)]
    peak = answers[-1]["peak"] / _GIB
    times = [1000 * answer["clock"] for answer in answers]
    return {"denoise_ms": statistics.median(times), "peak_gib": peak or None}


def main() -> None:
    """Write one figure a batch and number of steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default=sys.executable, help="one that has torch and einops")
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    record = Record(options.out)
    dry = options.dry
    settings = {"side": 64, "depth": 28, "width": 1024, "heads": 16, "tokens": 1024}
    if dry:
        settings = {"side": 8, "depth": 1, "width": 64, "heads": 2, "tokens": 16}
    for rows in (1,) if dry else (1, 8):
        official = Official(
            "sampling_official.py",
            options.python,
            options.folder,
            **settings,
            rows=rows,
            token_width=768,
            threads=1 if dry else 0,
            gpu=not dry,
            compiled=not dry,
        )
        for title, steps, guided in (
            (f"{STEPS} guided steps", 2 if dry else STEPS, True),
            ("one step", 1, False),
        ):
            name = f"official 0.5B, {title}, {settings['side'] * 8} px, batch {rows}, bfloat16"
            record.measure(name, partial(figures, official, steps, guided))
        official.close()


if __name__ == "__main__":
    main()
