"""The pairs that a model is judged on: two folders, or held-out photographs degraded here."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vosr_jax.data.degradation import RealESRGANSettings
from vosr_jax.data.validation import Pair, validation_pairs
from vosr_jax.errors import UserError
from vosr_jax.restoration.picture import SUFFIXES, read_photograph

if TYPE_CHECKING:
    from vosr_jax.config import Config

HELD_OUT = Path(__file__).parents[2] / "assets" / "heldout"

# Part of what the figures mean, so no setting.
_SEED = 0
# Draws of the degradation differ so much that one a picture would say little.
_DRAWS = 3


def pairs_from_config(config: "Config") -> list[Pair]:
    """The pairs that `config.eval` names.

    Returns:
      Those of `eval.hr` and `eval.lr`; or crops of `eval.hr`, or of the held-out photographs in
      assets/heldout, degraded by the official degradation with a fixed seed.

    Raises:
      UserError: folders without pictures, pictures without partners or of sizes that do not fit.
    """
    hr, lr = config.eval.hr, config.eval.lr
    if lr is not None and hr is None:
        raise UserError("eval.lr is set without eval.hr; set both, or eval.hr alone")
    if hr is not None and lr is not None:
        return folder_pairs(Path(hr), Path(lr))
    pictures = pictures_in(Path(hr)) if hr is not None else held_out_pictures()
    return degraded_pairs(pictures, config.eval.crop_size, config.data.scale)


def held_out_pictures() -> list[Path]:
    """The crops in assets/heldout, by name.

    Raises:
      UserError: the package is not used from its source folder, which has them.
    """
    if not HELD_OUT.is_dir():
        raise UserError(f"{HELD_OUT} is not there; set eval.hr to a folder of photographs")
    return pictures_in(HELD_OUT)


def degraded_pairs(pictures: list[Path], crop_size: int, scale: int) -> list[Pair]:
    """Official degradation of crops of every picture; the same pairs in every run."""
    return validation_pairs(
        pictures,
        crop_size=crop_size,
        scale=scale,
        seed=_SEED,
        degradation=RealESRGANSettings(),
        crops_per_picture=_DRAWS,
    )


def folder_pairs(hr: Path, lr: Path) -> list[Pair]:
    """Pairs of the same name (without suffix) in two folders.

    Raises:
      UserError: a picture without partner, or one that is no whole multiple of its partner.
    """
    large, small = ({p.stem: p for p in pictures_in(folder)} for folder in (hr, lr))
    alone = sorted(set(large) ^ set(small))
    if alone:
        folder = lr if alone[0] in large else hr
        raise UserError(f"{folder} has no picture named {alone[0]} ({len(alone)} without partner)")
    pairs = []
    for name, path in sorted(large.items()):
        truth = np.asarray(read_photograph(path).rgb)
        photograph = read_photograph(small[name]).rgb
        source = np.asarray(photograph)
        factor = truth.shape[0] // source.shape[0]
        if factor < 1 or truth.shape != (source.shape[0] * factor, source.shape[1] * factor, 3):
            sizes = f"{truth.shape[1]}x{truth.shape[0]} and {source.shape[1]}x{source.shape[0]}"
            raise UserError(f"{path} and {small[name]} do not fit: {sizes}, no whole multiple")
        pairs.append(Pair(name, truth, source, enlarge(source, truth.shape[:2])))
    return pairs


def enlarge(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pillow's bicubic resize of [h, w, 3] uint8 to (height, width)."""
    from PIL import Image

    resized = Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def pictures_in(folder: Path) -> list[Path]:
    """A folder's pictures by name.

    Raises:
      UserError: no such folder, or none in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; check eval.hr and eval.lr")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
    return found
