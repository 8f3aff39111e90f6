"""Degradation plans: all operations with their parameters, drawn before any is applied."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from vosr_jax.data.degradation.colour import JITTERS, ColourJitter, TurnGrey
from vosr_jax.data.degradation.jpeg import Jpeg
from vosr_jax.data.degradation.kernels import Blur, sample_final_sinc, sample_kernel
from vosr_jax.data.degradation.noise import GaussianNoise, PoissonNoise, eight_bits
from vosr_jax.data.degradation.resize import MODES, EnlargeTo, ReduceTo, ResizeBy, ResizeTo
from vosr_jax.data.degradation.settings import (
    DegradationSettings,
    Range,
    RealESRGANSettings,
    ReducedSettings,
    StageSettings,
)

Settings = DegradationSettings | RealESRGANSettings | ReducedSettings
Operation = (
    Blur
    | ResizeBy
    | ResizeTo
    | ReduceTo
    | GaussianNoise
    | PoissonNoise
    | Jpeg
    | TurnGrey
    | ColourJitter
)


@dataclass(frozen=True)
class DegradationPlan:
    """A sampled degradation.

    Attributes:
      operations: operations from the clean image to the LR image, in order.
      resize_back: resize from the LR image to the clean image's size.
      recipe: the recipe it was drawn from, one of settings.RECIPES, or "reduced" outside a
        mixture.
    """

    operations: tuple[Operation, ...]
    resize_back: ResizeTo | EnlargeTo
    recipe: str = "official"

    def apply(self, hr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Apply the plan.

        Args:
          hr: [H, W, 3] uint8 RGB.

        Returns:
          lr [H/scale, W/scale, 3] float32, neither clipped nor rounded; lq [H, W, 3] uint8.
        """
        image = hr.astype(np.float32) / np.float32(255)
        for operation in self.operations:
            image = operation.apply(image)
        return image, eight_bits(self.resize_back.apply(image))

    def describe(self) -> list[dict]:
        """The operations with their parameters, resize_back last, as plain values for JSON."""
        every = (*self.operations, self.resize_back)
        return [{"operation": type(one).__name__, **dataclasses.asdict(one)} for one in every]


def sample_plan(
    rng: np.random.Generator,
    height: int,
    width: int,
    settings: Settings,
    scale: int = 4,
) -> DegradationPlan:
    """Draw all random parameters of one image's degradation.

    Args:
      rng: source of every draw.
      height, width: size of the clean image; at least `scale`.
      settings: one recipe, or a mixture.
      scale: the LR image has height // scale rows and width // scale columns.
    """
    if isinstance(settings, DegradationSettings):
        recipe = _sample_recipe(rng, settings.shares())
        plan = sample_plan(rng, height, width, getattr(settings, recipe), scale)
        return dataclasses.replace(plan, recipe=recipe)
    if isinstance(settings, ReducedSettings):
        return _sample_reduced(rng, height, width, settings, scale)
    return _sample_official(rng, height, width, settings, scale)


def _sample_recipe(rng, shares: dict[str, float]) -> str:
    names = list(shares)
    # A single recipe uses no draw, or old runs with one recipe would get other samples.
    if len(names) == 1:
        return names[0]
    rank = np.searchsorted(np.cumsum(list(shares.values())), rng.random(), side="right")
    return names[min(int(rank), len(names) - 1)]


def _sample_reduced(
    rng, height: int, width: int, settings: ReducedSettings, scale: int
) -> DegradationPlan:
    operations: list[Operation] = []
    if rng.random() < settings.blur_probability:
        operations.append(Blur(sample_kernel(rng, settings.blur)))
    reduction = settings.filters[rng.integers(len(settings.filters))]
    operations.append(ReduceTo(height // scale, width // scale, reduction))
    if rng.random() < settings.noise_probability:
        operations.append(_sample_noise(rng, settings))
    if rng.random() < settings.jpeg_probability:
        operations.append(Jpeg(rng.uniform(*settings.jpeg_quality), "libjpeg"))
    return DegradationPlan(tuple(operations), EnlargeTo(height, width), "reduced")


def _sample_official(
    rng, height: int, width: int, settings: RealESRGANSettings, scale: int
) -> DegradationPlan:
    lr_size = height // scale, width // scale
    first = rng.random() < settings.first_probability
    second = first and rng.random() < settings.second_probability
    operations: list[Operation] = []
    if first:
        operations += _first_stage(rng, settings.first, settings.jpeg)
        if second:
            operations += _second_stage(rng, settings, height / scale, width / scale)
            operations += _finish(rng, settings, lr_size)
        else:
            operations.append(ResizeTo(*lr_size, _sample_mode(rng)))
    else:
        operations.append(ResizeTo(*lr_size, "bicubic"))
    operations += _colours(rng, settings)
    back = _sample_mode(rng) if first else "bicubic"
    return DegradationPlan(tuple(operations), ResizeTo(height, width, back))


def _first_stage(rng, stage: StageSettings, jpeg_variant: str) -> list[Operation]:
    operations: list[Operation] = []
    if rng.random() < stage.blur_probability:
        operations.append(Blur(sample_kernel(rng, stage.blur)))
    factor = _sample_factor(rng, stage)
    operations.append(ResizeBy(factor, _sample_mode(rng)))
    operations.append(_sample_noise(rng, stage))
    operations.append(Jpeg(rng.uniform(*stage.jpeg_quality), jpeg_variant))
    return operations


def _second_stage(rng, settings, lr_height: float, lr_width: float) -> list[Operation]:
    stage = settings.second
    operations: list[Operation] = []
    if rng.random() < stage.blur_probability:
        operations.append(Blur(sample_kernel(rng, stage.blur)))
    factor = _sample_factor(rng, stage)
    height, width = (max(int(side * factor), 1) for side in (lr_height, lr_width))
    operations.append(ResizeTo(height, width, _sample_mode(rng)))
    operations.append(_sample_noise(rng, stage))
    return operations


def _finish(rng, settings, lr_size: tuple[int, int]) -> list[Operation]:
    """Draw the last resize with the sinc filter, and JPEG before or after them."""
    compress = Jpeg(rng.uniform(*settings.second.jpeg_quality), settings.jpeg)
    resize_and_filter: list[Operation] = [ResizeTo(*lr_size, _sample_mode(rng))]
    kernel = sample_final_sinc(rng, settings.final_sinc_probability)
    if kernel.family != "pulse":
        resize_and_filter.append(Blur(kernel))
    if rng.random() < 0.5:
        return [*resize_and_filter, compress]
    return [compress, *resize_and_filter]


def _colours(rng, settings) -> list[Operation]:
    operations: list[Operation] = []
    if rng.random() < settings.grey_probability:
        operations.append(TurnGrey())
    if rng.random() < settings.jitter_probability:
        for position in rng.permutation(len(JITTERS)):
            kind = JITTERS[position]
            operations.append(ColourJitter(kind, rng.uniform(*getattr(settings, kind))))
    return operations


def _sample_mode(rng) -> str:
    return MODES[rng.integers(len(MODES))]


def _uniform(rng, bounds: Range) -> float:
    return float(rng.uniform(*bounds))


def _sample_factor(rng, stage: StageSettings) -> float:
    """Draw a scale factor that enlarges, shrinks or keeps, by the stage's weights."""
    up, down, keep = stage.resize_probabilities
    chance = rng.random() * (up + down + keep)
    if chance < up:
        return _uniform(rng, (1, stage.resize_range[1]))
    if chance < up + down:
        return _uniform(rng, (stage.resize_range[0], 1))
    return 1.0


def _sample_noise(rng, stage: StageSettings | ReducedSettings) -> GaussianNoise | PoissonNoise:
    gaussian = rng.random() < stage.gaussian_probability
    amplitude = _uniform(rng, stage.gaussian_sigma if gaussian else stage.poisson_scale)
    grey = bool(rng.random() < stage.grey_noise_probability)
    seed = int(rng.integers(2**63))
    return (GaussianNoise if gaussian else PoissonNoise)(amplitude, grey, seed)
