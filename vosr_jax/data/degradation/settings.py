"""Settings of the degradation: parameters of every recipe, and their mixture."""

import dataclasses
import math
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
REDUCING_FILTERS = ("box", "bilinear", "hamming", "bicubic", "lanczos")
RECIPES = ("official", "mild", "clean")


def _check_numbers(settings) -> None:
    """Refuse probabilities outside [0, 1] and invalid ranges, and name the key."""
    for field in dataclasses.fields(settings):
        name, value = field.name, getattr(settings, field.name)
        if name.endswith("_probability") and not 0 <= value <= 1:
            raise UserError(f"degradation: {name} is {value}; it must lie between 0 and 1")
        if name.endswith("probabilities") and not (min(value) >= 0 and 0 < sum(value) < math.inf):
            raise UserError(f"degradation: {name} is {value}; it needs weights, not all of them 0")
        if field.type != Range:
            continue
        lowest = -math.inf if name == "hue" else 0
        if not lowest <= value[0] <= value[1] < math.inf:
            raise UserError(f"degradation: {name} is {value}; write (smallest, largest)")
        if name == "jpeg_quality" and not 1 <= value[0] <= value[1] <= 100:
            raise UserError(f"degradation: {name} is {value}; it must lie between 1 and 100")


@dataclass(frozen=True)
class BlurSettings:
    """Distribution of a stage's blur kernels.

    Attributes:
      probabilities: weights of KERNEL_FAMILIES, in that order.
      sinc_probability: share of sinc kernels; the families share the rest.
      sigma: range of each standard deviation, in pixels.
      generalized_beta: range of the exponent of generalized Gaussians.
      plateau_beta: range of the exponent of plateau kernels.
    """

    probabilities: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sinc_probability: float = 0.1
    sigma: Range = (0.2, 3.0)
    generalized_beta: Range = (0.5, 4.0)
    plateau_beta: Range = (1.0, 2.0)

    def __post_init__(self):
        _check_numbers(self)
        if len(self.probabilities) != len(KERNEL_FAMILIES):
            count = len(KERNEL_FAMILIES)
            raise UserError(f"degradation: blur.probabilities needs {count} weights")


@dataclass(frozen=True)
class StageSettings:
    """One round of blur, resize, noise and JPEG.

    Attributes:
      blur: distribution of the kernels.
      blur_probability: probability that the blur is applied.
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

    def __post_init__(self):
        _check_numbers(self)


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
    """The two-stage degradation; the defaults are those of dataloaders/params_realsr.yml.

    Attributes:
      first, second: the two stages.
      first_probability, second_probability: probability of each stage. The second runs only after
        the first; without the first, the image is only reduced bicubically.
      final_sinc_probability: share of images that get a sinc filter at the end.
      grey_probability: share of images turned grey.
      jitter_probability: share of images whose colours are changed.
      brightness, contrast, saturation, hue: ranges of that change.
      jpeg: "official" (the original's differentiable JPEG: luma table transposed, real-valued
        quality, no 8-bit rounding) or "libjpeg" (real 8-bit files, quality rounded).
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
        _check_numbers(self)


@dataclass(frozen=True)
class ReducedSettings:
    """One reduction and perhaps one new save, as most photos have been through.

    The steps are blur, an antialiased reduction, noise and JPEG; the last three are at LR size.
    The LQ image is made from the LR one as in restoration: eight bits, Pillow's bicubic.

    Attributes:
      blur: distribution of the kernels, on HR pixels.
      blur_probability: probability that the blur is applied.
      filters: reductions to draw from, of REDUCING_FILTERS, with equal probability.
      noise_probability: share of images with noise.
      gaussian_probability: share of Gaussian noise among these; the rest is Poisson noise.
      gaussian_sigma: standard deviation in grey levels of 255.
      poisson_scale: factor on Poisson noise.
      grey_noise_probability: share of noise that is the same in all three channels.
      jpeg_probability: share of images that are saved as JPEG, by libjpeg.
      jpeg_quality: range of the quality factor.
    """

    blur: BlurSettings = BlurSettings()
    blur_probability: float = 0.0
    filters: tuple[str, ...] = REDUCING_FILTERS
    noise_probability: float = 0.0
    gaussian_probability: float = 0.5
    gaussian_sigma: Range = (1.0, 5.0)
    poisson_scale: Range = (0.05, 0.4)
    grey_noise_probability: float = 0.4
    jpeg_probability: float = 0.0
    jpeg_quality: Range = (55.0, 99.0)

    def __post_init__(self):
        _check_numbers(self)
        unknown = [one for one in self.filters if one not in REDUCING_FILTERS]
        if unknown or not self.filters:
            known = ", ".join(REDUCING_FILTERS)
            raise UserError(f"degradation.filters is {self.filters}; write some of {known}")


# Photos from a phone or a web page: (nearly) in focus, little noise, one JPEG of usual quality.
MILD = ReducedSettings(
    blur=BlurSettings(sinc_probability=0.0, sigma=(0.2, 2.0)),
    blur_probability=0.4,
    noise_probability=0.4,
    jpeg_probability=0.9,
)
# The reduction alone: a model that never sees it in training paints over correct detail.
CLEAN = ReducedSettings()


@dataclass(frozen=True)
class DegradationSettings:
    """Recipes and the mixture that draws from them.

    Attributes:
      mixture: `recipe[:weight],...` with recipes of RECIPES; "official" is the official training.
      official: Real-ESRGAN's two stages.
      mild: light blur, little noise, one JPEG at the LR size.
      clean: the reduction alone.
    """

    mixture: str = "official"
    official: RealESRGANSettings = RealESRGANSettings()
    mild: ReducedSettings = MILD
    clean: ReducedSettings = CLEAN

    def __post_init__(self):
        self.shares()

    def shares(self) -> dict[str, float]:
        """Parse the mixture to {recipe: share}; the shares sum to 1.

        Raises:
          UserError: a recipe is unknown or named twice, or a weight is not a positive number.
        """
        weights: dict[str, float] = {}
        for part in self.mixture.split(","):
            name, _, text = (piece.strip() for piece in part.partition(":"))
            try:
                weight = float(text) if text else 1.0
            except ValueError:
                weight = math.nan
            if name not in RECIPES or name in weights:
                raise UserError(
                    f"data.degradation.mixture is {self.mixture!r}: {name!r} must be one of "
                    f"{', '.join(RECIPES)}, each once"
                )
            if not 0 < weight < math.inf:
                raise UserError(
                    f"data.degradation.mixture is {self.mixture!r}: the weight of {name} must be "
                    "a positive number, as in official:0.5,mild:0.5"
                )
            weights[name] = weight
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}
