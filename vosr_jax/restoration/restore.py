"""Restore enlarged images: encode, denoise tile by tile with previews, decode."""

import dataclasses
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax import Array
from PIL import Image

from vosr_jax.diffusion.sampler import SamplerSettings
from vosr_jax.files.photo import to_uint8
from vosr_jax.restoration.denoising import Latents, denoise, network_calls, rows_of
from vosr_jax.restoration.inputs import computed_side, mirror
from vosr_jax.restoration.memory import tile_batch
from vosr_jax.restoration.model import RestorationModel
from vosr_jax.restoration.tiled.latent import TileGrid, plan_tiles, program_sides

Place = tuple[slice, slice]

# Previews take at most this share of the time and come at most once per pause, in seconds.
_SHARE = 0.1
_PAUSE = 0.5


@dataclasses.dataclass(frozen=True)
class TilePlan:
    """How one image is cut into tiles.

    Attributes:
      tile_size, tile_overlap: of the denoiser, in pixels of the result; 0 means no tiles.
      vae_tile_size: of the autoencoder; 0 means the whole image.
      shapes: one of `settings.SHAPES`.
      tile_passes: grids of tiles, 1 or 2, as in `tiled.latent.plan_tiles`.
    """

    tile_size: int
    tile_overlap: int
    vae_tile_size: int
    shapes: str
    tile_passes: int = 1

    def computed(self, size: tuple[int, int], model: RestorationModel) -> tuple[int, int]:
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
    model: RestorationModel,
    pictures: Sequence[Enlarged],
    sampler: SamplerSettings,
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


def _latents(model: RestorationModel, picture: Enlarged, together: int) -> Latents:
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


def _tokens(
    model: RestorationModel, lq: np.ndarray, grid: TileGrid | None, together: int
) -> Array | np.ndarray | None:
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


def _decoded(model: RestorationModel, picture: Enlarged, latent: np.ndarray) -> np.ndarray:
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


class Preview:
    """The enlarged input, overwritten by finished tiles.

    A tile shows where the sampler would end if it went straight on from there, so each sampling
    step updates the whole image. Tiles are decoded one by one, without blending with their
    neighbours; the colour fix and the strength are not applied.

    Args:
      model: the model whose autoencoder decodes.
      lq: [H, W, 3] in [0, 1], the enlarged input.
      lq_latent: [1, h, w, C], of lq mirrored to whole tiles.
      vae_tile_size: as in `RestorationModel.decode`.
      show: called with the current preview, uint8 [H, W, 3], a new array each time.
      clock: seconds.
    """

    def __init__(
        self,
        model: RestorationModel,
        lq: np.ndarray,
        lq_latent: np.ndarray,
        vae_tile_size: int,
        show: Callable[[np.ndarray], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._model, self._lq_latent, self._vae_tile_size = model, lq_latent, vae_tile_size
        self._shown, self._show, self._clock = to_uint8(lq), show, clock
        self._waiting: dict[tuple[int, int, int, int], np.ndarray] = {}
        self._next = clock() + _PAUSE

    def __call__(self, place: Place, z: np.ndarray) -> None:
        """Take in a tile, and show the preview unless it was shown a moment ago.

        Args:
          place: rows and columns of the latent that the tile covers.
          z: [1, rows, columns, C], the tile's estimate of the sampler's end.
        """
        rows, columns = place
        key = rows.start, rows.stop, columns.start, columns.stop
        self._waiting.pop(key, None)
        self._waiting[key] = z
        began = self._clock()
        if began < self._next:
            return
        # The tiles that have waited longest come first. A later step's tile replaces an older one.
        while self._waiting and (self._clock() - began) <= _SHARE * _PAUSE:
            oldest = next(iter(self._waiting))
            self._paste(oldest, self._waiting.pop(oldest))
        self._show(self._shown.copy())
        ended = self._clock()
        self._next = ended + max(_PAUSE, (ended - began) / _SHARE)

    def _paste(self, key: tuple[int, int, int, int], z: np.ndarray) -> None:
        top, bottom, left, right = key
        lq_latent = self._lq_latent[:, top:bottom, left:right]
        latent = np.asarray(self._model.parameterization.to_latent(z, lq_latent))
        if not np.isfinite(latent).all():
            return
        tile = np.asarray(self._model.decode(latent, self._vae_tile_size))[0] * 0.5 + 0.5
        side = self._model.autoencoder.downscale
        target = self._shown[top * side : bottom * side, left * side : right * side]
        # The mirrored part lies outside the image.
        target[:] = to_uint8(tile[: target.shape[0], : target.shape[1]])


def images_for_programs(tile_size: int, together: int | None = None) -> list[Image.Image]:
    """Make grey images that use every program.

    Args:
      tile_size: pixels; half a tile, a partial tile and full tiles have programs of their own.
      together: tiles in one call at most, by default the device's; each power of two below it has
        a program, too.
    """
    together = tile_batch() if together is None else together
    sides = tile_size // 2, tile_size * 3 // 4, tile_size + tile_size // 8
    sizes = [(side, side) for side in sides]
    count = 2
    while count <= together:
        # Tiles overlap by an eighth, so this strip has just so many.
        sizes.append((tile_size + (count - 1) * (tile_size - tile_size // 8), tile_size))
        count *= 2
    return [Image.new("RGB", size, (128, 128, 128)) for size in sizes]
