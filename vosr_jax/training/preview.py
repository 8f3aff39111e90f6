"""Sample images of a run, and its EMA's metrics on fixed pairs."""

from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from PIL import Image

from vosr_jax.config import Config
from vosr_jax.console import say
from vosr_jax.data.pictures import is_picture_path
from vosr_jax.data.scikit_image_photos import HELD_OUT, scikit_image_photographs
from vosr_jax.data.validation import Pair, readable_pictures, validation_pairs
from vosr_jax.diffusion.denoiser import CachedDenoiser
from vosr_jax.diffusion.sampler import SamplerSettings, build_context, run_steps
from vosr_jax.errors import UserError
from vosr_jax.files import whole_file
from vosr_jax.files.atomic import Attempts
from vosr_jax.files.cached import local_folder
from vosr_jax.files.photo import to_uint8
from vosr_jax.metrics.fidelity import psnr
from vosr_jax.metrics.lpips import load_lpips, lpips
from vosr_jax.models import autoencoders
from vosr_jax.models.lora import with_base
from vosr_jax.training.setup import Run
from vosr_jax.training.sharding import batch_sharding
from vosr_jax.training.step import TrainStep

Restore = Callable[[dict, dict, Array, Array, Array, Array], Array]
_SEED = 0


def make_restore(train_step: TrainStep, sampler: SamplerSettings) -> Restore:
    """Make the function that restores a batch with a trained network.

    Args:
      train_step: what was trained.
      sampler: its guidance scale only decides whether there is a weak branch. The scale itself is
        an argument of the function, so one program serves all scales.

    Returns:
      (EMA, frozen weights, lq [B, H, W, 3] in [-1, 1], hr, noise key, guidance scale) ->
      restored [B, H, W, 3]. Only encoder.tokens_of=hr reads hr.
    """
    parameterization, frozen = train_step.objective.parameterization, train_step.frozen

    def restore(ema: dict, weights: dict, lq: Array, hr: Array, key: Array, scale: Array) -> Array:
        autoencoder = frozen.autoencoder.merge(weights["autoencoder"])
        lq_latent = autoencoders.encode(autoencoder, lq)
        z = jax.random.normal(key, lq_latent.shape)
        denoiser = CachedDenoiser(
            train_step.network.merge(with_base(ema, weights)), parameterization
        )
        tokens = frozen.tokens(weights, lq, hr)
        context = None if tokens is None else denoiser.precompute(tokens)
        shared = build_context(denoiser, sampler)._replace(guidance_scale=scale)
        for guided, first, last in sampler.runs():
            z = run_steps(denoiser, shared, context, lq_latent, z, first, last, guided=guided)
        return autoencoders.decode(autoencoder, parameterization.to_latent(z, lq_latent))

    return restore


def _picture_files(config: Config) -> list[Path]:
    if not config.eval.hr:
        return scikit_image_photographs(HELD_OUT)
    folder = local_folder(config.eval.hr)
    if not folder.is_dir():
        raise UserError(f"eval.hr: there is no folder {folder}; correct the path")
    files = sorted(path for path in folder.iterdir() if is_picture_path(path.name))
    if not files:
        raise UserError(f"eval.hr: no pictures in {folder}; name a folder that holds some")
    return files


class Preview:
    """Restore fixed pairs with the current EMA.

    Args:
      config: of the run; `eval.hr` names a folder of images to crop. Without it, scikit-image's
        held-out photos are used.
      folder: the workdir.

    Raises:
      UserError: `eval.hr` is not a folder with images.
    """

    def __init__(self, config: Config, folder: Path):
        self._config = config
        self._folder = folder / "samples"
        # Check now, since the first preview may be hours away.
        wanted = config.train.sample_every or config.train.eval_every
        self._files = _picture_files(config) if wanted else []
        self._sampler = SamplerSettings.from_guidance(
            config.guidance,
            steps=config.sampling.steps,
            schedule=config.sampling.schedule,
            r_input=config.model.r_embedding,
        )
        # Compiled once per run, and run once for a step that needs both samples and metrics.
        self._compiled: Callable[[dict, dict, jax.Array, jax.Array], jax.Array] | None = None
        self._latest: tuple[int, np.ndarray] | None = None
        self._distance_of_input: float | None = None
        self._attempt = Attempts(say)

    @cached_property
    def pairs(self) -> list[Pair]:
        """The fixed pairs, all of one size.

        Raises:
          UserError: no image can be read.
        """
        config, files = self._config, self._files
        per_picture = max(config.eval.pictures // len(files), 1)
        pairs = validation_pairs(
            readable_pictures(files, config.eval.pictures),
            crop_size=config.eval.crop_size,
            scale=config.data.scale,
            seed=_SEED,
            degradation=config.data.degradation,
            crops_per_picture=per_picture,
        )
        return pairs[: config.eval.pictures]

    def restore(self, run: Run) -> np.ndarray:
        """Restore the pairs' lq with the EMA: [B, H, W, 3] uint8."""
        if self._latest is None or self._latest[0] != run.step:
            if self._compiled is None:
                self._compiled = self._compile(run)
            lq, hr = (rows_over(run.mesh, self._pictures(name)) for name in ("lq", "hr"))
            image = np.asarray(self._compiled(run.state.ema, run.weights, lq, hr))
            image = image[: len(self.pairs)]
            self._latest = run.step, to_uint8(image * 0.5 + 0.5)
        return self._latest[1]

    def _pictures(self, name: str) -> np.ndarray:
        """Stack "lq" or "hr" of all pairs: [B, H, W, 3] uint8."""
        return np.stack([getattr(pair, name) for pair in self.pairs])

    def _compile(self, run: Run) -> Callable[[dict, dict, jax.Array, jax.Array], jax.Array]:
        """Jit (ema, frozen weights, lq [B, H, W, 3], hr) -> restored, images in [-1, 1]."""
        plain = make_restore(run.train_step, self._sampler)
        scale = self._sampler.guidance_scale

        def restore(ema: dict, weights: dict, lq: jax.Array, hr: jax.Array) -> jax.Array:
            return plain(ema, weights, lq, hr, jax.random.key(_SEED), jnp.float32(scale))

        # Replicated, since every process reads the images back.
        return jax.jit(restore, out_shardings=NamedSharding(run.mesh, P()))

    def save_samples(self, run: Run, step: int) -> None:
        """Write samples/<step>.png: one row per pair with input, ours and truth."""
        restored = self.restore(run)
        if jax.process_index():
            return
        rows = [
            np.concatenate([pair.lq, ours, pair.hr], axis=1)
            for pair, ours in zip(self.pairs, restored, strict=True)
        ]
        file = self._folder / f"{step}.png"

        def write() -> None:
            with whole_file(file) as part:
                Image.fromarray(np.concatenate(rows)).save(part, format="PNG")

        self._attempt(str(file.parent), write)

    def evaluate(self, run: Run) -> dict[str, float]:
        """PSNR and LPIPS of the EMA's images, and the ratio of that LPIPS to the input's."""
        restored, truth = self.restore(run), self._pictures("hr")
        if self._distance_of_input is None:
            self._distance_of_input = mean_lpips(run.mesh, self._pictures("lq"), truth)
        ours = mean_lpips(run.mesh, restored, truth)
        return {
            "eval_psnr": float(np.mean([psnr(a, b) for a, b in zip(restored, truth, strict=True)])),
            "eval_lpips": ours,
            "eval_lpips_over_input": ours / self._distance_of_input,
        }


def rows_over(mesh: Mesh, images: np.ndarray) -> jax.Array:
    """Put images on the mesh as a batch; each process provides its own devices' rows.

    Args:
      mesh: from `make_mesh`.
      images: [B, H, W, 3] uint8, the same on every process.

    Returns:
      [B', H, W, 3] float32 in [-1, 1]. B' is B rounded up to a multiple of the mesh's data * fsdp;
      copies of the last image fill it.
    """
    missing = -len(images) % (mesh.shape["data"] * mesh.shape["fsdp"])
    filled = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
    return jax.make_array_from_callback(
        filled.shape,
        batch_sharding(mesh),
        lambda index: filled[index].astype(np.float32) / 127.5 - 1,
    )


@cache
def _distances(mesh: Mesh) -> Callable[[dict, jax.Array, jax.Array], jax.Array]:
    # Replicated, since every process reads it back.
    return jax.jit(lpips, out_shardings=NamedSharding(mesh, P()))


def mean_lpips(mesh: Mesh, images: np.ndarray, truth: np.ndarray) -> float:
    """Mean LPIPS of images and truth, both uint8 [B, H, W, 3]; each device computes its rows."""
    weights = load_lpips("alex")
    distances = _distances(mesh)(weights, rows_over(mesh, images), rows_over(mesh, truth))
    return float(np.mean(np.asarray(distances)[: len(images)]))
