"""Opening the sources that the text of `data.sources` names."""

import os
from collections.abc import Callable

from vosr_jax.data.pictures import is_picture_path
from vosr_jax.data.scikit_image_photos import scikit_image_photographs
from vosr_jax.data.sources.array_records import (
    array_record_source,
    tfds_folder_source,
    tfds_source,
)
from vosr_jax.data.sources.files import file_source, folder_source
from vosr_jax.data.sources.lists import text_sources
from vosr_jax.data.sources.patterns import expand_braces, split_outside_braces
from vosr_jax.data.sources.source import ConcatenatedSource, Source
from vosr_jax.data.sources.storage import exists, is_folder, matching, names_in
from vosr_jax.data.sources.tar import tar_source
from vosr_jax.errors import UserError
from vosr_jax.files import reason_of

PREFIXES = ("files", "tar", "arrayrecord", "list", "tfds")


def parse_sources(text: str | None) -> tuple[Source, ...]:
    """Open the sources of `data.sources`.

    Args:
      text: `path[:weight],...`; the weight is the source's share of the samples (default 1).
        A path is a folder of images, of tar shards, of ArrayRecord shards or of a prepared
        TensorFlow dataset; a .tar or .array_record file, or a pattern for several (`*`,
        `{000..127}`, `{a,b}`); or a .txt file in the official format. `tfds:name` is a TensorFlow
        dataset. A prefix (files:, tar:, arrayrecord:, list:) names the kind if it is unclear.
        None or empty: scikit-image's photos.

    Raises:
      UserError: a path or weight is invalid.
    """
    if not text or not text.strip():
        return (file_source("scikit-image", scikit_image_photographs()),)
    opened: list[Source] = []
    for part in split_outside_braces(text):
        try:
            opened += _open(*_path_and_weight(part))
        except OSError as error:
            raise UserError(
                f"data.sources: {part.strip()} cannot be read ({reason_of(error)})"
            ) from error
    return tuple(opened)


def _path_and_weight(part: str) -> tuple[str, float]:
    part = part.strip()
    path, colon, weight_text = part.rpartition(":")
    if not part:
        raise UserError("data.sources: there is nothing between two commas; write path[:weight],…")
    if not colon or exists(part):
        return part, 1.0
    try:
        weight = float(weight_text)
    except ValueError:
        return part, 1.0
    if not 0 < weight < float("inf"):
        raise UserError(f"data.sources: the weight of {path} is {weight_text}; it must be above 0")
    return path, weight


def _open(path: str, weight: float) -> tuple[Source, ...]:
    prefix, colon, rest = path.partition(":")
    if not colon or prefix not in PREFIXES or exists(path):
        prefix, rest = "", path
    if prefix == "tfds":
        return (tfds_source(rest, weight),)
    rest = os.path.expanduser(rest)
    kind = prefix or _kind(rest)
    if kind == "list":
        return text_sources(rest, _open_shards, names_shards, weight)
    if kind == "tar":
        return (tar_source(rest, _shards(rest, _is_tar), weight),)
    if kind == "arrayrecord":
        return (_open_array_records(rest, weight),)
    several = [] if exists(rest) else expand_braces(rest)
    if len(several) > 1:
        parts = tuple(_open_shards(one, 1.0) for one in several)
        return (ConcatenatedSource(rest, weight, parts),)
    return (folder_source(rest, weight),)


def _kind(path: str) -> str:
    """Determine a path's kind, one of PREFIXES, by its suffix or by the folder's content."""
    if path.lower().endswith(".txt"):
        return "list"
    if _is_tar(path):
        return "tar"
    if _is_array_record(path):
        return "arrayrecord"
    if not is_folder(path):
        return "files"
    try:
        names = names_in(path)
    except OSError:
        return "files"
    found = {
        "tar": any(map(_is_tar, names)),
        "arrayrecord": any(map(_is_array_record, names)),
        "files": any(map(is_picture_path, names)),
    }
    kinds = [kind for kind, holds in found.items() if holds]
    if len(kinds) > 1:
        raise UserError(
            f"data.sources: {path} holds {' and '.join(kinds)}; say which is meant with a prefix, "
            f"as in {kinds[0]}:{path}"
        )
    return kinds[0] if kinds else "files"


def _is_tar(path: str) -> bool:
    return path.lower().endswith(".tar") and not os.path.basename(path).startswith(".")


def _is_array_record(path: str) -> bool:
    """Whether a path names ArrayRecord files, also as train.array_record-00000-of-00004."""
    name = os.path.basename(path).lower()
    return not name.startswith(".") and (".array_record" in name or name.endswith(".arrayrecord"))


def names_shards(path: str) -> bool:
    """Whether a path is a folder, or a name or pattern of shards."""
    return is_folder(path) or _is_tar(path) or _is_array_record(path)


def _shards(path: str, is_one: Callable[[str], bool]) -> list[str]:
    """List the shards of a file, a folder or a pattern, by name.

    Every shard that a pattern's braces name must exist.
    """
    if exists(path):
        if not is_folder(path):
            return [path]
        found = [os.path.join(path, name) for name in names_in(path) if is_one(name)]
        if not found:
            raise UserError(f"data.sources: there are no shards at {path}; correct the path")
        return sorted(found)
    expanded = expand_braces(path)
    shards: set[str] = set()
    for one in expanded:
        found = [one] if exists(one) else matching(one)
        if not found and len(expanded) > 1:
            raise UserError(
                f"data.sources: there is no {one}, which {path} stands for; correct the pattern"
            )
        shards.update(found)
    if not shards:
        raise UserError(f"data.sources: there are no shards at {path}; correct the path")
    return sorted(shards)


def _open_array_records(path: str, weight: float) -> Source:
    if exists(os.path.join(path, "features.json")):
        return tfds_folder_source(path, weight)
    return array_record_source(path, _shards(path, _is_array_record), weight)


def _open_shards(folder: str, weight: float) -> Source:
    """Open shards named in a text file: officially a folder of tar files, here of any kind."""
    (source,) = _open(folder, weight)
    return source
