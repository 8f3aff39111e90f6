"""What a click on the page does: pictures through the queue, and files to look at and to take."""

import concurrent.futures
import contextlib
import dataclasses
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

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
_TICK = 0.5

Tell = Callable[[float, str], None]


@dataclasses.dataclass(frozen=True)
class Restored:
    """A finished picture of a visitor's.

    Attributes:
      name: of the uploaded file.
      before: the file's picture enlarged bicubically, to look at.
      after: the result, to look at.
      result: the result, to take.
    """

    name: str
    before: Path
    after: Path
    result: Path


@dataclasses.dataclass
class Visit:
    """What a click has made so far.

    Attributes:
      folder: of its files; they are gone after `close`.
      pictures: finished ones.
      failures: a sentence a picture that failed.
    """

    folder: tempfile.TemporaryDirectory
    pictures: list[Restored] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)

    def close(self) -> None:
        """Remove the files."""
        self.folder.cleanup()


@dataclasses.dataclass
class _Upload:
    name: str
    content: bytes
    fields: Fields
    job: Job | None = None


def restore(
    service: Service, uploads: Sequence[tuple[str, Path]], fields: Fields, tell: Tell
) -> Iterator[Visit]:
    """Restore a visitor's pictures; yields the visit again and again, so that it can be closed.

    Closed early, it leaves the queue, and the worker breaks off what is at work.

    Args:
      service: its queue takes the pictures, some at a time.
      uploads: (name, file).
      fields: of all of them. The seed is a run's, as of `vosr upscale`: each picture's follows
        from it and the file. The format is that of each source where it can be written.
      tell: is called with the finished share and a line.

    Raises:
      Refusal: the queue is full, or the fields cannot be used.
    """
    visit = Visit(tempfile.TemporaryDirectory(prefix="vosr-page-", ignore_cleanup_errors=True))
    watch = _Watch(len(uploads), tell)
    left = list(uploads)
    while left:
        with contextlib.ExitStack() as held:
            chunk: list[_Upload] = []
            for name, file in left[: service.settings.batch]:
                try:
                    held.enter_context(service.place())
                except Refusal:
                    if not chunk:
                        raise
                    break
                chunk.append(_upload(name, file, fields))
            del left[: len(chunk)]
            for upload in chunk:
                _submit(service, upload, visit, held)
            for upload in chunk:
                for _ in _waits(service, upload, visit, watch):
                    yield visit
                watch.finished += 1
                yield visit


def _upload(name: str, file: Path, fields: Fields) -> _Upload:
    content = file.read_bytes()
    ending = ENDINGS.get(Path(name).suffix.lower().removeprefix("."), "png")
    own = {"seed": picture_seed(fields.seed, content), "format": ending}
    return _Upload(name, content, fields.model_copy(update=own))


def _submit(service: Service, upload: _Upload, visit: Visit, held: contextlib.ExitStack) -> None:
    try:
        if len(upload.content) > service.settings.max_bytes:
            raise refusals.body_too_large(service.settings.max_megabytes)
        upload.job = service.submit(upload.content, upload.fields)
        held.callback(upload.job.leave)
    except Refusal as refusal:
        visit.failures.append(f"{upload.name}: {refusal}")


def _waits(service: Service, upload: _Upload, visit: Visit, watch: "_Watch") -> Iterator[None]:
    """Yield until the picture is finished or has failed, and keep it."""
    if upload.job is None:
        return
    limit = service.settings.max_seconds
    until = time.monotonic() + limit
    try:
        while not upload.job.result.done():
            if time.monotonic() > until:
                raise refusals.too_slow(limit, "the picture was not finished")
            watch.look(upload)
            yield
            concurrent.futures.wait([upload.job.result], _TICK)
        visit.pictures.append(_kept(upload, upload.job.result.result(), visit))
    except (Refusal, UserError) as error:
        visit.failures.append(f"{upload.name}: {error}")


def _kept(upload: _Upload, result: Photo, visit: Visit) -> Restored:
    """The files of a finished picture, below names of ours."""
    folder = Path(visit.folder.name) / str(len(visit.pictures))
    folder.mkdir()
    stem = re.sub(r"[^\w.-]+", "_", Path(upload.name).stem)[:80].strip(".") or "picture"
    target = folder / f"{stem}-{upload.fields.scale:g}x.{upload.fields.ending}"
    target.write_bytes(encode(result, target))
    source = read_photo(upload.content).image
    size = enlarged_size(source.size, upload.fields.scale)
    before, after = folder / "before.png", folder / "after.png"
    _shown(source.resize(size, Image.Resampling.BICUBIC)).save(before)
    _shown(result.image).save(after)
    return Restored(upload.name, before, after, target)


def _shown(image: Image.Image) -> Image.Image:
    image.thumbnail((_LONGEST_SHOWN, _LONGEST_SHOWN))
    return image


class _Watch:
    """Tells how far a visit is and what time is left."""

    def __init__(self, count: int, tell: Tell):
        self.finished = 0
        self._count, self._tell = count, tell
        self._began: float | None = None

    def look(self, upload: _Upload) -> None:
        """Tell of the picture that is waited for."""
        job = upload.job
        if job is None or not job.begun:
            self._tell(self.finished / self._count, f"{upload.name} waits in the queue")
            return
        self._began = self._began or time.monotonic()
        share = (self.finished + job.share) / self._count
        line, passed = upload.name, time.monotonic() - self._began
        if share > 0.02 and passed > 1:
            line += f", {passed * (1 - share) / share:.0f} s left"
        self._tell(share, line)


def command_line(names: Sequence[str], fields: Fields, model: str, precision: str) -> str:
    """The `vosr upscale` call that makes the same pictures.

    Args:
      names: of the files.
      fields: as given to `restore`.
      model: its served name.
      precision: of its denoiser.
    """
    endings = {ENDINGS.get(Path(name).suffix.lower().removeprefix("."), "png") for name in names}
    words = ["vosr", "upscale", *names, "-o", "out/", "-u", f"{fields.scale:g}", "-m", model]
    for flag in ("preset", "strength", "steps", "guidance_scale", "colour_fix"):
        value = getattr(fields, flag)
        if value is not None:
            words += [f"--{flag.replace('_', '-')}", str(value)]
    if fields.seed:
        words += ["--seed", str(fields.seed)]
    if fields.tile_size != "auto":
        words += ["--tile-size", fields.tile_size]
    if precision != "float32":
        words += ["--precision", precision]
    if len(endings) == 1 and endings != {"png"}:
        words += ["--format", endings.pop()]
    return shlex.join(words)
