"""Sections of how an experiment runs: data, optimizer, devices, training, sampling, evaluation."""

import dataclasses
from typing import Literal

from vosr_jax.data.degradation.settings import DegradationSettings


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
    bytes. With gradient_sum="update" it is that of the sum over `data` too.
    gradient_sum: when gradients are summed over `data`: after every microbatch, or once per update,
    which saves a slow network between slices the other sums.
    """

    data: int = 1
    fsdp: int = -1
    tensor: int = 1
    slices: int = 0
    shard_encoder: bool = False
    gradient_dtype: Literal["float32", "bfloat16"] = "float32"
    gradient_sum: Literal["microbatch", "update"] = "microbatch"


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
    executable: file of `vosr plan --save-executable`; a start whose step it holds does not compile.
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
    executable: str | None = None


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
