"""What the degradation may do, and how often: the numbers of a Real-ESRGAN recipe."""

import dataclasses
from dataclasses import dataclass

from vosr_jax.errors import UserError

Range = tuple[float, float]

KERNEL_FAMILIES = (
    "iso",
    "aniso",
    "generalized_iso",
    "generalized_aniso",
    "plateau_iso",
    "plateau_aniso",
)
JPEG_VARIANTS = ("official", "libjpeg")


@dataclass(frozen=True)
class BlurSettings:
    """Which blur kernels a stage draws.

    Attributes:
      probabilities: weights of KERNEL_FAMILIES, in that order.
      sinc_probability: share of sinc kernels; the families divide the rest.
      sigma: range of each standard deviation, in pixels.
      generalized_beta: range of the exponent of generalized Gaussians.
      plateau_beta: range of the exponent of plateau kernels.
    """

    probabilities: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sinc_probability: float = 0.1
    sigma: Range = (0.2, 3.0)
    generalized_beta: Range = (0.5, 4.0)
    plateau_beta: Range = (1.0, 2.0)


@dataclass(frozen=True)
class StageSettings:
    """One round of blur, resize, noise and JPEG.

    Attributes:
      blur: the kernels.
      blur_probability: how often the blur is applied at all.
      resize_probabilities: weights of enlarging, shrinking and keeping the size.
      resize_range: smallest and largest scale factor.
      gaussian_probability: share of Gaussian noise; the rest is Poisson noise.
      gaussian_sigma: standard deviation in grey levels of 255.
      poisson_scale: factor on Poisson noise.
      grey_noise_probability: share of noise that is the same in all three channels.
      jpeg_quality: range of the quality factor.
    """

    blur: BlurSettings = BlurSettings()
    blur_probability: float = 1.0
    resize_probabilities: tuple[float, float, float] = (0.2, 0.7, 0.1)
    resize_range: Range = (0.15, 1.5)
    gaussian_probability: float = 0.5
    gaussian_sigma: Range = (1.0, 30.0)
    poisson_scale: Range = (0.05, 3.0)
    grey_noise_probability: float = 0.4
    jpeg_quality: Range = (30.0, 95.0)


_SECOND_STAGE = StageSettings(
    blur=BlurSettings(sigma=(0.2, 1.5)),
    blur_probability=0.8,
    resize_probabilities=(0.3, 0.4, 0.3),
    resize_range=(0.3, 1.2),
    gaussian_sigma=(1.0, 25.0),
    poisson_scale=(0.05, 2.5),
)


@dataclass(frozen=True)
class RealESRGANSettings:
    """The whole degradation; the defaults are those of dataloaders/params_realsr.yml.

    Attributes:
      first, second: the two stages.
      first_probability, second_probability: how often each stage runs. The second runs only
        after the first; where the first does not run, the picture is only reduced bicubically.
      final_sinc_probability: share of pictures that get a sinc filter at the end.
      grey_probability: share of pictures turned grey.
      jitter_probability: share of pictures whose colours are changed.
      brightness, contrast, saturation, hue: ranges of that change.
      jpeg: "official" (differentiable JPEG of the original: luma table transposed, quality a
        real number, no 8-bit rounding) or "libjpeg" (real 8-bit files, quality rounded).
    """

    first: StageSettings = StageSettings()
    second: StageSettings = _SECOND_STAGE
    first_probability: float = 1.0
    second_probability: float = 1.0
    final_sinc_probability: float = 0.8
    grey_probability: float = 0.0
    jitter_probability: float = 0.0
    brightness: Range = (0.5, 1.5)
    contrast: Range = (0.5, 1.5)
    saturation: Range = (0.0, 1.5)
    hue: Range = (-0.1, 0.1)
    jpeg: str = "official"

    def __post_init__(self):
        if self.jpeg not in JPEG_VARIANTS:
            known = ", ".join(JPEG_VARIANTS)
            raise UserError(f"degradation.jpeg is {self.jpeg!r}; write one of {known}")
        _check_probabilities(self)
        for stage in (self.first, self.second):
            _check_probabilities(stage)
            if len(stage.blur.probabilities) != len(KERNEL_FAMILIES):
                count = len(KERNEL_FAMILIES)
                raise UserError(f"degradation: blur.probabilities needs {count} weights")


def _check_probabilities(settings) -> None:
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name.endswith("_probability") and not 0 <= value <= 1:
            raise UserError(f"degradation: {field.name} is {value}; it must lie between 0 and 1")
