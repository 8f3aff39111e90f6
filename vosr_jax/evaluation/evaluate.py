"""One evaluation as run by eval.py: choice of model and samplers, and the output files."""

import datetime
import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path

import jax

from vosr_jax.config import Config
from vosr_jax.errors import UserError
from vosr_jax.evaluation.measures import chosen_measures
from vosr_jax.evaluation.methods import Method, of_model, peers
from vosr_jax.evaluation.page import page_of
from vosr_jax.evaluation.pairs import entries_of
from vosr_jax.evaluation.results import Outcome, Results, write_results
from vosr_jax.evaluation.scores import Evaluator
from vosr_jax.evaluation.token_similarity import token_figures
from vosr_jax.files import listing, make_folder, to_path, write_text
from vosr_jax.files.mirror import Mirror
from vosr_jax.restoration.fingerprint import device_names, versions, weights_sha256
from vosr_jax.restoration.upscaler import Upscaler
from vosr_jax.weights.resolve import resolve

_TOLD_EVERY = 30.0
# Most threads for peers; each holds an image and the maps computed from it.
_MOST_THREADS = 8


def run_evaluation(config: Config, workdir: str | os.PathLike) -> str:
    """Evaluate a model with every sampler of the config and write workdir/eval.

    The results are results.json, table.md and report.html. rows/ and pictures/ keep finished work,
    so the same command continues after an interruption.

    Args:
      config: its `eval` section says what to evaluate. `eval.steps`, `eval.guidance_scales` and
        `eval.weak_strengths` are tried in all combinations; an empty one means the model's own
        value.
      workdir: a training run's workdir or any folder, or its address in a bucket.

    Returns:
      The table of figures.

    Raises:
      UserError: the model or all images cannot be read, or the folder cannot be written.
    """
    with Mirror(to_path(workdir) / "eval", whole=True) as mirror:
        make_folder(mirror.folder)
        return _evaluate(config, workdir, mirror.folder)


def _evaluate(config: Config, workdir: str | os.PathLike, folder: Path) -> str:
    e = config.eval
    entries = entries_of(config)
    measures, unavailable = chosen_measures(e.metrics, e.crop_border)
    for key, why in unavailable.items():
        print(f"not available: {key}: {why}", flush=True)
    devices = jax.local_devices()
    others = peers(e.peers, min(os.cpu_count() or 1, _MOST_THREADS))
    model = choose_model(config, workdir)
    found = resolve(model, "eval.model" if config.eval.model else None)
    upscaler = Upscaler.from_pretrained(found)
    identity = {"model": model, "weights_sha256": weights_sha256(upscaler.model)}
    on_devices = [upscaler] if len(devices) == 1 else [upscaler.on(d) for d in devices]
    methods = [*others, *samplers_of(config, on_devices, identity)]
    judge = Evaluator(folder, measures, e.samples, versions())
    print(f"{model}: {len(entries)} pictures, {len(methods)} rows", flush=True)
    outcomes = []
    for method in methods:
        outcomes.append(Outcome(method, judge.evaluate(method, entries, _Progress(method.name))))
    errors = {row["name"]: row["error"] for o in outcomes for row in o.rows if "error" in row}
    if errors and all("error" in row for o in outcomes for row in o.rows):
        raise UserError(
            f"none of the pictures could be judged; the first: {list(errors.values())[0]}"
        )
    about = identity | {
        "config": config.to_dict(),
        "versions": versions(),
        "device": ", ".join(sorted(set(device_names(devices)))),
        "samples": e.samples,
    }
    date = datetime.date.today().isoformat()
    results = Results(date, about, measures, unavailable, outcomes, e.protocol)
    table = write_results(folder, results)
    write_text(folder / "report.html", page_of(results, judge, entries))
    return table


def samplers_of(config: Config, upscalers: Sequence[Upscaler], identity: dict) -> list[Method]:
    """Make a method for every combination of the config's sampler settings."""
    own, e = upscalers[0].model.sampler, config.eval
    steps = e.steps or (own.steps,)
    scales: Sequence[float | None] = e.guidance_scales or (own.guidance_scale,)
    weak: Sequence[float | None] = e.weak_strengths or (own.weak_strength,)
    if own.r_input:
        scales = weak = (None,)
    elif not e.weak_strengths and all(scale == 1 for scale in scales):
        weak = (None,)
    also = token_figures(upscalers[0].model)
    return [
        of_model(
            upscalers,
            identity,
            name=_name(count, scale, strength if len(weak) > 1 else None),
            steps=count,
            guidance_scale=scale,
            weak_strength=strength,
            tile_size=e.tile_size,
            also=also,
        )
        for count, scale, strength in itertools.product(steps, scales, weak)
    ]


def choose_model(config: Config, workdir: str | os.PathLike) -> str:
    """Choose `eval.model`, else the workdir if it has a checkpoint, else a shipped model."""
    if config.eval.model is not None:
        return config.eval.model
    if any(entry.name.isdigit() for entry in listing(to_path(workdir) / "checkpoints")):
        return str(workdir)
    return "nano-onestep" if config.model.r_embedding else "nano"


def _name(steps: int, guidance_scale: float | None, weak_strength: float | None) -> str:
    parts = [f"{steps} step" + ("s" if steps > 1 else "")]
    if guidance_scale is not None:
        parts.append(f"guidance {guidance_scale:g}")
    if weak_strength is not None:
        parts.append(f"weak strength {weak_strength:g}")
    return ", ".join(parts)


class _Progress:
    """Prints a row's progress at most twice a minute, and when it is finished."""

    def __init__(self, name: str):
        self._name, self._started = name, time.monotonic()
        self._told = self._started

    def __call__(self, done: int, count: int) -> None:
        now = time.monotonic()
        if done < count and now - self._told < _TOLD_EVERY:
            return
        self._told = now
        left = (now - self._started) / done * (count - done)
        print(f"{self._name}: {done}/{count} pictures, {left:.0f} s left", flush=True)
