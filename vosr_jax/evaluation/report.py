"""What eval.py leaves behind: results.json, table.md and side-by-side pictures."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vosr_jax.data.validation import Pair
from vosr_jax.evaluation.benchmark import bicubic, summarize
from vosr_jax.restoration.picture import write_picture

_COLUMNS = {
    "psnr": ("PSNR RGB (dB)", ".2f"),
    "ssim": ("SSIM RGB", ".4f"),
    "lpips": ("LPIPS (AlexNet)", ".4f"),
    "lpips_ratio": ("LPIPS over bicubic's", ".3f"),
    "lpips_of_mean": ("LPIPS of the samples' mean", ".4f"),
    "diversity": ("samples' deviation (of 255)", ".2f"),
    "colour_shift": ("colour shift (of 255)", ".2f"),
    "laplacian_ratio": ("Laplacian variance over truth's", ".3f"),
    "patch_grid_ratio": ("patch grid over truth's", ".3f"),
    "seconds": ("seconds a picture, compiling included", ".2f"),
}


def summary_of(runs: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Means of every run, with LPIPS over that of the run named "bicubic"."""
    means = {name: summarize(rows) for name, rows in runs.items()}
    for values in means.values():
        values["lpips_ratio"] = values["lpips"] / means["bicubic"]["lpips"]
    return means


def write_results(
    folder: Path, runs: Mapping[str, Sequence[dict[str, Any]]], about: dict[str, Any]
) -> str:
    """Write results.json and table.md.

    Args:
      folder: exists.
      runs: {name of the run: one row a picture}, "bicubic" among them.
      about: model, config and whatever else the figures depend on.

    Returns:
      The table.
    """
    means = summary_of(runs)
    results = {"about": about | {"versions": versions()}, "means": means, "pictures": runs}
    _write_text(folder / "results.json", json.dumps(results, indent=1) + "\n")
    table = table_of(means)
    pictures = len(next(iter(runs.values())))
    intro = f"{about['model']}, {pictures} pictures, means over the pictures.\n\n"
    _write_text(folder / "table.md", intro + table)
    return table


def table_of(means: dict[str, dict[str, float]]) -> str:
    """A Markdown table with a row a run."""
    present = [key for key in _COLUMNS if any(key in values for values in means.values())]
    lines = ["| run | " + " | ".join(_COLUMNS[key][0] for key in present) + " |"]
    lines.append("|---" * (len(present) + 1) + "|")
    for name, values in means.items():
        cells = [format(values[key], _COLUMNS[key][1]) if key in values else "" for key in present]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_side_by_side(folder: Path, pair: Pair, restored: np.ndarray) -> None:
    """One picture: input (pixels repeated), bicubic, ours, truth."""
    height, width = pair.hr.shape[:2]
    nearest = Image.fromarray(pair.lr).resize((width, height), Image.Resampling.NEAREST)
    row = np.concatenate([np.asarray(nearest), bicubic(pair), restored, pair.hr], axis=1)
    write_picture(Image.fromarray(row), folder / f"{pair.name}.png")


def versions() -> dict[str, str]:
    """What the figures were computed with."""
    import jax

    import vosr_jax

    return {
        "vosr_jax": vosr_jax.__version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "pillow": Image.__version__,
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
    }


def _write_text(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    os.replace(part, path)
