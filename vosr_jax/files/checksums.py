"""Checksums of files, and lists of them that detect damage to themselves.

CRC-32C detects every single flipped bit and every burst of up to 32 bits; other damage passes once
in 4 billion. Google's store keeps the checksum of every object, computed on arrival, and an object
cannot change afterwards. There the stored checksum is used and nothing is read back.
"""

import base64
import dataclasses
import functools
import os
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from etils import epath

from vosr_jax.errors import UserError
from vosr_jax.files.paths import filesystem, is_remote

# Bytes; small enough for the processor's cache.
_CHUNK = 1 << 18
_THREADS = 8


@dataclasses.dataclass(frozen=True)
class Checksum:
    """Size and checksum of a file.

    Attributes:
      size: bytes.
      value: CRC of its content.
      kind: "crc32c", or "crc32" where the package google-crc32c was missing.
    """

    size: int
    value: int
    kind: str = "crc32c"

    def __str__(self) -> str:
        return f"{self.kind} {self.value:08x} {self.size}"


@functools.cache
def _function(kind: str) -> Callable[[int, bytes], int]:
    """The function (checksum so far, bytes) -> checksum."""
    if kind == "crc32":
        return lambda value, data: zlib.crc32(data, value)
    try:
        # An optional package.
        import google_crc32c
    except ImportError as error:
        raise UserError(
            "checksums of this checkpoint are of the kind crc32c; pip install google-crc32c"
        ) from error
    return google_crc32c.extend


@functools.cache
def best_kind() -> str:
    """The kind of checksum that this installation computes fastest."""
    try:
        _function("crc32c")
    except UserError:
        return "crc32"
    return "crc32c"


def checksum_of_bytes(data: bytes, kind: str | None = None) -> Checksum:
    """Compute the checksum of bytes in memory."""
    kind = kind or best_kind()
    return Checksum(len(data), _function(kind)(0, data), kind)


def checksum_of(path: str | os.PathLike, kind: str | None = None) -> Checksum:
    """Compute the checksum of one file.

    Args:
      path: on a disk or in a bucket.
      kind: kind of checksum; None is the best one.

    Raises:
      OSError: it cannot be read.
    """
    kind = kind or best_kind()
    if kind == "crc32c" and os.fspath(path).startswith("gs://"):
        about = filesystem(path).info(os.fspath(path))
        if "crc32c" in about:
            return Checksum(about["size"], int.from_bytes(base64.b64decode(about["crc32c"])))
    extend, value, size = _function(kind), 0, 0
    with epath.Path(path).open("rb") if is_remote(path) else open(path, "rb", 0) as file:
        while data := file.read(_CHUNK):
            value, size = extend(value, data), size + len(data)
    return Checksum(size, value, kind)


def checksums_of(
    folder: str | os.PathLike, names: Iterable[str], kind: str | None = None
) -> dict[str, Checksum]:
    """Compute the checksums of several files in parallel.

    Args:
      folder: the folder that the names are relative to.
      names: names of files, with / between folders.
      kind: as `checksum_of` takes it.

    Raises:
      OSError: one of them cannot be read.
    """
    names, root = list(names), epath.Path(folder)
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        return dict(
            zip(names, threads.map(lambda n: checksum_of(root / n, kind), names), strict=True)
        )


def names_below(folder: str | os.PathLike) -> list[str]:
    """List every file below a folder: sorted, relative to it, with / between folders.

    Raises:
      OSError: a folder cannot be listed.
    """
    if is_remote(folder):
        root = os.fspath(folder).partition("://")[2].rstrip("/") + "/"
        return sorted(name.removeprefix(root) for name in filesystem(folder).find(root))
    found: list[str] = []

    def refuse(error: OSError) -> None:
        raise error

    # rglob silently skips a folder that it may not list.
    root = os.fspath(folder)
    for place, _, files in os.walk(root, onerror=refuse):
        below = os.path.relpath(place, root)
        found += [name if below == "." else f"{below}/{name}" for name in files]
    return sorted(found)


def render(sums: dict[str, Checksum]) -> str:
    """Format a list: kind, checksum, bytes and name per line; the last line is its own checksum."""
    body = "".join(f"{sums[name]} {name}\n" for name in sorted(sums))
    return f"{body}{checksum_of_bytes(body.encode())} .\n"


def parse(data: bytes) -> dict[str, Checksum]:
    """Parse the output of `render`.

    Raises:
      ValueError: it was changed afterwards.
    """
    body, _, last = data.removesuffix(b"\n").rpartition(b"\n")
    body += b"\n" if body else b""
    kind = "crc32" if last.startswith(b"crc32 ") else "crc32c"
    if data != body + f"{checksum_of_bytes(body, kind)} .\n".encode():
        raise ValueError("the list of checksums does not fit its own checksum")
    sums = {}
    for line in body.decode().splitlines():
        kind, value, size, name = line.split(" ", 3)
        sums[name] = Checksum(int(size), int(value, 16), kind)
    return sums
