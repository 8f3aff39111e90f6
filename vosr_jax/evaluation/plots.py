"""Plots of the report, as SVG text that is the same in every run."""

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vosr_jax.evaluation.results import Results

_SETTINGS: Any = {
    "svg.hashsalt": "vosr_jax",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
}


def plots_of(results: Results) -> list[tuple[str, str]]:
    """(caption, SVG) of every plot that the table has points for."""
    made = (distortion_perception(results), over_steps(results), time_quality(results))
    return [plot for plot in made if plot is not None]


def distortion_perception(results: Results) -> tuple[str, str] | None:
    """LPIPS against PSNR, along the guidance scale."""
    points = _points(results, "psnr", "lpips")
    if len(points) < 2:
        return None
    with figure() as (axes, save):
        _lines(axes, points, along="guidance_scale", label="s")
        axes.set_xlabel(results.columns["psnr"][0] + " →")
        axes.set_ylabel("← " + results.columns["lpips"][0])
        return "Distortion against perception; numbers are the guidance scale s", save()


def over_steps(results: Results) -> tuple[str, str] | None:
    """LPIPS over the number of steps."""
    points = _points(results, "lpips", "lpips")
    points = [p for p in points if "steps" in p["sampler"]]
    if len({p["sampler"]["steps"] for p in points}) < 2:
        return None
    with figure() as (axes, save):
        for point in points:
            point["x"] = point["sampler"]["steps"]
        _lines(axes, points, along="steps", label="", annotate=False)
        axes.set_xlabel("steps")
        axes.set_ylabel("← " + results.columns["lpips"][0])
        return "LPIPS over the number of steps", save()


def time_quality(results: Results) -> tuple[str, str] | None:
    """LPIPS against the time per image."""
    points = _points(results, "seconds", "lpips")
    if len(points) < 2:
        return None
    with figure() as (axes, save):
        _lines(axes, points, along="steps", label="steps")
        axes.set_xscale("log")
        axes.set_xlabel(f"seconds a picture, {results.about['device']}")
        axes.set_ylabel("← " + results.columns["lpips"][0])
        return "Time against quality; numbers are steps", save()


def _points(results: Results, x: str, y: str) -> list[dict[str, Any]]:
    means = results.means
    return [
        {
            "name": outcome.method.name,
            "sampler": dict(outcome.method.sampler),
            "x": means[outcome.method.name][x].mean,
            "y": means[outcome.method.name][y],
        }
        for outcome in results.outcomes
        if {x, y} <= means[outcome.method.name].keys()
    ]


def _lines(
    axes, points: Sequence[dict[str, Any]], *, along: str, label: str, annotate: bool = True
) -> None:
    """Draw points along one setting, a line per combination of the others; peers as points."""
    series: dict[str, list[dict[str, Any]]] = {}
    samplers = [point["sampler"] for point in points if point["sampler"]]
    same = {k for k in (samplers or [{}])[0] if len({s.get(k) for s in samplers}) == 1}
    for point in points:
        others = {k: v for k, v in point["sampler"].items() if k != along and k not in same}
        told = ", ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in others.items())
        series.setdefault(told if point["sampler"] else point["name"], []).append(point)
    for name, members in series.items():
        members = sorted(members, key=lambda p: p["sampler"].get(along, 0))
        marker = "o-" if members[0]["sampler"] else "D"
        x, y = [p["x"] for p in members], [p["y"].mean for p in members]
        spread = [
            [p["y"].mean - p["y"].low for p in members],
            [p["y"].high - p["y"].mean for p in members],
        ]
        axes.errorbar(x, y, yerr=spread, fmt=marker, label=name or "model", capsize=2, lw=1.2, ms=4)
        if annotate:
            for point in members:
                if along in point["sampler"]:
                    text = f"{point['sampler'][along]:g}"
                    place = (point["x"], point["y"].mean)
                    axes.annotate(text, place, xytext=(4, 4), textcoords="offset points", size=8)
    axes.legend(fontsize=7, frameon=False)


@contextlib.contextmanager
def figure(size: tuple[float, float] = (5.4, 3.6)) -> Iterator[tuple[Any, Callable[[], str]]]:
    """Yield a figure's axes and a function that returns its SVG, with the same bytes every time.

    Args:
      size: (width, height) in inches.
    """
    # Optional: of the extra `eval`.
    import matplotlib.figure

    with matplotlib.rc_context(_SETTINGS):
        drawn = matplotlib.figure.Figure(figsize=size, layout="constrained")

        def save() -> str:
            text = io.StringIO()
            drawn.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
            return text.getvalue()[text.getvalue().index("<svg") :]

        yield drawn.add_subplot(), save
