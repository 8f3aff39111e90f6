"""results.json and table.md: every figure of every image, their means, and published figures.

The published ones come from a third party's transcript of the paper (arXiv 2604.03225) and are not
computed here. Its PSNR and SSIM are on Y. It does not state whether in 16-235 or in 0-255, so they
have columns of their own.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vosr_jax.evaluation.measures import Measure
from vosr_jax.evaluation.methods import Method
from vosr_jax.evaluation.scores import Mean, Row, summarize
from vosr_jax.files import write_text

FORMAT = 2
# Columns that are not measures of a single image.
OTHER_COLUMNS = {
    "lpips_of_mean": ("LPIPS of the samples' mean", ".4f"),
    "diversity": ("deviation of the samples (of 255)", ".2f"),
    "token_similarity": ("encoder's tokens and denoiser's blocks: CKA, mean over blocks", ".3f"),
    "seconds": ("seconds a picture", ".2f"),
}
PUBLISHED_COLUMNS = {
    "psnr_y_unstated": "PSNR Y, range not stated (dB)",
    "ssim_y_unstated": "SSIM Y, range not stated",
    "lpips": "LPIPS",
    "dists": "DISTS",
    "niqe": "NIQE",
    "musiq": "MUSIQ",
    "maniqa": "MANIQA",
}
PUBLISHED_SOURCE = "third party's transcript of arXiv 2604.03225; not computed here"

_REALSR = {
    "VOSR 0.5B multi-step": (25.4361, 0.7125, 0.3069, 0.2260, 5.7070, 68.9277, 0.6429),
    "VOSR 1.4B multi-step": (25.2886, 0.7150, 0.2961, 0.2226, 6.2614, 70.4718, 0.6510),
    "VOSR 0.5B one-step": (25.4189, 0.7220, 0.2856, 0.2110, 5.2790, 69.7775, 0.6347),
    "VOSR 1.4B one-step": (25.2284, 0.7175, 0.2732, 0.2054, 5.4303, 70.5813, 0.6443),
    "PiSA-SR": (25.5030, 0.7418, 0.2672, 0.2044, 5.5033, 70.1421, 0.6551),
    "OSEDiff (its own log)": (25.1511, 0.7341, 0.2921, None, None, 69.09, None),
}
_FIGURE = {"type": "number"}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "results.json of vosr_jax's eval.py",
    "type": "object",
    "required": ["format", "date", "about", "measures", "unavailable", "runs", "published"],
    "properties": {
        "format": {"const": FORMAT},
        "date": {"type": "string"},
        "about": {
            "type": "object",
            "required": ["model", "weights_sha256", "config", "versions", "device", "samples"],
        },
        "measures": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["title", "better"],
                "properties": {
                    "title": {"type": "string"},
                    "better": {"enum": ["higher", "lower", "one", "neither"]},
                },
            },
        },
        "unavailable": {"type": "object", "additionalProperties": {"type": "string"}},
        "published": {"type": "object"},
        "runs": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "about", "means", "pictures"],
                "properties": {
                    "name": {"type": "string"},
                    "about": {"type": "object"},
                    "means": {
                        "type": "object",
                        "additionalProperties": {
                            "type": "object",
                            "required": ["mean", "low", "high", "pictures"],
                            "additionalProperties": _FIGURE,
                        },
                    },
                    "pictures": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["name", "photograph"],
                            "properties": {
                                "name": {"type": "string"},
                                "photograph": {"type": "string"},
                                "error": {"type": "string"},
                            },
                            "additionalProperties": _FIGURE,
                        },
                    },
                },
            },
        },
    },
}


@dataclass(frozen=True)
class Outcome:
    """One method and its rows."""

    method: Method
    rows: list[Row]


@dataclass(frozen=True)
class Results:
    """All content of a report.

    Attributes:
      date: the report's date.
      about: model, sha256 of its weights, config, versions, device, samples.
      measures: the columns.
      unavailable: {measure: why it is unavailable}.
      outcomes: outcomes in the table's order.
      protocol: the protocol whose published figures are shown beside ours.
    """

    date: str
    about: dict[str, Any]
    measures: Sequence[Measure]
    unavailable: dict[str, str]
    outcomes: Sequence[Outcome]
    protocol: str = "none"

    @cached_property
    def columns(self) -> dict[str, tuple[str, str]]:
        """{key: (title, number format)} of all possible columns."""
        own = {measure.key: (measure.title, measure.spec) for measure in self.measures}
        return own | OTHER_COLUMNS

    @cached_property
    def present(self) -> list[str]:
        """Keys of the columns for which any method has figures."""
        return [key for key in self.columns if any(key in v for v in self.means.values())]

    @cached_property
    def means(self) -> dict[str, dict[str, Mean]]:
        """{method: {column: mean}}."""
        return {o.method.name: summarize(o.rows, list(self.columns)) for o in self.outcomes}

    def errors(self) -> dict[str, str]:
        """{case: its error}, from the first method that failed on it."""
        found: dict[str, str] = {}
        for outcome in self.outcomes:
            for row in outcome.rows:
                if "error" in row:
                    found.setdefault(f"{row['name']} ({outcome.method.name})", row["error"])
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `SCHEMA` describes them."""
        return {
            "format": FORMAT,
            "date": self.date,
            "about": self.about,
            "measures": {m.key: {"title": m.title, "better": m.better} for m in self.measures},
            "unavailable": self.unavailable,
            "published": published(self.protocol),
            "runs": [
                {
                    "name": outcome.method.name,
                    "about": outcome.method.about,
                    "means": {
                        key: mean.to_dict() for key, mean in self.means[outcome.method.name].items()
                    },
                    "pictures": outcome.rows,
                }
                for outcome in self.outcomes
            ],
        }


def table_of(results: Results) -> str:
    """Make table.md: a row per method, with mean and 95% interval over photos."""
    means, present = results.means, results.present
    titles = [results.columns[key][0] for key in present]
    lines = ["| | " + " | ".join(titles) + " |", "|---" * (len(present) + 1) + "|"]
    for name, values in means.items():
        cells = [_cell(values.get(key), results.columns[key][1]) for key in present]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    ratios = lpips_ratios(means)
    if ratios:
        told = ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
        lines += ["", f"LPIPS over bicubic's: {told}."]
    beside = published(results.protocol)
    if beside:
        titles = list(PUBLISHED_COLUMNS.values())
        lines += ["", f"Published ({PUBLISHED_SOURCE}):", ""]
        lines += ["| | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
        for name, figures in beside.items():
            cells = [f"{figures[k]:g}" if k in figures else "" for k in PUBLISHED_COLUMNS]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [f"\nNot available: {key}: {why}" for key, why in results.unavailable.items()]
    lines += [f"\nLeft out: {name}: {why}" for name, why in results.errors().items()]
    return "\n".join(lines) + "\n"


def published(protocol: str) -> dict[str, dict[str, float]]:
    """Published {method: {column: figure}}; empty for a protocol without figures."""
    tables = {"realsr": _REALSR}
    return {
        method: {k: v for k, v in zip(PUBLISHED_COLUMNS, figures, strict=True) if v is not None}
        for method, figures in tables.get(protocol, {}).items()
    }


def lpips_ratios(means: dict[str, dict[str, Mean]]) -> dict[str, float]:
    """Ratio of every other method's LPIPS to bicubic's; empty without bicubic."""
    base = means.get("bicubic", {}).get("lpips")
    if base is None:
        return {}
    others = {n: v["lpips"].mean for n, v in means.items() if n != "bicubic" and "lpips" in v}
    return {name: value / base.mean for name, value in others.items()}


def _cell(mean: Mean | None, spec: str) -> str:
    if mean is None:
        return ""
    half = (mean.high - mean.low) / 2
    return format(mean.mean, spec) + (f" ±{format(half, spec)}" if half else "")


def write_results(folder: Path, results: Results) -> str:
    """Write results.json and table.md and return the table.

    Raises:
      UserError: the folder cannot be written.
    """
    table = table_of(results)
    about = results.about
    count = max((len(outcome.rows) for outcome in results.outcomes), default=0)
    intro = (
        f"{about['model']}, {count} pictures; means and 95% intervals over photographs. "
        f"{about['device']}, {results.date}.\n\n"
    )
    write_text(folder / "results.json", json.dumps(results.to_dict(), indent=1) + "\n")
    write_text(folder / "table.md", intro + table)
    return table
