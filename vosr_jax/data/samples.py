"""One sample: a record read, cropped, flipped and degraded, from its seed and index alone."""

from dataclasses import dataclass, field

import numpy as np

from vosr_jax.data.cache import PictureCache
from vosr_jax.data.cropping import at_least, random_crop
from vosr_jax.data.degradation import RealESRGANSettings, degrade
from vosr_jax.data.pictures import UnreadablePicture
from vosr_jax.data.sources import FileSource

# A source in which so many other records fail one after another has gone as a whole.
_ATTEMPTS = 32


@dataclass(frozen=True)
class BadRecord:
    """A record that could not be read."""

    source: str
    record: str
    reason: str


@dataclass
class Sample:
    """A pair and what happened on the way.

    Attributes:
      hr, lq: [side, side, 3] uint8.
      index: position in the endless sequence of samples.
      bad: the records that could not be read in its place, the one meant first.
      enlarged: the picture was smaller than the crop.
      lost: no record of the source could be read; hr and lq are black.
    """

    hr: np.ndarray
    lq: np.ndarray
    index: int
    bad: list[BadRecord] = field(default_factory=list)
    enlarged: bool = False
    lost: bool = False


class SampleMaker:
    """Turns (index, (source, position)) into a Sample; lives in the process that uses it.

    Args:
      sources: where records are read from.
      seed: with the index, all that the randomness of a sample depends on.
      crop_size: side of hr and lq, pixels.
      scale: of the degradation.
      flip: mirror half of the crops.
      degradation: what may happen to the crop.
      cache_bytes: decoded pictures to keep, per process.
    """

    def __init__(
        self,
        sources: tuple[FileSource, ...],
        *,
        seed: int,
        crop_size: int,
        scale: int,
        flip: bool,
        degradation: RealESRGANSettings,
        cache_bytes: int,
    ):
        self.sources = sources
        self.seed = seed
        self.crop_size = crop_size
        self.scale = scale
        self.flip = flip
        self.degradation = degradation
        self.cache_bytes = cache_bytes
        self._forget()

    def _forget(self) -> None:
        self._cache = PictureCache(self.cache_bytes)
        self._unreadable: dict[tuple[int, int], BadRecord] = {}

    def __getstate__(self) -> dict:
        # A worker process starts with an empty cache; locks cannot travel.
        return {k: v for k, v in self.__dict__.items() if k not in ("_cache", "_unreadable")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._forget()

    def __call__(self, index: int, place: tuple[int, int]) -> Sample:
        """The sample at a position of the endless sequence.

        Args:
          index: that position.
          place: (number of the source, position in it).
        """
        source, position = place
        picture, bad = self._read_or_replace(index, source, position)
        if picture is None:
            black = np.zeros((self.crop_size, self.crop_size, 3), np.uint8)
            return Sample(black, black, index, bad, lost=True)
        rng = np.random.default_rng((self.seed, index))
        picture, enlarged = at_least(picture, self.crop_size)
        hr = random_crop(picture, self.crop_size, rng, self.flip)
        _, lq = degrade(hr, rng, self.degradation, self.scale)
        return Sample(hr, lq, index, bad, enlarged)

    def _read_or_replace(self, index, source, position):
        """The picture, or another of the same source chosen by seed and index alone."""
        bad: list[BadRecord] = []
        # A stream of its own, so that a replacement does not move the crop's draws.
        others = np.random.default_rng((self.seed, index, 1))
        for _ in range(_ATTEMPTS):
            outcome = self._read(source, position)
            if isinstance(outcome, np.ndarray):
                return outcome, bad
            bad.append(outcome)
            position = int(others.integers(len(self.sources[source])))
        return None, bad

    def _read(self, source: int, position: int) -> np.ndarray | BadRecord:
        key = source, position
        if key in self._unreadable:
            return self._unreadable[key]
        picture = self._cache.get(key)
        if picture is None:
            records = self.sources[source]
            try:
                picture = records.read(position)
            except UnreadablePicture as error:
                bad = BadRecord(records.name, records.record_name(position), str(error))
                self._unreadable[key] = bad
                return bad
            self._cache.put(key, picture)
        return picture
