"""What a click on the page does: pictures through the queue, and files to look at and to take."""

import concurrent.futures
import contextlib
import dataclasses
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vosr_jax.errors import UserError
from vosr_jax.files.photo import Photo
from vosr_jax.files.photo_reading import read_photo
from vosr_jax.files.photo_writing import encode
from vosr_jax.restoration.seeds import picture_seed
from vosr_jax.restoration.shapes import enlarged_size
from vosr_jax.serving import refusals
from vosr_jax.serving.fields import ENDINGS, Fields
from vosr_jax.serving.jobs import Job
from vosr_jax.serving.refusals import Refusal
from vosr_jax.serving.service import Service

# Browsers get slow beyond it; what is downloaded has its full size.
_LONGEST_SHOWN = 4096
_LONGEST_PREVIEW = 1024
_TICK = 0.5

Tell = Callable[[float, str], None]


@dataclasses.dataclass(frozen=True)
class Restored:
    """A finished picture of a visitor's.

    Attributes:
      upload: number of the uploaded file, from 0.
      name: of the uploaded file.
      variant: what sets it apart from the file's other results, "own" or a preset; "" if alone.
      before: the file's picture enlarged bicubically, to look at.
      after: the result, to look at.
      result: the result, to take.
    """

    upload: int
    name: str
    variant: str
    before: Path
    after: Path
    result: Path

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"{self.name}, {self.variant}" if self.variant else self.name


@dataclasses.dataclass
class Visit:
    """What a click has made so far.

    Attributes:
      folder: of its files; they are gone after `close`.
      pictures: finished ones.
      failures: a sentence a picture that failed.
      so_far: what the picture at work looks like, a new file each time; None if nothing is shown.
    """

    folder: tempfile.TemporaryDirectory
    pictures: list[Restored] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)
    so_far: Path | None = None

    def close(self) -> None:
        """Remove the files."""
        self.folder.cleanup()


@dataclasses.dataclass
class _Wanted:
    """A picture that is to be made of an upload."""

    upload: int
    name: str
    variant: str
    content: bytes
    fields: Fields
    job: Job | None = None
    until: float = 0.0
    shown: np.ndarray | None = None


def restore(
    service: Service, uploads: Sequence[tuple[str, Path]], fields: Sequence[Fields], tell: Tell
) -> Iterator[Visit]:
    """Restore a visitor's pictures; yields the visit again and again, so that it can be closed.

    Closed early, it leaves the queue, and the worker breaks off what is at work.

    Args:
      service: its queue takes the pictures, some at a time.
      uploads: (name, file).
      fields: each makes a picture of every upload; several differ in their preset. The seed is a
        run's, as of `vosr upscale`: each picture's follows from it and the file. The format is
        that of each source where it can be written.
      tell: is called with the finished share and a line.

    Raises:
      Refusal: the queue is full, or the fields cannot be used.
    """
    visit = Visit(tempfile.TemporaryDirectory(prefix="vosr-page-", ignore_cleanup_errors=True))
    left = [(number, given) for number in range(len(uploads)) for given in fields]
    watch = _Watch(len(left), tell)
    while left:
        with contextlib.ExitStack() as held:
            chunk: list[_Wanted] = []
            for number, given in left[: service.settings.batch]:
                try:
                    held.enter_context(service.place())
                except Refusal:
                    if not chunk:
                        raise
                    break
                variant = (given.preset or "own") if len(fields) > 1 else ""
                chunk.append(_wanted(number, *uploads[number], given, variant))
            del left[: len(chunk)]
            for wanted in chunk:
                _submit(service, wanted, visit, held)
            for wanted in chunk:
                for _ in _waits(service, wanted, visit, watch):
                    yield visit
                watch.finished += 1
                yield visit


def _wanted(number: int, name: str, file: Path, fields: Fields, variant: str) -> _Wanted:
    content = file.read_bytes()
    ending = ENDINGS.get(Path(name).suffix.lower().removeprefix("."), "png")
    own = {"seed": picture_seed(fields.seed, content), "format": ending}
    return _Wanted(number, name, variant, content, fields.model_copy(update=own))


def _submit(service: Service, wanted: _Wanted, visit: Visit, held: contextlib.ExitStack) -> None:
    try:
        if len(wanted.content) > service.settings.max_bytes:
            raise refusals.body_too_large(service.settings.max_megabytes)
        wanted.until = time.monotonic() + service.settings.max_seconds
        wanted.job = service.submit(wanted.content, wanted.fields, watched=True)
        held.callback(wanted.job.leave)
    except Refusal as refusal:
        _failed(wanted, refusal, visit)


def _failed(wanted: _Wanted, error: Exception, visit: Visit) -> None:
    sentence = f"{wanted.name}: {error}"
    # Every variant of a damaged picture fails alike.
    if sentence not in visit.failures:
        visit.failures.append(sentence)


def _waits(service: Service, wanted: _Wanted, visit: Visit, watch: "_Watch") -> Iterator[None]:
    """Yield until the picture is finished or has failed, and keep it."""
    if wanted.job is None:
        return
    try:
        while not wanted.job.result.done():
            if time.monotonic() > wanted.until:
                wanted.job.leave()
                limit = service.settings.max_seconds
                raise refusals.too_slow(limit, "the picture was not finished")
            watch.look(wanted)
            _look(wanted, wanted.job, visit)
            yield
            concurrent.futures.wait([wanted.job.result], _TICK)
        visit.pictures.append(_kept(wanted, wanted.job.result.result(), visit))
    except (Refusal, UserError) as error:
        _failed(wanted, error, visit)
    finally:
        visit.so_far = None


def _look(wanted: _Wanted, job: Job, visit: Visit) -> None:
    """Keep the newest preview as a file; the page has copied the one before."""
    picture = job.preview
    if picture is None or picture is wanted.shown:
        return
    wanted.shown = picture
    if visit.so_far is not None:
        visit.so_far.unlink(missing_ok=True)
    image = Image.fromarray(picture)
    image.thumbnail((_LONGEST_PREVIEW, _LONGEST_PREVIEW))
    # A name of its own, or browsers would show the one they have.
    visit.so_far = Path(visit.folder.name) / f"so-far-{time.monotonic_ns()}.jpg"
    image.save(visit.so_far, quality=90)


def _kept(wanted: _Wanted, result: Photo, visit: Visit) -> Restored:
    """The files of a finished picture, below names of ours."""
    folder = Path(visit.folder.name) / str(len(visit.pictures))
    folder.mkdir()
    stem = re.sub(r"[^\w.-]+", "_", Path(wanted.name).stem)[:80].strip(".") or "picture"
    stem = f"{stem}-{wanted.fields.scale:g}x" + (f"-{wanted.variant}" if wanted.variant else "")
    target = folder / f"{stem}.{wanted.fields.ending}"
    target.write_bytes(encode(result, target))
    source = read_photo(wanted.content).image
    size = enlarged_size(source.size, wanted.fields.scale)
    before, after = folder / "before.png", folder / "after.png"
    _shown(source.resize(size, Image.Resampling.BICUBIC)).save(before)
    _shown(result.image).save(after)
    return Restored(wanted.upload, wanted.name, wanted.variant, before, after, target)


def _shown(image: Image.Image) -> Image.Image:
    image.thumbnail((_LONGEST_SHOWN, _LONGEST_SHOWN))
    return image


class _Watch:
    """Tells how far a visit is and what time is left."""

    def __init__(self, count: int, tell: Tell):
        self.finished = 0
        self._count, self._tell = count, tell
        self._began: float | None = None

    def look(self, wanted: _Wanted) -> None:
        """Tell of the picture that is waited for."""
        job, title = wanted.job, wanted.name
        if wanted.variant:
            title += f", {wanted.variant}"
        if job is None or not job.begun:
            self._tell(self.finished / self._count, f"{title} waits in the queue")
            return
        self._began = self._began or time.monotonic()
        share = (self.finished + job.share) / self._count
        line, passed = title, time.monotonic() - self._began
        if share > 0.02 and passed > 1:
            line += f", {passed * (1 - share) / share:.0f} s left"
        self._tell(share, line)
