"""The upscaler: a picture in, a restored and larger one out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from vosr_jax.errors import UserError
from vosr_jax.restoration import colour, transparency
from vosr_jax.restoration.photograph import Photograph, prepare
from vosr_jax.restoration.picture import read_photograph
from vosr_jax.restoration.presets import PRESETS, preset_settings
from vosr_jax.restoration.settings import check_settings, sampler_settings
from vosr_jax.restoration.shapes import computed_side, enlarged, enlarged_size, mirror
from vosr_jax.restoration.tiling import TileGrid, plan_tiles

if TYPE_CHECKING:
    import jax

    from vosr_jax.diffusion.sampling import SamplerSettings
    from vosr_jax.restoration.model import RestorationModel
    from vosr_jax.restoration.shapes import Shapes

Picture = Image.Image | Photograph | np.ndarray | str | Path


class Upscaler:
    """Restores photographs with one model.

    Attributes:
      model: the networks and their own settings.
      device: where it runs; None is JAX's default.
    """

    def __init__(self, model: RestorationModel, device: jax.Device | None = None):
        self.model = model
        self.device = device

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path = "nano-onestep", precision: str = "float32"
    ) -> Upscaler:
        """Load a model.

        Args:
          name_or_path: "nano" or "nano-onestep" (shipped with the package), a folder in the
            official layout, one of our exports, a workdir of train.py (its newest checkpoint's
            averaged weights), or one of the hub (docs/weights.md).
          precision: of the denoiser: "float32", "mixed" or "bfloat16" (docs/sampling.md).

        Raises:
          UserError: no such model or precision, or its files are damaged.
        """
        from vosr_jax.compilation_cache import use_compilation_cache
        from vosr_jax.restoration.loading import load_model

        use_compilation_cache()
        return cls(load_model(name_or_path, precision))

    def on(self, device: jax.Device) -> Upscaler:
        """The same upscaler with its networks copied to a device."""
        from vosr_jax.restoration.model import on_device

        return Upscaler(on_device(self.model, device), device)

    def preset(self, name: str) -> dict[str, float]:
        """Guidance settings by name, "faithful", "balanced" or "creative", as keyword arguments.

        Raises:
          UserError: no such preset, or a one-step model, whose guidance is fixed.
        """
        if name not in PRESETS:
            raise UserError(f"preset '{name}' is unknown; choose {', '.join(PRESETS)}")
        if self.model.sampler.r_input:
            raise UserError(
                f"{self.model.name} is a one-step model, whose guidance is fixed by its training; "
                "leave the preset out"
            )
        return preset_settings(name, self.model)

    def __call__(
        self,
        image: Picture,
        scale: float = 4,
        steps: int | None = None,
        guidance_scale: float | None = None,
        weak_strength: float | None = None,
        tile_size: int | Literal["auto"] = 512,
        tile_overlap: int = 64,
        vae_tile_size: int | None = None,
        colour_fix: Literal["adain", "wavelet", "none"] | None = None,
        seed: int = 0,
        noise: np.ndarray | None = None,
        posterior_noise: np.ndarray | None = None,
        output: Literal["pil", "numpy"] = "pil",
        progress: Callable[[float], None] | None = None,
        *,
        schedule: Literal["linear", "cosine"] | None = None,
        guidance_interval: tuple[float, float] | None = None,
        shapes: Shapes = "exact",
    ) -> Any:
        """Restore one picture. None for a setting means the checkpoint's own value.

        Args:
          image: a PIL picture of any mode, a file or what `read_photograph` made of it, or an
            array [H, W, 3], uint8 or float in [0, 1].
          scale: 1 to 8, fractions too; each side becomes round(scale * side).
          steps: of the sampler; a one-step model takes any number too.
          guidance_scale: below 1 leans to the dimly seen condition (more invention), above 1
            away from it; 1 is the plain model.
          weak_strength: how much the guidance's weak branch sees of the picture.
          tile_size: side of the denoiser's tiles in pixels of the result; 0 means no tiles,
            "auto" 512 or, where the device's free memory is too small for that, less.
          tile_overlap: in pixels; half a tile where it is a tile or more.
          vae_tile_size: side of the autoencoder's tiles, which do not change the result; 0 means
            the whole picture at once, None what the device's free memory allows.
          colour_fix: how the source's colours are kept.
          seed: of the noise, whatever else is restored beside it.
          noise, posterior_noise: the draws themselves, [1, C, h, w].
          output: "pil", or "numpy" for float32 [H, W, C] in [0, 1].
          progress: called with the finished share, 0 to 1.
          schedule: of the sampler's times.
          guidance_interval: (t_start, t_end) within which guidance acts.
          shapes: "exact", or "buckets" for few compiled programs over pictures of many sizes
            (see `restoration.shapes`).

        Returns:
          The picture with the source's kind (grey, transparency, colour profile), or an array.

        Raises:
          UserError: a setting or a file that cannot be used.
        """
        import jax

        from vosr_jax.restoration.draws import latent_draws

        photograph = _photograph(image)
        check_settings(scale, tile_size, tile_overlap, vae_tile_size, colour_fix, output, shapes)
        sampler = self.sampler(
            steps=steps,
            guidance_scale=guidance_scale,
            weak_strength=weak_strength,
            schedule=schedule,
            guidance_interval=guidance_interval,
        )
        size = enlarged_size(photograph.rgb.size, scale)
        tile_size, vae_tile_size = self.tile_sizes(size, tile_size, vae_tile_size)
        if 0 < tile_size <= tile_overlap:
            # Otherwise small tiles with the default overlap would begin at every pixel.
            tile_overlap = tile_size // 2
        sources = [photograph.rgb]
        if photograph.alpha is not None:
            sources.append(transparency.as_picture(photograph.alpha))
        plan = _Plan(tile_size, tile_overlap, vae_tile_size, shapes)
        with jax.default_device(self.device):
            restored = []
            for number, source in enumerate(sources):
                lq = enlarged(source, scale)
                tell = None if progress is None else _part_of(progress, number, len(sources))
                draws = latent_draws(
                    self.model, plan.computed(lq, self.model), seed, noise, posterior_noise
                )
                restored.append(self._restore(lq, draws, sampler, plan, tell))

        picture = restored[0]
        if self.model.truncate:
            picture = colour.to_uint8(picture, truncate=True) / np.float32(255)
        kind = colour_fix or self.model.colour_fix
        picture = colour.fix_colour(kind, picture, enlarged(photograph.rgb, scale))
        eight_bits = Image.fromarray(colour.to_uint8(picture, truncate=self.model.truncate))
        alpha = None
        if photograph.alpha is not None:
            alpha = transparency.within_source(restored[1], photograph.alpha)
        finished = photograph.finish(eight_bits, alpha)
        return finished if output == "pil" else _as_float(picture, finished)

    def check(
        self,
        *,
        scale: float = 4,
        tile_size: int | Literal["auto"] = 512,
        tile_overlap: int = 64,
        vae_tile_size: int | None = None,
        colour_fix: str | None = None,
        shapes: str = "exact",
        **sampler: Any,
    ) -> None:
        """Raise the UserError that a call with these settings would raise for any picture."""
        check_settings(scale, tile_size, tile_overlap, vae_tile_size, colour_fix, "pil", shapes)
        self.sampler(**sampler)

    def tile_sizes(
        self,
        size: tuple[int, int],
        tile_size: int | Literal["auto"] = "auto",
        vae_tile_size: int | None = None,
    ) -> tuple[int, int]:
        """Sides of the denoiser's and the autoencoder's tiles for a result of (width, height)."""
        if tile_size != "auto" and vae_tile_size is not None:
            return tile_size, vae_tile_size
        from vosr_jax.restoration.memory import plan_tile_sizes

        denoiser, autoencoder = plan_tile_sizes(self.model, size[::-1])
        if tile_size != "auto":
            denoiser = tile_size
        return denoiser, autoencoder if vae_tile_size is None else vae_tile_size

    def sampler(self, **given: Any) -> SamplerSettings:
        """The checkpoint's sampler with what is given and not None.

        Args:
          given: steps, guidance_scale, weak_strength, schedule, guidance_interval.

        Raises:
          UserError: a value that cannot be used, or guidance for a one-step model.
        """
        return sampler_settings(self.model, given)

    def _restore(self, lq: np.ndarray, draws, sampler, plan: _Plan, progress) -> np.ndarray:
        """lq [H, W, 3] in [0, 1] to the restored picture, the same shape and nominal range."""
        import jax

        from vosr_jax.restoration.memory import tile_batch

        model = self.model
        posterior_noise, noise = draws
        height, width = lq.shape[:2]
        padded = mirror(lq, plan.computed(lq, model)) * 2 - 1
        # Accelerators round float32 products to less by default.
        with jax.default_matmul_precision("highest"):
            lq_latent = model.encode(padded[None], posterior_noise, plan.vae_tile_size)
            downscale, patch = model.autoencoder.downscale, model.denoiser.settings.patch_size
            latent_hw = np.shape(lq_latent)[1:3]
            grid = plan_tiles(latent_hw, plan.tile_size, plan.tile_overlap, downscale, patch)
            together = tile_batch()
            tokens = self._tokens(padded, grid, together)
            tick = None
            if progress is not None:
                tick = _Ticks(progress, _evaluations(sampler, grid, together))
            latent = model.sample(lq_latent, noise, tokens, sampler, grid, together, tick)
            restored = np.asarray(model.decode(latent, plan.vae_tile_size))[0]
        return restored[:height, :width] * 0.5 + 0.5

    def _tokens(self, lq: np.ndarray, grid: TileGrid | None, tile_batch: int):
        """[1, N, D] of the picture, or [1, tiles, N, D] of its tiles; None without encoder."""
        if self.model.encoder is None or grid is None:
            return self.model.visual_tokens(lq[None])
        downscale = self.model.autoencoder.downscale
        side = grid.side * downscale
        corners = grid.starts * downscale
        crops = [lq[row : row + side, column : column + side] for row, column in corners]
        crops += crops[-1:] * (-len(crops) % tile_batch)
        tokens = [
            np.asarray(self.model.visual_tokens(np.stack(crops[i : i + tile_batch])))
            for i in range(0, len(crops), tile_batch)
        ]
        return np.concatenate(tokens)[None, : len(corners)]


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How one picture is cut up."""

    tile_size: int
    tile_overlap: int
    vae_tile_size: int
    shapes: str

    def computed(self, lq: np.ndarray, model: RestorationModel) -> tuple[int, int]:
        """Height and width that are computed for an enlarged picture."""
        height, width = lq.shape[:2]
        # A thin strip would need a tile at every pixel of its length: its overlap is its width.
        shortest = 2 * self.tile_overlap if 0 < self.tile_size < max(height, width) else 1
        rows, columns = (
            computed_side(side, model.multiple, shortest, self.shapes) for side in (height, width)
        )
        return rows, columns


class _Ticks:
    """Counts evaluations of the denoiser and tells the finished share."""

    def __init__(self, progress: Callable[[float], None], expected: int):
        self._progress, self._expected, self._done = progress, expected, 0

    def __call__(self) -> None:
        self._done += 1
        self._progress(min(self._done / self._expected, 1.0))


def _part_of(progress: Callable[[float], None], number: int, count: int):
    return lambda share: progress((number + share) / count)


def _evaluations(sampler: SamplerSettings, grid: TileGrid | None, tile_batch: int) -> int:
    from vosr_jax.restoration.tiled_network import tile_batches

    return sampler.steps * (1 if grid is None else tile_batches(grid, tile_batch))


def _photograph(image: Picture) -> Photograph:
    if isinstance(image, Photograph):
        return image
    if isinstance(image, (str, Path)):
        return read_photograph(image)
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise UserError(f"an array must be [H, W, 3], not {list(image.shape)}")
        if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
            raise UserError(f"an array must be uint8, or float in [0, 1], not {image.dtype}")
        if image.dtype != np.uint8:
            image = colour.to_uint8(image)
        image = Image.fromarray(image)
    return prepare(image)


def _as_float(restored: np.ndarray, finished: Image.Image) -> np.ndarray:
    """The unrounded values with the bands of the finished picture."""
    bands = finished.getbands()
    values = restored
    if bands[0] == "L":
        values = restored @ np.array([[0.299], [0.587], [0.114]])
    if "A" in bands:
        alpha = np.asarray(finished.getchannel("A"), np.float32)[..., None] / 255
        values = np.concatenate([values, alpha], axis=-1)
    return values.astype(np.float32)
