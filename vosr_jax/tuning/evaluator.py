"""Compare the base and the trained model on held-out crops, and say which is better."""

import dataclasses
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image, ImageDraw

from vosr_jax.data.cropping import random_crop
from vosr_jax.data.degradation import DegradationSettings
from vosr_jax.data.pictures import UnreadablePicture, read_picture
from vosr_jax.data.preparation.filters import grey_levels, sharpness
from vosr_jax.data.validation import Pair, validation_pairs
from vosr_jax.errors import UserError
from vosr_jax.files import whole_file
from vosr_jax.metrics.lpips import load_lpips, lpips
from vosr_jax.models.lightning_dit.network import LightningDiT
from vosr_jax.restoration.model import RestorationModel
from vosr_jax.restoration.upscaler import Upscaler
from vosr_jax.tuning.settings import Wishes

_CROPS, _SHOWN, _LABEL = 12, 4, 16
# A crop is the sharpest of this many places: most of a photo may be sky.
_PLACES = 8
_SEED = 0
# A gain in LPIPS below this share of the base's is called little.
_LITTLE = 0.005


def _crops(files: Sequence[Path], side: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, [side, side, 3] uint8) crops with detail, the same every time."""
    for file in files:
        try:
            picture = Image.fromarray(read_picture(file))
        except UnreadablePicture as error:
            raise UserError(f"{file} cannot be read any more ({error}); put it back") from error
        rng = np.random.default_rng((_SEED, zlib.crc32(file.name.encode())))
        for number in range(max(_CROPS // len(files), 1)):
            places = [random_crop(picture, side, rng, flip=False) for _ in range(_PLACES)]
            yield f"{file.stem}-{number}", max(places, key=lambda x: sharpness(grey_levels(x)))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Comparison of the trained model with its base.

    Attributes:
      base, ours: mean LPIPS (AlexNet) of the crops; lower is nearer to the truth.
      wins: number of crops of which ours is nearer.
      crops: number of crops.
    """

    base: float
    ours: float
    wins: int
    crops: int

    @property
    def better(self) -> bool:
        """Whether the trained model is nearer to the truth on average."""
        return self.ours < self.base


class Evaluator:
    """Restore the held-out crops as `vosr upscale` would, and compare with the truth.

    Args:
      files: held-out images, none smaller than the crops.
      model: the base.
      side: of the crops, pixels.
      scale: side of a crop over the side of its low-resolution image.
      degradation: of the low-resolution images; its random draws are the same every time.
    """

    def __init__(
        self,
        files: Sequence[Path],
        model: RestorationModel,
        side: int,
        scale: int,
        degradation: DegradationSettings,
    ):
        self.pairs: list[Pair] = validation_pairs(
            _crops(files, side),
            crop_size=side,
            scale=scale,
            seed=_SEED,
            degradation=degradation,
        )
        self._model, self._scale = model, scale
        self._distance, self._weights = jax.jit(lpips), load_lpips("alex")
        self._of_base = self._restored(model)
        self._distances_of_base = self._distances(self._of_base)

    def compare(self, denoiser: LightningDiT, file: Path) -> Verdict:
        """Evaluate a trained denoiser and draw the comparison.

        Args:
          denoiser: in the base's structure.
          file: gets the image, one row per crop drawn: input, bicubic, base and yours.
        """
        ours = self._restored(dataclasses.replace(self._model, denoiser=denoiser))
        distances = self._distances(ours)
        verdict = Verdict(
            float(np.mean(self._distances_of_base)),
            float(np.mean(distances)),
            int(np.sum(distances < self._distances_of_base)),
            len(self.pairs),
        )
        self._draw(ours, verdict, file)
        return verdict

    def _restored(self, model: RestorationModel) -> list[np.ndarray]:
        upscaler = Upscaler(model)
        return [
            np.asarray(upscaler(Image.fromarray(pair.lr), scale=self._scale, seed=_SEED))
            for pair in self.pairs
        ]

    def _distances(self, pictures: list[np.ndarray]) -> np.ndarray:
        found = [
            self._distance(self._weights, *(x[None] / np.float32(127.5) - 1 for x in (ours, p.hr)))
            for ours, p in zip(pictures, self.pairs, strict=True)
        ]
        return np.array([float(one[0]) for one in found])

    def _draw(self, ours: list[np.ndarray], verdict: Verdict, file: Path) -> None:
        chosen = range(0, len(self.pairs), -(-len(self.pairs) // _SHOWN))
        side = self.pairs[0].hr.shape[0]
        heads = (
            "input",
            "bicubic",
            f"base, LPIPS {verdict.base:.4f}",
            f"yours, LPIPS {verdict.ours:.4f}",
        )
        sheet = Image.new("RGB", (len(heads) * side, len(chosen) * side + _LABEL), "white")
        pen = ImageDraw.Draw(sheet)
        for column, head in enumerate(heads):
            pen.text((column * side + 3, 2), head, fill="black")
        for row, number in enumerate(chosen):
            small = Image.fromarray(self.pairs[number].lr)
            panels = (
                small.resize((side, side), Image.Resampling.NEAREST),
                small.resize((side, side), Image.Resampling.BICUBIC),
                Image.fromarray(self._of_base[number]),
                Image.fromarray(ours[number]),
            )
            for column, panel in enumerate(panels):
                sheet.paste(panel, (column * side, row * side + _LABEL))
        with whole_file(file) as part:
            sheet.save(part, format="PNG", optimize=True)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Result of a command.

    Attributes:
      step: finished updates.
      verdict: comparison with the base; None if the training was stopped before its end.
    """

    step: int
    verdict: Verdict | None


def closing_lines(outcome: Outcome, out: str | Path, wishes: Wishes) -> list[str]:
    """The lines printed at the end: the comparison, and the command that uses the model."""
    verdict = outcome.verdict
    if verdict is None:
        return []
    lines = [
        f"{out}/before-after.png: input, bicubic, base, yours",
        f"held-out crops, LPIPS (lower is nearer to the truth): base {verdict.base:.4f}, yours "
        f"{verdict.ours:.4f} after {outcome.step} steps; {verdict.wins} of {verdict.crops} crops "
        "are nearer",
    ]
    own = f"vosr upscale photo.jpg -o out/ -m {out}/model"
    if verdict.better:
        if verdict.base - verdict.ours < _LITTLE * verdict.base:
            lines.append(
                "that is little, hardly to be seen; more --minutes or photographs may help"
            )
        return [*lines, f"use it: {own}"]
    return [
        *lines,
        "yours is NOT better than the base on photographs that it has not seen; keep the base, "
        "train longer (--minutes) or with more photographs",
        f"use the base: vosr upscale photo.jpg -o out/ -m {wishes.model}",
        f"yours all the same: {own}",
    ]
