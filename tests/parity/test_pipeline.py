"""A release folder end to end through the public upscaler, against the official scripts."""

import dataclasses
import functools

import numpy as np
import pytest
from PIL import Image

from tests.parity import goldens
from vosr_jax.restoration.upscaler import Upscaler

_SUFFIXES = {"none": "nofix", "adain": "adain", "wavelet": "wavelet"}


def _cases() -> list[str]:
    file = goldens.ROOT / "pipeline" / "cases.json"
    return sorted(goldens.read_json(file)) if file.is_file() else ["missing"]


def _has_latents(name: str) -> bool:
    file = goldens.ROOT / "pipeline" / "outputs" / f"{name}.npz"
    return not file.is_file() or "sr_latent" in goldens.arrays(file)


@functools.cache
def _upscaler(path) -> Upscaler:
    return Upscaler.from_pretrained(path)


def _case(name: str):
    """(settings, arrays, upscaler, arguments of its call)."""
    folder = goldens.folder("pipeline")
    settings = goldens.read_json(folder / "cases.json")[name]
    data = goldens.arrays(folder / "outputs" / f"{name}.npz")
    arguments = {
        "image": folder / settings["input"],
        "scale": settings["upscale"],
        "tile_overlap": settings["tile_overlap"] or 0,
        "noise": data["sampler_noise"],
        # A case that takes the posterior's mode has no draw of it.
        "posterior_noise": data.get("posterior_noise"),
    }
    for key in ("steps", "guidance_scale", "weak_strength", "tile_size"):
        arguments[key] = settings[key]
    return settings, data, _upscaler(folder / settings["checkpoint"]), arguments


@pytest.mark.parametrize("case", _cases())
@pytest.mark.parametrize("fix", _SUFFIXES)
def test_the_picture_is_the_official_one(case, fix):
    _, _, upscaler, arguments = _case(case)
    result = upscaler(**arguments, colour_fix=fix)
    file = goldens.folder("pipeline") / "outputs" / f"{case}__{_SUFFIXES[fix]}.png"
    difference = np.abs(np.asarray(result, int) - np.asarray(Image.open(file), int))
    # At most one grey level on 99.9% of the pixels.
    goldens.record(f"pipeline/{case}/{fix}", float((difference > 1).mean()), 1e-3)


@pytest.mark.parametrize("case", _cases())
def test_the_decoded_picture_is_the_official_one_before_rounding(case):
    _, data, upscaler, arguments = _case(case)
    unrounded = Upscaler(dataclasses.replace(upscaler.model, truncate=False))
    ours = unrounded(**arguments, colour_fix="none", output="numpy") * 2 - 1
    golden = goldens.nhwc(data["decoded"])[0]
    goldens.check(f"pipeline/{case}/decoded", ours, golden, 2e-4)


@pytest.mark.parametrize("case", [name for name in _cases() if _has_latents(name)])
def test_every_stage_of_an_untiled_picture_is_the_official_one(case):
    _, data, upscaler, arguments = _case(case)
    model, lq = upscaler.model, goldens.nhwc(data["lq_upsampled"])
    draw = data.get("posterior_noise")
    lq_latent = model.encode(lq, None if draw is None else goldens.nhwc(draw))
    tokens = model.visual_tokens(lq)
    given = {k: arguments[k] for k in ("steps", "guidance_scale", "weak_strength")}
    changes = {key: value for key, value in given.items() if value is not None}
    sampler = dataclasses.replace(model.sampler, **changes)
    latent = model.sample(lq_latent, goldens.nhwc(data["sampler_noise"]), tokens, sampler)
    goldens.check(f"pipeline/{case}/lq_latent", lq_latent, goldens.nhwc(data["lq_latent"]), 2e-5)
    goldens.check(f"pipeline/{case}/visual_tokens", tokens, data["visual_tokens"], 2e-5)
    goldens.check(f"pipeline/{case}/sr_latent", latent, goldens.nhwc(data["sr_latent"]), 2e-4)
