"""Making one sample from its seed and index alone: read, crop, flip, degrade."""

import threading
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from vosr_jax.data.cropping import at_least, random_crop
from vosr_jax.data.degradation import DegradationPlan, Settings, sample_plan
from vosr_jax.data.pictures import UnreadablePicture, decode_image, raw_picture, read_all
from vosr_jax.data.sources import Source

# A source in which this many records fail in a row counts as gone.
_ATTEMPTS = 32

# Most bad records that a process remembers, to skip reading them again.
_REMEMBERED = 10_000

# A source this many times larger than the cache is not cached: hits would be rare.
_CACHED_SHARE = 8

# Pillow stores an RGB pixel in four bytes.
_PIXEL_BYTES = 4


@dataclass(frozen=True)
class BadRecord:
    """A record that could not be read."""

    source: str
    record: str
    reason: str


@dataclass
class Sample:
    """An HR/LQ pair and how it was made.

    Attributes:
      hr, lq: [side, side, 3] uint8.
      index: position in the endless sequence of samples.
      bad: the records that could not be read for it, the intended one first.
      enlarged: whether the image was smaller than the crop.
      lost: whether no record of the source could be read; hr and lq are then black.
      plan: the degradation's plan, if it is kept.
    """

    hr: np.ndarray
    lq: np.ndarray
    index: int
    bad: list[BadRecord] = field(default_factory=list)
    enlarged: bool = False
    lost: bool = False
    plan: DegradationPlan | None = None


class PictureCache:
    """Keeps the first decoded images, up to a number of bytes, and never drops one.

    Decoding a photo takes longer than degrading it.
    Every pass over a source reads each image once. Dropping the oldest would drop those that are
    needed again soonest. Keeping the first that fit gives the highest hit rate.
    """

    def __init__(self, capacity: int):
        self._free = capacity
        self._pictures: dict[tuple[int, int], Image.Image] = {}
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> Image.Image | None:
        """The image of (source, position), or None."""
        return self._pictures.get(key)

    def put(self, key: tuple[int, int], picture: Image.Image) -> None:
        """Keep an image if there is room."""
        size = picture_bytes(picture)
        with self._lock:
            if key not in self._pictures and size <= self._free:
                self._free -= size
                self._pictures[key] = picture

    def __len__(self) -> int:
        return len(self._pictures)


def picture_bytes(picture: Image.Image) -> int:
    """Bytes of memory that a decoded image takes."""
    return _PIXEL_BYTES * picture.width * picture.height


class SampleMaker:
    """Turns (index, (source, position)) into a Sample; each process has its own copy.

    Args:
      sources: sources of the records.
      seed: with the index, the only input of a sample's randomness.
      crop_size: side of hr and lq, pixels.
      scale: scale of the degradation.
      flip: mirror half of the crops.
      degradation: settings of the random degradation.
      cache_bytes: bytes of decoded images to keep, per process.
      keep_plans: whether samples keep their plans.
    """

    def __init__(
        self,
        sources: tuple[Source, ...],
        *,
        seed: int,
        crop_size: int,
        scale: int,
        flip: bool,
        degradation: Settings,
        cache_bytes: int,
        keep_plans: bool = False,
    ):
        self.sources = sources
        self.seed = seed
        self.crop_size = crop_size
        self.scale = scale
        self.flip = flip
        self.degradation = degradation
        self.cache_bytes = cache_bytes
        self.keep_plans = keep_plans
        self._forget()

    def _forget(self) -> None:
        self._cache = PictureCache(self.cache_bytes)
        self._unreadable: dict[tuple[int, int], BadRecord] = {}

    def __getstate__(self) -> dict:
        # A worker process starts with an empty cache, since locks cannot be pickled.
        return {k: v for k, v in self.__dict__.items() if k not in ("_cache", "_unreadable")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._forget()

    def __call__(self, index: int, place: tuple[int, int]) -> Sample:
        """Make the sample at a position of the endless sequence.

        Args:
          index: that position.
          place: (index of the source, position in it).
        """
        hr, enlarged, rng, bad = self._crop_or_replace(index, *place)
        if hr is None:
            black = np.zeros((self.crop_size, self.crop_size, 3), np.uint8)
            return Sample(black, black, index, bad, lost=True)
        plan = sample_plan(rng, hr.shape[0], hr.shape[1], self.degradation, self.scale)
        _, lq = plan.apply(hr)
        return Sample(hr, lq, index, bad, enlarged, plan=plan if self.keep_plans else None)

    def _crop_or_replace(self, index, source, position):
        """Crop the image, or another one of its source if it is unreadable.

        Also returns the random generator, from which the degradation is drawn next.
        """
        bad: list[BadRecord] = []
        # A separate stream: a replacement must not shift the crop's draws.
        others = np.random.default_rng((self.seed, index, 1))
        for _ in range(_ATTEMPTS):
            rng = np.random.default_rng((self.seed, index))
            outcome = self._crop(source, position, rng)
            if not isinstance(outcome, BadRecord):
                return *outcome, rng, bad
            bad.append(outcome)
            position = int(others.integers(len(self.sources[source])))
        return None, False, None, bad

    def _crop(self, source: int, position: int, rng) -> tuple[np.ndarray, bool] | BadRecord:
        """(crop, whether the image was enlarged for it), or the bad record."""
        key = source, position
        if key in self._unreadable:
            return self._unreadable[key]
        records = self.sources[source]
        try:
            picture = self._cache.get(key)
            if picture is not None:
                return self._cut(picture, rng)
            with records.open(position) as file:
                raw = raw_picture(file)
                if raw is not None and min(raw.height, raw.width) >= self.crop_size:
                    return random_crop(raw, self.crop_size, rng, self.flip), False
                picture = decode_image(read_all(file))
        except UnreadablePicture as error:
            bad = BadRecord(records.name, records.record_name(position), str(error))
            if len(self._unreadable) < _REMEMBERED:
                self._unreadable[key] = bad
            return bad
        if len(records) * picture_bytes(picture) <= _CACHED_SHARE * self.cache_bytes:
            self._cache.put(key, picture)
        return self._cut(picture, rng)

    def _cut(self, picture: Image.Image, rng) -> tuple[np.ndarray, bool]:
        large_enough, enlarged = at_least(picture, self.crop_size)
        return random_crop(large_enough, self.crop_size, rng, self.flip), enlarged
