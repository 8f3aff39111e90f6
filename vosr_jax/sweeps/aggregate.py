"""A table and a plot of a sweep's finished trials."""

import json
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from vosr_jax.errors import UserError
from vosr_jax.evaluation.plots import figure
from vosr_jax.evaluation.scores import Mean
from vosr_jax.files import to_path, write_text
from vosr_jax.sweeps.running import finished
from vosr_jax.sweeps.score import at_psnr, figures_of
from vosr_jax.sweeps.trials import Sweep, differences

_RESAMPLES = 4000
# The key that only repeats a trial.
_SEED = "seed"

# Marker, line and size of the first override's values.
_STYLES = [("o", "-", 4), ("^", "--", 4), ("*", ":", 11), ("D", "-.", 4)]

Figures = list[dict[str, Any]]
Arm = tuple[tuple[str, Any], ...]


def gather(sweep: Sweep, workdir: str | os.PathLike, tell: Callable[[str], None] = print) -> str:
    """Score the finished trials and write results.json, table.md and plot.svg into the workdir.

    A trial whose folder was trained with another config is left out, and the table says so.

    Trials that differ only in the seed form one arm. A sweep file may set REFERENCE, the overrides
    of the arm at whose PSNR all arms are compared, and COMPARISONS, pairs of overrides of the arms
    to compare.

    Args:
      sweep: from `load_sweep`.
      workdir: of `vosr sweep run`.
      tell: takes one line of progress.

    Returns:
      The table.

    Raises:
      UserError: no trial is finished, or a checkpoint cannot be read.
    """
    arms: dict[Arm, dict[Any, Figures]] = {}
    missing, others = [], {}
    for number, trial in enumerate(sweep.trials, 1):
        differing = differences(trial, workdir)
        if differing:
            others[trial.name] = differing
            continue
        if not finished(trial, workdir):
            missing.append(trial.name)
            continue
        tell(f"{number}/{len(sweep.trials)} {trial.name}")
        arm = tuple((k, v) for k, v in trial.overrides.items() if k != _SEED)
        seed = trial.overrides.get(_SEED, trial.config.seed)
        arms.setdefault(arm, {})[seed] = figures_of(trial, workdir)
    if not arms and others:
        name, differing = next(iter(others.items()))
        raise UserError(
            f"{to_path(workdir) / name} was trained with another config "
            f"({', '.join(differing)}), and no other trial is finished; gather with the settings "
            "of `vosr sweep run`"
        )
    if not arms:
        raise UserError(f"{workdir}: no trial is finished; `vosr sweep run` comes first")
    table = table_of(sweep, arms)
    if missing:
        table += f"\n{len(missing)} trials are not finished: {', '.join(missing)}\n"
    for name, differing in others.items():
        table += f"\n{name} is left out, it was trained with another config: "
        table += f"{', '.join(differing)}\n"
    results = [
        {"overrides": dict(arm), "seeds": {str(seed): rows for seed, rows in seeds.items()}}
        for arm, seeds in arms.items()
    ]
    told = {"arms": results, "missing": missing, "others": others}
    home = to_path(workdir)
    write_text(home / "results.json", json.dumps(told) + "\n")
    write_text(home / "table.md", table)
    write_text(home / "plot.svg", _plot(arms))
    return table


def table_of(sweep: Sweep, arms: dict[Arm, dict[Any, Figures]]) -> str:
    """Every arm at its scale nearest to 1, then the sweep's comparisons at equal PSNR."""
    lines = [
        "| arm | seeds | s | PSNR RGB (dB) | LPIPS AlexNet |",
        "|---|---|---|---|---|",
    ]
    for arm, seeds in arms.items():
        scale, rows = _plain(seeds)
        decibels = interval({seed: _column(f, "psnr") for seed, f in rows.items()}, rows)
        distance = interval({seed: _column(f, "lpips") for seed, f in rows.items()}, rows)
        lines.append(
            f"| {_label(arm)} | {len(seeds)} | {scale:g} | {_cell(decibels, '.2f')} | "
            f"{_cell(distance, '.4f')} |"
        )
    lines += _comparisons(sweep, arms)
    return "\n".join(lines) + "\n"


def _comparisons(sweep: Sweep, arms: dict[Arm, dict[Any, Figures]]) -> list[str]:
    reference = _arm(sweep, "REFERENCE")
    wanted = getattr(sweep.module, "COMPARISONS", ())
    if not wanted:
        return []
    lines = [
        "",
        "Differences of LPIPS, first less second, so below zero the first is better; mean and 95% "
        "interval over photographs and seeds.",
        "",
        "| first | second | at s = 1 | at equal PSNR | scales there | PSNR there (dB) |",
        "|---|---|---|---|---|---|",
    ]
    for first, second in wanted:
        a, b = (_found(arms, overrides) for overrides in (first, second))
        if a is None or b is None or reference is None or _found(arms, reference) is None:
            continue
        seeds = sorted(arms[a].keys() & arms[b].keys() & arms[_found(arms, reference)].keys())
        if not seeds:
            continue
        base = {s: _mean_psnr(_plain(arms[_found(arms, reference)])[1][s]) for s in seeds}
        plain = {
            s: _difference(
                _column(_plain(arms[a])[1][s], "lpips"), _column(_plain(arms[b])[1][s], "lpips")
            )
            for s in seeds
        }
        at = {arm: {s: at_psnr(arms[arm][s], base[s]) for s in seeds} for arm in (a, b)}
        equal = {s: _difference(at[a][s][0], at[b][s][0]) for s in seeds}
        rows = {s: arms[a][s] for s in seeds}
        scales = " / ".join(f"{np.mean([v[1] for v in at[x].values()]):.2f}" for x in (a, b))
        decibels = " / ".join(f"{np.mean([v[2] for v in at[x].values()]):.2f}" for x in (a, b))
        lines.append(
            f"| {_label(a)} | {_label(b)} | {_cell(interval(plain, rows), '+.4f')} | "
            f"{_cell(interval(equal, rows), '+.4f')} | {scales} | {decibels} |"
        )
    return lines


def interval(values: dict[Any, dict[str, float]], rows: dict[Any, Figures]) -> Mean:
    """Mean over seeds and pairs, with a 95% interval from resampled photos and seeds.

    Args:
      values: {seed: {pair: number}}, the same pairs for all seeds.
      rows: {seed: figures}, which name each pair's photo.
    """
    seeds = sorted(values)
    photograph = {row["name"]: row["photograph"] for row in rows[seeds[0]]}
    names = sorted(photograph)
    groups = sorted(set(photograph.values()))
    index = np.array([groups.index(photograph[name]) for name in names])
    table = np.array([[values[seed][name] for name in names] for seed in seeds])
    means = np.stack([table[:, index == g].mean(1) for g in range(len(groups))], 1)
    rng = np.random.default_rng(0)
    by_seed = rng.integers(0, len(seeds), (_RESAMPLES, len(seeds)))
    by_group = rng.integers(0, len(groups), (_RESAMPLES, len(groups)))
    drawn = means[by_seed[:, :, None], by_group[:, None, :]].mean((1, 2))
    low, high = np.percentile(drawn, [2.5, 97.5])
    mean = math.fsum(means.ravel()) / means.size
    return Mean(mean, float(low), float(high), table.size)


def _plain(seeds: dict[Any, Figures]) -> tuple[float, dict[Any, Figures]]:
    """(the scale nearest to 1, {seed: figures there})."""
    scale = min({row["scale"] for row in next(iter(seeds.values()))}, key=lambda s: abs(s - 1))
    return scale, {s: [row for row in f if row["scale"] == scale] for s, f in seeds.items()}


def _column(figures: Figures, key: str) -> dict[str, float]:
    return {row["name"]: row[key] for row in figures}


def _mean_psnr(figures: Figures) -> float:
    return math.fsum(row["psnr"] for row in figures) / len(figures)


def _difference(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    return {name: a[name] - b[name] for name in a}


def _arm(sweep: Sweep, name: str) -> dict[str, Any] | None:
    return getattr(sweep.module, name, None)


def _found(arms: dict[Arm, Any], overrides: dict[str, Any]) -> Any:
    """The arm with these overrides, or None."""
    return next((arm for arm in arms if dict(arm) == overrides), None)


def _label(arm: Arm) -> str:
    return ", ".join(f"{key.split('.')[-1]} {value}" for key, value in arm) or "all"


def _cell(mean: Mean, spec: str) -> str:
    return f"{format(mean.mean, spec)} [{format(mean.low, spec)}, {format(mean.high, spec)}]"


def _plot(arms: dict[Arm, dict[Any, Figures]]) -> str:
    """Plot LPIPS against PSNR along the guidance scale, one line per arm.

    The marker shows the first override, the colour all others together.
    """
    heads = list(dict.fromkeys(arm[:1] for arm in arms))
    rests = list(dict.fromkeys(arm[1:] for arm in arms))
    with figure(size=(8.0, 5.0)) as (axes, save):
        for arm, seeds in arms.items():
            scales = sorted({row["scale"] for rows in seeds.values() for row in rows})
            points = [
                [
                    np.mean([r[key] for f in seeds.values() for r in f if r["scale"] == scale])
                    for key in ("psnr", "lpips")
                ]
                for scale in scales
            ]
            x, y = zip(*points, strict=True)
            marker, dashes, size = _STYLES[heads.index(arm[:1]) % len(_STYLES)]
            colour = f"C{rests.index(arm[1:]) % 10}"
            axes.plot(x, y, marker=marker, ls=dashes, ms=size, lw=1, color=colour)
        axes.set_xlabel("PSNR RGB (dB) →")
        axes.set_ylabel("← LPIPS AlexNet")
        for number, head in enumerate(heads):
            marker, dashes, size = _STYLES[number % len(_STYLES)]
            axes.plot([], [], marker=marker, ls=dashes, ms=size, color="0.3", label=_label(head))
        for number, rest in enumerate(rests if any(rests) else ()):
            axes.plot([], [], "s", ms=6, color=f"C{number % 10}", label=_label(rest))
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        return save()
