"""Score a finished trial: its EMA network on fixed pairs, over the guidance scale."""

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vosr_jax.config import Config
from vosr_jax.diffusion.sampler import SamplerSettings
from vosr_jax.evaluation.pairs import degraded_entries, enlarge, held_out_pictures, pictures_in
from vosr_jax.files import to_path, write_text
from vosr_jax.files.cached import local_folder
from vosr_jax.files.photo import to_uint8
from vosr_jax.metrics.fidelity import psnr
from vosr_jax.metrics.lpips import load_lpips, lpips
from vosr_jax.sweeps.trials import Trial, settings_of
from vosr_jax.training.build import mesh_of
from vosr_jax.training.preview import make_restore
from vosr_jax.training.setup import load_train_step
from vosr_jax.weights.saved_run import load_ema

_FILE = "figures.json"
_NOISE_SEED = 0


def figures_of(trial: Trial, workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """PSNR (RGB) and LPIPS (AlexNet) of every pair at every guidance scale.

    The pairs are about `eval.pictures` crops of `eval.hr` or of the held-out photos. The noise is
    the same for all trials. The figures are cached in the trial's folder for these settings.

    Args:
      trial: finished.
      workdir: of the sweep.

    Returns:
      {"scale", "name", "photograph", "psnr", "lpips"} each.

    Raises:
      UserError: the checkpoint or the images cannot be read.
    """
    config, folder = trial.config, to_path(workdir) / trial.name
    file = folder / _FILE
    about = settings_of(config)
    try:
        kept = json.loads(file.read_text())
    except (OSError, ValueError):
        kept = {}
    if kept.get("about") == about:
        return kept["figures"]
    figures = _judge(config, folder)
    write_text(file, json.dumps({"about": about, "figures": figures}) + "\n")
    return figures


def scales_of(config: Config) -> tuple[float, ...]:
    """The guidance scales at which a trial is scored; only 1 if it has no guidance."""
    if config.guidance.kind == "none" or config.model.r_embedding:
        return (1.0,)
    return config.eval.guidance_scales or (config.guidance.scale,)


def _judge(config: Config, folder: os.PathLike) -> list[dict[str, Any]]:
    e = config.eval
    files = pictures_in(local_folder(e.hr)) if e.hr else held_out_pictures()
    draws = max(-(-e.pictures // len(files)), 1)
    entries = degraded_entries(files, e.crop_size, config.data.scale, draws)
    cases = [entry.load() for entry in entries]
    truth = np.stack([case.truth for case in cases if case.truth is not None])
    enlarged = np.stack([enlarge(case.source, case.size) for case in cases])
    lq, hr = (x.astype(np.float32) / 127.5 - 1 for x in (enlarged, truth))

    mesh = mesh_of(config, jax.local_devices()[:1])
    train_step, weights = load_train_step(config, mesh)
    _, _, ema = load_ema(folder)
    scales = scales_of(config)
    sampler = SamplerSettings.from_guidance(
        config.guidance,
        steps=config.sampling.steps,
        schedule=config.sampling.schedule,
        r_input=config.model.r_embedding,
    )
    # The program decides whether there is a weak branch; the scale itself is an argument.
    sampler = dataclasses.replace(sampler, guidance_scale=1.0 if scales == (1.0,) else 0.0)
    restore = jax.jit(make_restore(train_step, sampler))
    distance, lpips_weights = jax.jit(lpips), load_lpips("alex")
    key, figures = jax.random.key(_NOISE_SEED), []
    for scale in scales:
        image = np.asarray(restore(ema, weights, lq, hr, key, jnp.float32(scale)))
        pictures = to_uint8(image * 0.5 + 0.5)
        distances = distance(lpips_weights, pictures / np.float32(127.5) - 1, hr)
        for entry, picture, true, perceived in zip(
            entries, pictures, truth, np.asarray(distances), strict=True
        ):
            figures.append(
                {
                    "scale": scale,
                    "name": entry.name,
                    "photograph": entry.photograph,
                    "psnr": psnr(picture, true),
                    "lpips": float(perceived),
                }
            )
    return figures


def at_psnr(
    figures: Sequence[dict[str, Any]], wanted: float
) -> tuple[dict[str, float], float, float]:
    """Every pair's LPIPS at the guidance scale whose mean PSNR is the wanted one.

    Between the scales all values are interpolated linearly; beyond them the nearest end counts.

    Args:
      figures: of one trial, from `figures_of`.
      wanted: mean PSNR, dB.

    Returns:
      ({pair: LPIPS}, the scale, the mean PSNR there).
    """
    scales = sorted({row["scale"] for row in figures})
    names = [row["name"] for row in figures if row["scale"] == scales[0]]
    table = {(row["scale"], row["name"]): row for row in figures}
    decibels = np.array([np.mean([table[s, n]["psnr"] for n in names]) for s in scales])
    distances = np.array([[table[s, n]["lpips"] for n in names] for s in scales])
    place = _place(decibels, wanted)
    low = min(int(place), len(scales) - 1)
    high, share = min(low + 1, len(scales) - 1), place - low
    mixed = distances[low] * (1 - share) + distances[high] * share
    scale = scales[low] * (1 - share) + scales[high] * share
    reached = decibels[low] * (1 - share) + decibels[high] * share
    return dict(zip(names, mixed.tolist(), strict=True)), float(scale), float(reached)


def _place(decibels: np.ndarray, wanted: float) -> float:
    """The fractional index along the scales at which the wanted PSNR is met.

    If it is met several times, at the largest scale; if never, the scale of the nearest PSNR.
    """
    for number in range(len(decibels) - 1, 0, -1):
        before, after = decibels[number - 1], decibels[number]
        if min(before, after) <= wanted <= max(before, after) and before != after:
            return number - 1 + float((wanted - before) / (after - before))
    return float(np.argmin(np.abs(decibels - wanted)))
