"""What short number formats cost in grey levels on the device, at full width.

    python -m benchmarks.accelerator.grey_levels OUT.json [--dry]

The tables of benchmarks/precision.py.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

from benchmarks.accelerator.record import Record
from benchmarks.precision import autoencoders, full_width
from vosr_jax.compilation_cache import use_compilation_cache

_STREAM = 126.0


def main() -> None:
    """Write one figure a format, the 0.5B denoiser's first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    record = Record(options.out)
    record.note_machine()
    use_compilation_cache()
    tables: dict[str, Iterator[tuple[str, float, float, float]]]
    if options.dry:
        tables = {"0.5B": itertools.islice(full_width(1, 8, _STREAM), 2)}
    else:
        tables = {"0.5B": full_width(28, 64, _STREAM), "autoencoder": autoencoders(512)}
    for title, rows in tables.items():
        for name, mean, worst, seconds in rows:
            figures = {"mean": float(mean), "worst": float(worst), "ms": 1000 * seconds}
            record.note(f"grey levels, {title}, {name}", figures)


if __name__ == "__main__":
    main()
