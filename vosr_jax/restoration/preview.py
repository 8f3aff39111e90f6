"""What a picture looks like while its tiles are being computed."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from vosr_jax.files.levels import to_uint8

if TYPE_CHECKING:
    from vosr_jax.restoration.model import RestorationModel

Place = tuple[slice, slice]

# Previews take at most a tenth of the time, and come at most once in this many seconds.
_SHARE = 0.1
_PAUSE = 0.5


class Preview:
    """The enlarged picture, in which finished tiles replace what they cover.

    A tile shows where the sampler would end if it went straight on from there, so a picture of
    several steps fills with every one of them. Tiles are decoded one by one, without what their
    neighbours blend in; the colour fix and the strength are not applied.

    Args:
      model: whose autoencoder decodes.
      lq: [H, W, 3] in [0, 1], the enlarged picture.
      lq_latent: [1, h, w, C], of lq mirrored to whole tiles.
      vae_tile_size: as in `RestorationModel.decode`.
      show: called with the picture as it stands, uint8 [H, W, 3], a new array each time.
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
        """Take a tile in, and show the picture unless it was shown a moment ago.

        Args:
          place: rows and columns of the latent that the tile covers.
          z: [1, rows, columns, C], the sampler's end as the tile sees it.
        """
        rows, columns = place
        key = rows.start, rows.stop, columns.start, columns.stop
        self._waiting.pop(key, None)
        self._waiting[key] = z
        began = self._clock()
        if began < self._next:
            return
        # The tiles that wait longest come first; those of a later step replace their elders.
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
        # What was mirrored lies beyond the picture.
        target[:] = to_uint8(tile[: target.shape[0], : target.shape[1]])
