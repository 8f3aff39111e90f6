"""Preview of an image while its tiles are being computed."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from vosr_jax.files.levels import to_uint8

if TYPE_CHECKING:
    from vosr_jax.restoration.model import RestorationModel

Place = tuple[slice, slice]

# Previews take at most this share of the time and come at most once per pause, in seconds.
_SHARE = 0.1
_PAUSE = 0.5


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
        model: "RestorationModel",
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
