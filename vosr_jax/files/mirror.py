"""A local folder that is mirrored to a bucket, for files that grow line by line.

An object store cannot append to an object: a file that grows is uploaded whole again. Growing files
(metrics, incidents, TensorBoard events, traces, logs) are therefore in a local folder, and a thread
uploads those that changed. It uploads a file at most every ten seconds, and a larger one less
often, so it resends no more than about a megabyte per second. If the home is a folder on a disk, it
is used directly and nothing is copied.
"""

import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

from vosr_jax.files.paths import filesystem, is_remote, reading, writing

_EVERY = 10.0
_BYTES_A_SECOND = 1e6
_BLOCK = 1 << 16
# Files of these kinds are continued from an earlier process; all others are written anew.
_CONTINUED = (".jsonl", ".json", ".txt", ".log")
_open: "weakref.WeakSet[Mirror]" = weakref.WeakSet()


class Mirror:
    """Mirror of a folder; a context manager whose end uploads the rest.

    Args:
      home: a folder, or an address in a bucket.
      whole: first download everything below home, not only the text files directly in it.
      only: upload only files whose names (with / between folders) start with one of these; () is
        all.
      tell: called with one line when the bucket cannot be written, and when it can again. Without
        it, closing raises instead.
      every: minimum seconds between two uploads of a file.

    Attributes:
      folder: the folder to write into, a local pathlib.Path.

    Raises:
      UserError: the files in home cannot be read.
    """

    def __init__(
        self,
        home: str | os.PathLike,
        *,
        whole: bool = False,
        only: Sequence[str] = (),
        tell: Callable[[str], None] | None = None,
        every: float = _EVERY,
    ):
        self._home = os.fspath(home).rstrip("/")
        self._remote = is_remote(home)
        self._only, self._tell, self._every = tuple(only), tell, every
        self._sent: dict[str, tuple[int, int]] = {}
        self._not_before: dict[str, float] = {}
        self._failing = False
        self._wake, self._ended = threading.Event(), False
        self._uploading = threading.Lock()
        if not self._remote:
            self.folder = Path(home)
            return
        self.folder = Path(tempfile.mkdtemp(prefix="vosr-mirror-"))
        try:
            self._fetch(whole)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self._thread = threading.Thread(target=self._run, daemon=True, name="mirror")
        self._thread.start()
        _open.add(self)

    def push(self) -> None:
        """Upload changed files now, in the background."""
        self._not_before.clear()
        self._wake.set()

    def close(self) -> None:
        """Upload the rest and remove the local folder; nothing more may be written.

        Raises:
          UserError: the bucket cannot be written, and `tell` was not given.
        """
        if not self._remote or self._ended:
            return
        self._ended = True
        _open.discard(self)
        self._wake.set()
        self._thread.join()
        try:
            self._upload(last=True)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "Mirror":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _fetch(self, whole: bool) -> None:
        with reading(self._home):
            store = filesystem(self._home)
            root = self._home.partition("://")[2]
            found = store.find(self._home, maxdepth=None if whole else 1)
            names = [place[len(root) :].lstrip("/") for place in found]
            wanted = [n for n in names if n and (whole or n.endswith(_CONTINUED))]
            for name in wanted:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            if wanted:
                sources = [f"{self._home}/{name}" for name in wanted]
                store.get(sources, [str(self.folder / name) for name in wanted])
        for name in wanted:
            self._sent[name] = _stamp(self.folder / name)

    def _run(self) -> None:
        while not self._ended:
            self._wake.wait(self._every / 4)
            self._wake.clear()
            if not self._ended:
                self._upload(last=False)

    def _upload(self, *, last: bool) -> None:
        with self._uploading:
            self._upload_due(last)

    def _upload_due(self, last: bool) -> None:
        try:
            for file in sorted(self.folder.rglob("*")):
                name = file.relative_to(self.folder).as_posix()
                if self._is_due(file, name, last):
                    self._send(file, name)
        # A network error must not stop training; the next round tries again.
        except Exception as error:
            if self._tell is None and last:
                raise
            if self._tell is not None and (last or not self._failing):
                self._tell(f"{error}; {'what came last is lost' if last else 'it is tried again'}")
            self._failing = True
            return
        if self._failing and self._tell is not None:
            self._tell(f"{self._home} can be written again")
        self._failing = False

    def _is_due(self, file: Path, name: str, last: bool) -> bool:
        # A hidden file is still being written.
        if file.name.startswith(".") or not name.startswith(self._only or ""):
            return False
        if not last and time.monotonic() < self._not_before.get(name, 0.0):
            return False
        try:
            return file.is_file() and self._sent.get(name) != _stamp(file)
        except FileNotFoundError:
            return False

    def _send(self, file: Path, name: str) -> None:
        stamp, place = _stamp(file), f"{self._home}/{name}"
        # Upload a snapshot: a file that grows meanwhile would exceed its announced size.
        snapshot = self.folder / ".snapshot"
        with writing(place):
            shutil.copyfile(file, snapshot)
            if file.suffix == ".jsonl":
                _cut_half_line(snapshot)
            filesystem(place).put_file(str(snapshot), place)
        self._sent[name] = stamp
        wait = max(self._every, stamp[0] / _BYTES_A_SECOND)
        self._not_before[name] = time.monotonic() + wait


def _cut_half_line(file: Path) -> None:
    """Cut an incomplete last line: the process may be killed before its rest is sent."""
    with file.open("r+b") as lines:
        end = lines.seek(0, os.SEEK_END)
        while end:
            start = max(end - _BLOCK, 0)
            lines.seek(start)
            found = lines.read(end - start).rfind(b"\n")
            if found >= 0:
                lines.truncate(start + found + 1)
                return
            end = start
        lines.truncate(0)


def upload_before_leaving(seconds: float = 10.0) -> None:
    """Upload all open mirrors' files, for a process that is about to end without closing them.

    Args:
      seconds: longest wait for each mirror.
    """
    for mirror in list(_open):
        mirror._not_before.clear()
        thread = threading.Thread(target=mirror._upload, kwargs={"last": False}, daemon=True)
        thread.start()
        thread.join(seconds)


def _stamp(file: Path) -> tuple[int, int]:
    about = file.stat()
    return about.st_size, about.st_mtime_ns
