"""Draw a run's curve: loss, and the EMA's LPIPS on fixed pairs over the input's where it was taken.

    python benchmarks/curve.py OUT.png WORKDIR [WORKDIR ...]

Several workdirs, the stages of one training, are put one after another. Needs matplotlib.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np


def read(workdirs: list[Path]) -> tuple[list[dict], list[int]]:
    """All rows with steps counted on through the stages, and where each stage ends."""
    rows, ends, offset = [], [], 0
    for workdir in workdirs:
        path = workdir / "metrics.jsonl" if workdir.is_dir() else workdir
        stage = [json.loads(line) for line in path.read_text().splitlines()]
        rows += [row | {"step": row["step"] + offset} for row in stage]
        offset = rows[-1]["step"]
        ends.append(offset)
    return rows, ends


def main(out: Path, workdirs: list[Path]) -> None:
    """Write the picture."""
    rows, ends = read(workdirs)
    # A run that was killed wrote the steps after its checkpoint twice; the later row counts.
    losses = sorted({row["step"]: row["loss"] for row in rows if "loss" in row}.items())
    key = "eval_lpips_over_input"
    ratios = sorted({row["step"]: row[key] for row in rows if key in row}.items())
    panels = 2 if ratios else 1
    figure, drawn = plt.subplots(1, panels, figsize=(9, 3), layout="constrained", squeeze=False)
    left, right = drawn[0, 0], drawn[0, -1]
    steps, values = np.array(losses).T
    smooth = np.convolve(np.pad(values, 4, mode="edge"), np.ones(9) / 9, mode="valid")
    left.plot(steps, values, color="0.8", linewidth=0.8)
    left.plot(steps, smooth, color="tab:blue")
    left.set(xlabel="step", ylabel="loss", ylim=(0, np.quantile(values, 0.98)))
    if ratios:
        right.plot(*np.array(ratios).T, marker="o", markersize=3, color="tab:blue")
        right.set(xlabel="step", ylabel="LPIPS / input's LPIPS")
    for axes in drawn[0]:
        axes.spines[["top", "right"]].set_visible(False)
        for end in ends[:-1]:
            axes.axvline(end, color="0.6", linestyle=":", linewidth=1)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python benchmarks/curve.py OUT.png WORKDIR [WORKDIR ...]")
    main(Path(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]])
