"""Work of a click on the page: photos pass through the queue and become files to view and save."""

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
from vosr_jax.restoration.inputs import enlarged_size, picture_seed
from vosr_jax.serving import refusals
from vosr_jax.serving.fields import ENDINGS, Fields
from vosr_jax.serving.job_queue import Job
from vosr_jax.serving.refusals import Refusal
from vosr_jax.serving.service import Service

# Browsers get slow with larger images; the downloaded file has full size.
_LONGEST_SHOWN = 4096
_LONGEST_PREVIEW = 1024
_TICK = 0.5

Tell = Callable[[float, str], None]


@dataclasses.dataclass(frozen=True)
class Restored:
    """A finished photo of a visitor.

    Attributes:
      upload: index of the uploaded file, from 0.
      name: name of the uploaded file.
      variant: label among the file's results, "own" or a preset; "" if it is the only one.
      before: the bicubically enlarged upload, for viewing.
      after: the result, for viewing.
      result: the result, for download.
    """

    upload: int
    name: str
    variant: str
    before: Path
    after: Path
    result: Path

    @property
    def title(self) -> str:
        """Title on the page."""
        return f"{self.name}, {self.variant}" if self.variant else self.name


@dataclasses.dataclass
class Visit:
    """Results of a click so far.

    Attributes:
      folder: folder of its files; `close` removes them.
      pictures: finished photos.
      failures: one sentence per failed photo.
      so_far: preview of the running job, a new file each time; None if there is none.
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
    """A result to make from an upload."""

    upload: int
    name: str
    variant: str
    content: bytes
    fields: Fields
    job: Job | None = None
    shown: np.ndarray | None = None


def restore(
    service: Service, uploads: Sequence[tuple[str, Path]], fields: Sequence[Fields], tell: Tell
) -> Iterator[Visit]:
    """Restore a visitor's photos and yield the visit repeatedly, which lets the caller stop it.

    If the generator is closed early, its jobs leave the queue and the worker stops running ones.

    Args:
      service: the service whose queue takes the photos, some at a time.
      uploads: (name, file) of each upload.
      fields: each makes one result per upload; several differ in their preset. The seed is the
        run's, as for `vosr upscale`: each photo's seed follows from it and the file. The format is
        the source's if it can be written.
      tell: called with the finished share and a line of text.

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
        wanted.job = service.submit(wanted.content, wanted.fields, watched=True)
        held.callback(wanted.job.leave)
    except Refusal as refusal:
        _failed(wanted, refusal, visit)


def _failed(wanted: _Wanted, error: Exception, visit: Visit) -> None:
    sentence = f"{wanted.name}: {error}"
    # All variants of a damaged photo fail with the same sentence.
    if sentence not in visit.failures:
        visit.failures.append(sentence)


def _waits(service: Service, wanted: _Wanted, visit: Visit, watch: "_Watch") -> Iterator[None]:
    """Yield until the photo is finished or has failed, then add it to the visit."""
    if wanted.job is None:
        return
    # Images of one visit are restored one after another, so each has the time for itself.
    limit = service.settings.max_seconds
    begun, until = False, time.monotonic() + limit
    try:
        while not wanted.job.result.done():
            if not begun and wanted.job.begun:
                begun, until = True, time.monotonic() + limit
            if time.monotonic() > until:
                wanted.job.leave()
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
    """Write the newest preview to a file and delete the last one, which the page has copied."""
    picture = job.preview
    if picture is None or picture is wanted.shown:
        return
    wanted.shown = picture
    if visit.so_far is not None:
        visit.so_far.unlink(missing_ok=True)
    image = Image.fromarray(picture)
    image.thumbnail((_LONGEST_PREVIEW, _LONGEST_PREVIEW))
    # Use a new name, or browsers would show the cached file.
    visit.so_far = Path(visit.folder.name) / f"so-far-{time.monotonic_ns()}.jpg"
    image.save(visit.so_far, quality=90)


def _kept(wanted: _Wanted, result: Photo, visit: Visit) -> Restored:
    """Write the files of a finished photo under safe names."""
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
    """Reports a visit's progress and the time left."""

    def __init__(self, count: int, tell: Tell):
        self.finished = 0
        self._count, self._tell = count, tell
        self._began: float | None = None

    def look(self, wanted: _Wanted) -> None:
        """Report the progress of the current photo."""
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
