"""Restore enlarged images: encode, denoise tile by tile, decode."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax import Array

from vosr_jax.restoration.denoising import Latents, denoise, network_calls, rows_of
from vosr_jax.restoration.memory import tile_batch
from vosr_jax.restoration.preview import Preview
from vosr_jax.restoration.shapes import computed_side, mirror
from vosr_jax.restoration.tiled.latent import TileGrid, plan_tiles, program_sides

if TYPE_CHECKING:
    from vosr_jax.diffusion.sampler import SamplerSettings
    from vosr_jax.restoration.model import RestorationModel


@dataclasses.dataclass(frozen=True)
class TilePlan:
    """How one image is cut into tiles.

    Attributes:
      tile_size, tile_overlap: of the denoiser, in pixels of the result; 0 means no tiles.
      vae_tile_size: of the autoencoder; 0 means the whole image.
      shapes: one of `shapes.SHAPES`.
      tile_passes: grids of tiles, 1 or 2, as in `tiled.latent.plan_tiles`.
    """

    tile_size: int
    tile_overlap: int
    vae_tile_size: int
    shapes: str
    tile_passes: int = 1

    def computed(self, size: tuple[int, int], model: "RestorationModel") -> tuple[int, int]:
        """Height and width to compute for an enlarged image of size (height, width)."""
        # Without a minimum, a thin strip's overlap would equal its width: one tile per pixel.
        overlap = max(self.tile_overlap, self.tile_size // 8)  # as `plan_tiles` raises it
        shortest = min(2 * overlap, self.tile_size) if 0 < self.tile_size < max(size) else 1
        rows, columns = (computed_side(side, model.multiple, shortest) for side in size)
        return rows, columns


@dataclasses.dataclass(frozen=True)
class Enlarged:
    """One image to restore.

    Attributes:
      lq: [H, W, 3] in [0, 1], already enlarged.
      plan: how it is cut into tiles.
      noise: the sampler's draw [1, h, w, C] for the size that `plan.computed` returns.
      posterior_noise: the posterior's draw, or None for its mode.
      preview: called from time to time with the current preview, uint8 [H, W, 3].
    """

    lq: np.ndarray
    plan: TilePlan
    noise: Array
    posterior_noise: Array | None
    preview: Callable[[np.ndarray], None] | None = None


def restore(
    model: "RestorationModel",
    pictures: Sequence[Enlarged],
    sampler: "SamplerSettings",
    progress: Callable[[float], None] | None = None,
    disagreements: list[list[float]] | None = None,
) -> list[np.ndarray]:
    """Restore images; tiles of equal shape share network calls.

    Args:
      model: the model that restores them.
      pictures: of any sizes.
      sampler: steps and guidance.
      progress: called with the finished share, 0 to 1.
      disagreements: as in `denoising.denoise`.

    Returns:
      One [H, W, 3] array per image, nominally in [0, 1].

    Raises:
      UserError: the network's values are not finite.
    """
    together = tile_batch()
    # By default accelerators compute float32 products in lower precision.
    with jax.default_matmul_precision("highest"):
        latents = [_latents(model, picture, together) for picture in pictures]
        tick = None
        if progress is not None:
            tick = _Ticks(progress, sampler.steps * network_calls(latents, together))
        restored = denoise(model, latents, sampler, together, tick, disagreements)
        return [
            _decoded(model, picture, latent)
            for picture, latent in zip(pictures, restored, strict=True)
        ]


def _latents(model: "RestorationModel", picture: Enlarged, together: int) -> Latents:
    plan = picture.plan
    padded = mirror(picture.lq, plan.computed(picture.lq.shape[:2], model)) * 2 - 1
    lq_latent = model.encode(padded[None], picture.posterior_noise, plan.vae_tile_size)
    downscale, patch = model.autoencoder.downscale, model.denoiser.settings.patch_size
    latent_hw = np.shape(lq_latent)[1:3]
    sizes = plan.tile_size, plan.tile_overlap, downscale, patch
    grid = plan_tiles(latent_hw, *sizes, plan.tile_passes)
    sides = program_sides(plan.tile_size if plan.shapes == "shared" else 0, downscale, patch)
    tokens = _tokens(model, padded, grid, together)
    preview = None
    if picture.preview is not None:
        lq_array = np.asarray(lq_latent, np.float32)
        preview = Preview(model, picture.lq, lq_array, plan.vae_tile_size, picture.preview)
    return Latents(lq_latent, picture.noise, tokens, grid, sides, preview)


def _tokens(model: "RestorationModel", lq: np.ndarray, grid: TileGrid | None, together: int):
    """Visual tokens [1, N, D] of the image or [1, tiles, N, D] of its tiles; None if no encoder."""
    if model.encoder is None or grid is None:
        return model.visual_tokens(lq[None])
    side = grid.side * model.autoencoder.downscale
    corners = grid.starts * model.autoencoder.downscale
    crops = [lq[row : row + side, column : column + side] for row, column in corners]
    rows = rows_of(len(crops), together)
    crops += crops[-1:] * (-len(crops) % rows)
    tokens = [
        np.asarray(model.visual_tokens(np.stack(crops[i : i + rows])))
        for i in range(0, len(crops), rows)
    ]
    return np.concatenate(tokens)[None, : len(corners)]


def _decoded(model: "RestorationModel", picture: Enlarged, latent: np.ndarray) -> np.ndarray:
    height, width = picture.lq.shape[:2]
    decoded = np.asarray(model.decode(latent, picture.plan.vae_tile_size))[0]
    return decoded[:height, :width] * 0.5 + 0.5


class _Ticks:
    """Count calls of the denoiser and report the finished share."""

    def __init__(self, progress: Callable[[float], None], expected: int):
        self._progress, self._expected, self._done = progress, expected, 0

    def __call__(self) -> None:
        self._done += 1
        self._progress(min(self._done / self._expected, 1.0))
