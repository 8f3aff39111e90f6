"""The upscaler: a picture in, a restored and larger one out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from vosr_jax.errors import UserError
from vosr_jax.restoration import colour
from vosr_jax.restoration.picture import Photograph, prepare, read_photograph
from vosr_jax.restoration.tiling import TileGrid, plan_tiles

if TYPE_CHECKING:
    from vosr_jax.diffusion.sampling import SamplerSettings
    from vosr_jax.restoration.model import RestorationModel

Picture = Image.Image | Photograph | np.ndarray | str | Path

_LARGEST_SCALE = 8


class Upscaler:
    """Restores photographs with one model.

    Attributes:
      model: the networks and their own settings.
    """

    def __init__(self, model: RestorationModel):
        self.model = model
        self._progress: Callable[[float], None] | None = None
        self._done = self._expected = 0

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path = "nano", precision: str = "float32"
    ) -> Upscaler:
        """Load a model.

        Args:
          name_or_path: "nano" (shipped with the package), a folder in the official layout, one
            of our exports, or a workdir of train.py (its newest checkpoint's averaged weights).
          precision: of the denoiser: "float32", "mixed" or "bfloat16" (docs/sampling.md).

        Raises:
          UserError: no such model or precision, or its files are damaged.
        """
        from vosr_jax.restoration.compilation_cache import use_compilation_cache
        from vosr_jax.restoration.loading import load_model

        use_compilation_cache()
        return cls(load_model(name_or_path, precision))

    def __call__(
        self,
        image: Picture,
        scale: float = 4,
        steps: int | None = None,
        guidance_scale: float | None = None,
        weak_strength: float | None = None,
        tile_size: int = 512,
        tile_overlap: int = 64,
        vae_tile_size: int | None = None,
        colour_fix: Literal["adain", "wavelet", "none"] | None = None,
        seed: int = 0,
        noise: np.ndarray | None = None,
        posterior_noise: np.ndarray | None = None,
        output: Literal["pil", "numpy"] = "pil",
        progress: Callable[[float], None] | None = None,
    ) -> Any:
        """Restore one picture. None for a setting means the checkpoint's own value.

        Args:
          image: a PIL picture of any mode, a file or what `read_photograph` made of it, or an
            array [H, W, 3], uint8 or float in [0, 1].
          scale: 1 to 8, fractions too; each side becomes round(scale * side).
          steps: of the sampler.
          guidance_scale: below 1 leans to the dimly seen condition (more invention), above 1
            away from it; 1 is the plain model.
          weak_strength: how much the guidance's weak branch sees of the picture.
          tile_size: side of the denoiser's tiles in pixels of the result; 0 means no tiles.
          tile_overlap: in pixels; half a tile where it is a tile or more.
          vae_tile_size: tiles of the autoencoder; None or 0, the whole picture at once.
          colour_fix: how the source's colours are kept.
          seed: of the noise, whatever else is restored beside it.
          noise, posterior_noise: the draws themselves, [1, C, h, w].
          output: "pil", or "numpy" for float32 [H, W, C] in [0, 1].
          progress: called with the finished share, 0 to 1.

        Returns:
          The picture with the source's kind (grey, transparency, colour profile), or an array.

        Raises:
          UserError: a setting or a file that cannot be used.
        """
        photograph = _photograph(image)
        _check(scale, tile_size, tile_overlap, vae_tile_size, colour_fix, output)
        sampler = self._sampler(steps, guidance_scale, weak_strength)
        if 0 < tile_size <= tile_overlap:
            # Otherwise small tiles with the default overlap would begin at every pixel.
            tile_overlap = tile_size // 2
        width, height = (max(round(scale * side), 1) for side in photograph.rgb.size)
        lq = photograph.rgb.resize((width, height), Image.Resampling.BICUBIC)
        lq_pixels = np.asarray(lq, np.float32) / 255

        # A thin strip would need a tile at every pixel of its length: its overlap is its width.
        shortest = 2 * tile_overlap if 0 < tile_size < max(width, height) else 1
        padded = _pad(lq_pixels, self.model.multiple, shortest)
        draws = self._draws(padded.shape[:2], seed, noise, posterior_noise)
        self._progress = progress
        sizes = tile_size, tile_overlap, vae_tile_size or 0
        restored = self._restore(padded * 2 - 1, draws, sampler, *sizes)
        restored = restored[:height, :width] * 0.5 + 0.5

        if self.model.truncate:
            restored = colour.to_uint8(restored, truncate=True) / np.float32(255)
        kind = colour_fix or self.model.colour_fix
        restored = colour.fix_colour(kind, restored, lq_pixels)
        eight_bits = colour.to_uint8(restored, truncate=self.model.truncate)
        finished = photograph.finish(Image.fromarray(eight_bits))
        return finished if output == "pil" else _as_float(restored, finished)

    def _sampler(self, steps, guidance_scale, weak_strength) -> SamplerSettings:
        own = self.model.sampler
        if steps is not None and steps < 1:
            raise UserError(f"steps must be at least 1, not {steps}")
        guided = guidance_scale not in (None, 1) or weak_strength is not None
        if own.r_input and guided:
            raise UserError(
                f"{self.model.name} is a one-step model, whose guidance is fixed by its training; "
                "leave guidance_scale and weak_strength out"
            )
        given = {"steps": steps, "guidance_scale": guidance_scale, "weak_strength": weak_strength}
        return dataclasses.replace(own, **{k: v for k, v in given.items() if v is not None})

    def _draws(self, size: tuple[int, int], seed: int, noise, posterior_noise):
        """(posterior's draw or None, sampler's noise), [1, h, w, C] each; from the seed alone."""
        import jax

        from vosr_jax.restoration.model import channels_last

        autoencoder = self.model.autoencoder
        shape = (1, *(side // autoencoder.downscale for side in size), autoencoder.latent_channels)
        drawn: list[Any] = []
        for number, given in enumerate((posterior_noise, noise)):
            if given is None:
                key = jax.random.fold_in(jax.random.key(seed), number)
                drawn.append(jax.random.normal(key, shape))
                continue
            draw = channels_last(given)
            if draw.shape != shape:
                expected = [1, shape[3], shape[1], shape[2]]
                raise UserError(f"noise must have the shape {expected}, not {np.shape(given)}")
            drawn.append(draw)
        if not self.model.sample_posterior and posterior_noise is None:
            drawn[0] = None
        return tuple(drawn)

    def _restore(
        self, lq: np.ndarray, draws, sampler, tile_size: int, tile_overlap: int, vae_tile_size: int
    ):
        """lq [H, W, 3] in [-1, 1] to the restored picture, the same shape and range."""
        import jax

        model = self.model
        posterior_noise, noise = draws
        # Accelerators round float32 products to less by default.
        with jax.default_matmul_precision("highest"):
            lq_latent = model.encode(lq[None], posterior_noise, vae_tile_size)
            downscale, patch = model.autoencoder.downscale, model.denoiser.settings.patch_size
            latent_hw = np.shape(lq_latent)[1:3]
            grid = plan_tiles(latent_hw, tile_size, tile_overlap, downscale, patch)
            tile_batch = 1 if jax.default_backend() == "cpu" else 8
            tokens = self._tokens(lq, grid, tile_batch)
            self._done, self._expected = 0, _evaluations(sampler, grid, tile_batch)
            tick = None if self._progress is None else self._tick
            latent = model.sample(lq_latent, noise, tokens, sampler, grid, tile_batch, tick)
            restored = np.asarray(model.decode(latent, vae_tile_size))[0]
        if tick is not None:
            jax.effects_barrier()
        return restored

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

    def _tick(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(min(self._done / self._expected, 1.0))


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


def _check(scale, tile_size, tile_overlap, vae_tile_size, colour_fix, output) -> None:
    if not 1 <= scale <= _LARGEST_SCALE:
        raise UserError(f"scale must be between 1 and {_LARGEST_SCALE}, not {scale}")
    if tile_size < 0 or tile_overlap < 0:
        raise UserError("tile_size and tile_overlap must not be negative; 0 means no tiles")
    if vae_tile_size is not None and vae_tile_size < 0:
        raise UserError("vae_tile_size must not be negative; 0 means no tiles")
    if colour_fix is not None and colour_fix not in colour.FIXES:
        raise UserError(f"colour_fix '{colour_fix}' is unknown; choose {', '.join(colour.FIXES)}")
    if output not in ("pil", "numpy"):
        raise UserError(f"output '{output}' is unknown; choose pil or numpy")


def _pad(pixels: np.ndarray, multiple: int, shortest: int) -> np.ndarray:
    """Grow to the right and below to multiples and a shortest side, mirrored at the edge."""
    height, width = pixels.shape[:2]
    for axis, side in enumerate((height, width)):
        padding = [(0, 0)] * 3
        grown = -(-max(side, shortest) // multiple) * multiple
        padding[axis] = (0, grown - side)
        pixels = np.pad(pixels, padding, mode="reflect" if side > 1 else "edge")
    return pixels


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
