"""One path type for disks and buckets: etils.epath, which reads gs:// and s3:// through fsspec.

Buckets are never read through TensorFlow, whose client takes seconds to import and knows only
Google's servers. Listings are never cached: a cached one would hide files of other writers, such as
tensorstore, which writes checkpoints past fsspec.
"""

import functools
import importlib.util
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from vosr_jax.errors import UserError

# Imported where they are used, because every command imports this file: etils.epath takes a tenth
# of a second, fsspec a fifth.
if TYPE_CHECKING:
    from etils import epath

# {scheme: (module that reads it, extra of this package, how credentials are given)}
_STORES = {
    "gs": (
        "gcsfs",
        "gcs",
        "log in (gcloud auth application-default login) or name a key file in "
        "GOOGLE_APPLICATION_CREDENTIALS",
    ),
    "s3": (
        "s3fs",
        "s3",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    ),
}
_UNCACHED = {"use_listings_cache": False}


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is an address in an object store rather than a local path."""
    return "://" in os.fspath(path)


def to_path(path: str | os.PathLike) -> "epath.Path":
    """Convert to the one path type for disks and buckets.

    Nothing is looked up: a missing bucket shows only at first use.

    Args:
      path: `folder/file`, `~/file`, `file:///folder`, `gs://bucket/key` or `s3://bucket/key`.

    Returns:
      An epath.Path. For local ones use `size_of` instead of `stat()`, which fails for users
      without a name.

    Raises:
      UserError: an address of another kind, an address without a bucket, or the package that
        reads it is missing.
    """
    text = os.fspath(path).removeprefix("file://")
    if "://" in text:
        _require_store(text)
        _fsspec()
    elif text.startswith("~"):
        text = os.path.expanduser(text)
    from etils import epath  # see above

    return epath.Path(text)


def _require_store(address: str) -> None:
    """Raise UserError unless the address names a bucket of a store that can be read."""
    scheme, _, place = address.partition("://")
    if scheme not in _STORES:
        raise UserError(
            f"{address} is no address that can be used; give a folder, gs://… or s3://…"
        )
    if not place.strip("/"):
        raise UserError(f"{address} names no bucket; write {scheme}://BUCKET/FOLDER")
    module, extra, _ = _STORES[scheme]
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{address} needs {module}: pip install 'vosr_jax[{extra}]'")


def local_or_epath(path: str | os.PathLike) -> Path:
    """Return a local pathlib.Path, or the epath.Path of an address, which has the same methods.

    For code that was written for a pathlib.Path and may get either.
    """
    return cast(Path, to_path(path)) if is_remote(path) else Path(path)


def absolute(path: str | os.PathLike) -> "epath.Path":
    """Make a path absolute; epath's own `absolute` and `resolve` spoil addresses."""
    path = to_path(path)
    return path if is_remote(path) else to_path(os.path.abspath(path))


@functools.cache
def _fsspec() -> ModuleType:
    """Import fsspec, make epath use it, and make it query the store instead of cached listings."""
    import fsspec  # see above
    from etils.epath import gpath

    os.environ.setdefault("EPATH_USE_TF", "false")
    # An earlier use of a path made epath remember its choice.
    forget = getattr(getattr(gpath, "_is_tf_installed", None), "cache_clear", None)
    if forget is not None:
        forget()
    for protocol in ("gs", "gcs", "s3"):
        kept = fsspec.config.conf.setdefault(protocol, {})
        for key, value in _UNCACHED.items():
            kept.setdefault(key, value)
    return fsspec


def filesystem(path: str | os.PathLike):
    """The fsspec filesystem of a remote path, the same one that epath uses."""
    to_path(path)
    scheme = os.fspath(path).partition("://")[0]
    options = {"finalize_on_close": True} if scheme == "gs" else {}
    return _fsspec().filesystem("gcs" if scheme == "gs" else scheme, **options)


def listing(path: str | os.PathLike) -> "list[epath.Path]":
    """List a folder, sorted by name; empty if there is no such folder.

    An object store has no folders, only names with slashes; a folder without names does not exist.

    Raises:
      UserError: it cannot be read, or is a file.
    """
    folder = to_path(path)
    with reading(path):
        try:
            return sorted(entry for entry in folder.iterdir() if entry != folder)
        except FileNotFoundError:
            if is_remote(path):
                # A missing bucket must raise, not pass for an empty folder.
                filesystem(path).ls(os.fspath(path).partition("://")[2].partition("/")[0])
            return []


def size_of(path: "epath.Path") -> int:
    """Bytes of a file.

    Raises:
      OSError: it is not there.
    """
    return path.stat().length if is_remote(path) else os.stat(path).st_size


def reason_of(error: BaseException) -> str:
    """The reason of a file error, in a few words."""
    strerror = getattr(error, "strerror", None)
    lines = str(strerror or error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


@contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
    """Turn errors of reading a path into one sentence.

    Raises:
      UserError: it cannot be read.
    """
    with _explained(path, "read", "check the path"):
        yield


@contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Turn errors of writing a path into one sentence.

    Raises:
      UserError: it cannot be written.
    """
    with _explained(path, "written", "check folder and disk"):
        yield


@contextmanager
def _explained(path: str | os.PathLike, done: str, advice: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        text = os.fspath(path)
        if not is_remote(text):
            if not isinstance(error, OSError):
                raise
            raise UserError(f"{text} cannot be {done} ({reason_of(error)}); {advice}") from error
        if not is_of_the_store(error):
            raise
        raise UserError(
            f"{text} cannot be {done} ({reason_of(error)}); {_help(text, error)}"
        ) from (error)


def is_of_the_store(error: Exception) -> bool:
    """Whether an exception came from the network, the credentials or the store."""
    home = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or home in (
        "gcsfs",
        "s3fs",
        "aiohttp",
        "google",
        "botocore",
        "aiobotocore",
        "fsspec",
    )


def _help(text: str, error: Exception) -> str:
    scheme, _, place = text.partition("://")
    bucket = place.partition("/")[0]
    code = str(getattr(error, "code", "") or "")
    denied = isinstance(error, PermissionError) or code in ("401", "403")
    unknown = "redential" in f"{type(error).__name__} {error}"
    if denied or unknown:
        return f"{_STORES[scheme][2]}, with the right to use {scheme}://{bucket}"
    if isinstance(error, FileNotFoundError) or code == "404":
        return f"check that the bucket {bucket} exists and the path is right"
    return "check the network and try again"


def read_json_object(path: str | os.PathLike) -> dict[str, Any]:
    """Read the object in a json file; UserError if there is none or it cannot be read."""
    try:
        content = json.loads(_text(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no readable json file ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a json object, not a {type(content).__name__}")
    return content


def _text(path: str | os.PathLike) -> str:
    if not is_remote(path):
        return Path(path).read_text(encoding="utf-8")
    with reading(path):
        return to_path(path).read_text(encoding="utf-8")
