"""Measures of the table: what each compares, its heading, and what it needs.

An unavailable measure is named with the reason and left out; none replaces another.
"""

import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import jax
import numpy as np

from vosr_jax.errors import UserError
from vosr_jax.evaluation.pairs import EvalPair, enlarge
from vosr_jax.metrics import fidelity
from vosr_jax.metrics.dists import dists, load_dists
from vosr_jax.metrics.lpips import load_lpips, lpips
from vosr_jax.metrics.niqe import load_parameters, niqe

PYIQA = "pyiqa:"
# pyiqa's measures without a ground truth (the paper's among them) and with one.
_PYIQA_HIGHER = {"musiq", "maniqa", "maniqa-pipal", "clipiqa", "clipiqa+", "topiq_nr", "topiq_fr"}
_PYIQA_LOWER = {"niqe", "brisque", "ilniqe", "dists", "afine_nr", "afine_fr", "lpips", "pieapp"}
_PYIQA_WITH_TRUTH = {"topiq_fr", "dists", "afine_fr", "lpips", "pieapp"}
# dB; equal images have no finite PSNR.
_HIGHEST_PSNR = 100.0
_SMALLEST_LPIPS = 32

Function = Callable[[np.ndarray, EvalPair], float]


@dataclass(frozen=True)
class Measure:
    """One column of the table.

    Attributes:
      key: its key in results.json and `eval.metrics`.
      title: the column's heading; states exactly what was computed.
      spec: format of its numbers.
      better: "higher", "lower", "one" (nearest to it), or "neither".
      function: (restored [H, W, 3] uint8, case) -> number.
      with_truth: whether it needs a ground truth.
    """

    key: str
    title: str
    spec: str
    better: Literal["higher", "lower", "one", "neither"]
    function: Function
    with_truth: bool = True


def chosen_measures(keys: Sequence[str], crop: int = 0) -> tuple[list[Measure], dict[str, str]]:
    """Make the measures of a table.

    Args:
      keys: as in `MEASURES`, or "pyiqa:NAME"; empty means `DEFAULT`.
      crop: pixels that PSNR, SSIM and NIQE cut from every side.

    Returns:
      (the available measures, {key: reason} of the others).

    Raises:
      UserError: there is no measure of this name.
    """
    found, missing = [], {}
    for key in keys or DEFAULT:
        if key not in _MAKERS and not key.startswith(PYIQA):
            known = ", ".join((*_MAKERS, PYIQA + "NAME"))
            raise UserError(f"eval.metrics: there is no measure {key!r}; choose of {known}")
        try:
            maker = _MAKERS.get(key)
            found.append(maker(crop) if maker is not None else _of_pyiqa(key))
        except UserError as error:
            missing[key] = str(error)
    return found, missing


def _psnr(image: np.ndarray, case: EvalPair, *, channel: str, crop: int) -> float:
    return min(fidelity.psnr(image, _truth(case), crop, channel), _HIGHEST_PSNR)


def _ssim(image: np.ndarray, case: EvalPair, *, channel: str, crop: int) -> float:
    return fidelity.ssim(image, _truth(case), crop, channel)


_CHANNELS = {"": ("rgb", "RGB"), "_y": ("y", "Y 16-235"), "_y_full": ("y_full", "Y 0-255")}


def _psnr_measure(suffix: str, crop: int) -> Measure:
    channel, named = _CHANNELS[suffix]
    function = partial(_psnr, channel=channel, crop=crop)
    return Measure(f"psnr{suffix}", f"PSNR {named} (dB){_cropped(crop)}", ".2f", "higher", function)


def _ssim_measure(suffix: str, crop: int) -> Measure:
    channel, named = _CHANNELS[suffix]
    function = partial(_ssim, channel=channel, crop=crop)
    return Measure(f"ssim{suffix}", f"SSIM {named}{_cropped(crop)}", ".4f", "higher", function)


def _cropped(crop: int) -> str:
    return f", {crop} px cut" if crop else ""


def _with_truth(key: str, title: str, spec: str, better, function) -> Callable[[int], Measure]:
    return lambda crop: Measure(
        key, title, spec, better, lambda image, case: function(image, _truth(case))
    )


def _lpips_measure(net: str, crop: int) -> Measure:
    _lpips(net)
    key = "lpips" if net == "alex" else "lpips_vgg"
    named = {"alex": "AlexNet", "vgg": "VGG16"}[net]
    return Measure(
        key,
        f"LPIPS {named}",
        ".4f",
        "lower",
        lambda image, case: lpips_distance(image, _truth(case), net),
    )


def _dists_measure(crop: int) -> Measure:
    compiled, params = _dists()

    def measure(image: np.ndarray, case: EvalPair) -> float:
        a, b = (np.asarray(x, np.float32)[None] / 255 for x in (image, _truth(case)))
        return float(compiled(params, a, b)[0])

    return Measure("dists", "DISTS", ".4f", "lower", measure)


def _niqe_measure(crop: int) -> Measure:
    load_parameters()
    return Measure(
        "niqe",
        f"NIQE (BasicSR){_cropped(crop)}",
        ".3f",
        "lower",
        lambda image, case: niqe(image, crop),
        with_truth=False,
    )


def _drift_measure(crop: int) -> Measure:
    _lpips("alex")

    def measure(image: np.ndarray, case: EvalPair) -> float:
        small = enlarge(image, case.source.shape[:2])
        source = case.source
        if min(source.shape[:2]) < _SMALLEST_LPIPS:
            # LPIPS needs a smallest size; enlarge both images by the same factor.
            factor = -(-_SMALLEST_LPIPS // min(source.shape[:2]))
            small, source = (x.repeat(factor, 0).repeat(factor, 1) for x in (small, source))
        return lpips_distance(small, source)

    title = "drift: LPIPS AlexNet to the input, at its size"
    return Measure("drift", title, ".4f", "lower", measure, with_truth=False)


def _of_pyiqa(key: str) -> Measure:
    """Make a measure of the optional package pyiqa, under its own name and version."""
    name = key.removeprefix(PYIQA)
    if importlib.util.find_spec("pyiqa") is None:
        raise UserError(
            f"{name} needs the package pyiqa (pip install pyiqa), whose licence since 0.1.16 is "
            "PolyForm Noncommercial"
        )
    version = importlib.metadata.version("pyiqa")
    about = importlib.metadata.metadata("pyiqa").json
    licence = about.get("license_expression") or about.get("license") or "licence not stated"
    try:
        import pyiqa  # optional

        network = pyiqa.create_metric(name)
    # Any error here means that the package lacks this measure or its weights.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"pyiqa {version} can't make {name} ({reason})") from error

    def measure(image: np.ndarray, case: EvalPair) -> float:
        import torch  # comes with pyiqa

        def tensor(picture: np.ndarray):
            return torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]

        with torch.no_grad():
            given = [tensor(image)]
            if name in _PYIQA_WITH_TRUTH:
                given.append(tensor(_truth(case)))
            return float(network(*given))

    better: Literal["higher", "lower", "neither"] = "neither"
    if name in _PYIQA_HIGHER or name in _PYIQA_LOWER:
        better = "higher" if name in _PYIQA_HIGHER else "lower"
    title = f"{name} (pyiqa {version}, {licence})"
    return Measure(key, title, ".4f", better, measure, with_truth=name in _PYIQA_WITH_TRUTH)


_MAKERS: dict[str, Callable[[int], Measure]] = {
    **{f"psnr{suffix}": partial(_psnr_measure, suffix) for suffix in _CHANNELS},
    **{f"ssim{suffix}": partial(_ssim_measure, suffix) for suffix in _CHANNELS},
    "lpips": partial(_lpips_measure, "alex"),
    "lpips_vgg": partial(_lpips_measure, "vgg"),
    "dists": _dists_measure,
    "niqe": _niqe_measure,
    "edge_similarity": _with_truth(
        "edge_similarity", "Sobel edge similarity", ".4f", "higher", fidelity.edge_similarity
    ),
    "drift": _drift_measure,
    "colour_shift": _with_truth(
        "colour_shift", "colour shift (of 255)", ".2f", "lower", fidelity.colour_shift
    ),
    "laplacian_ratio": _with_truth(
        "laplacian_ratio", "Laplacian variance over truth's", ".3f", "one", fidelity.laplacian_ratio
    ),
    "patch_grid_ratio": _with_truth(
        "patch_grid_ratio", "patch grid over truth's", ".3f", "one", fidelity.patch_grid_ratio
    ),
}
MEASURES = tuple(_MAKERS)
DEFAULT = (
    "psnr",
    "psnr_y",
    "psnr_y_full",
    "ssim",
    "ssim_y",
    "ssim_y_full",
    "lpips",
    "edge_similarity",
    "drift",
    "colour_shift",
    "laplacian_ratio",
    "patch_grid_ratio",
)


def lpips_distance(image: np.ndarray, truth: np.ndarray, net: str = "alex") -> float:
    """LPIPS of one pair of images, [H, W, 3] in 0..255."""
    compiled, params = _lpips(net)
    a, b = (np.asarray(x, np.float32)[None] / 127.5 - 1 for x in (image, truth))
    return float(compiled(params, a, b)[0])


def _truth(case: EvalPair) -> np.ndarray:
    assert case.truth is not None, "a measure with a truth was asked about a case without"
    return case.truth


@cache
def _lpips(net: str):
    return jax.jit(lpips), load_lpips(net)


@cache
def _dists():
    return jax.jit(dists), load_dists()
