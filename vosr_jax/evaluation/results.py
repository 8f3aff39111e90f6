"""results.json and table.md: every figure of every image, and their means."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vosr_jax.evaluation import published as published_figures
from vosr_jax.evaluation.measures import Measure
from vosr_jax.evaluation.methods import Method
from vosr_jax.evaluation.scores import Row
from vosr_jax.evaluation.summary import Mean, summarize
from vosr_jax.files import write_text

FORMAT = 2
# Columns that are not measures of a single image.
OTHER_COLUMNS = {
    "lpips_of_mean": ("LPIPS of the samples' mean", ".4f"),
    "diversity": ("deviation of the samples (of 255)", ".2f"),
    "token_similarity": ("encoder's tokens and denoiser's blocks: CKA, mean over blocks", ".3f"),
    "seconds": ("seconds a picture", ".2f"),
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
            "published": published_figures.published(self.protocol),
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
    beside = published_figures.published(results.protocol)
    if beside:
        titles = list(published_figures.COLUMNS.values())
        lines += ["", f"Published ({published_figures.SOURCE}):", ""]
        lines += ["| | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
        for name, figures in beside.items():
            cells = [f"{figures[k]:g}" if k in figures else "" for k in published_figures.COLUMNS]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [f"\nNot available: {key}: {why}" for key, why in results.unavailable.items()]
    lines += [f"\nLeft out: {name}: {why}" for name, why in results.errors().items()]
    return "\n".join(lines) + "\n"


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
