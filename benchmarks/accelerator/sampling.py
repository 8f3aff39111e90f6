"""Milliseconds and device memory of restored pictures, through the calls that users' pictures take.

    python -m benchmarks.accelerator.sampling OUT.json KIND [--warm] [--dry]

KIND is one of `restorers.KINDS`. With --warm the programs are compiled into the cache on disk,
several at once, and nothing is measured. Otherwise batches grow from one to the next, so that the
peak of memory, of which a device has one for a whole process, is each batch's own.
"""

import argparse
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.accelerator.clock import milliseconds, peak_gib
from benchmarks.accelerator.record import Record
from benchmarks.accelerator.restorers import KINDS, Pictures, full, tiny
from vosr_jax.compilation_cache import use_compilation_cache


def figures(pictures: Pictures, rows: int) -> dict[str, Any]:
    """Of a batch: whole, the autoencoder included, and its parts."""
    whole = milliseconds(pictures.whole)
    found: dict[str, Any] = {"ms": whole, "ms_a_picture": whole / rows, "peak_gib": peak_gib()}
    return found | {f"{name}_ms": milliseconds(part) for name, part in pictures.parts().items()}


def main() -> None:
    """Write one figure a batch and precision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    record = Record(options.out)
    record.note_machine()
    use_compilation_cache()
    # A part that ran again in float32 would be timed twice.
    warnings.filterwarnings("error", message=".*float32.*gave no finite value")
    if options.dry:
        model, side, cases = tiny(options.kind), 64, [("float16", 1)]
    else:
        model, side = full(options.kind), 512
        cases = [(precision, rows) for rows in (1, 8) for precision in ("float16", "bfloat16")]

    def whole(case: tuple[str, int]) -> None:
        Pictures(model, *case, side).whole()

    def measured(precision: str, rows: int) -> dict[str, Any]:
        return figures(Pictures(model, precision, rows, side), rows)

    if options.warm:
        with ThreadPoolExecutor(len(cases)) as pool:
            list(pool.map(whole, cases))
        return
    for precision, rows in cases:
        title = f"{options.kind}, {side} px, batch {rows}, {precision}"
        record.measure(title, partial(measured, precision, rows))


if __name__ == "__main__":
    main()
