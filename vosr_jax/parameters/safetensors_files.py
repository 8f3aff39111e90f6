"""Read and write tensors in one safetensors file, or in shards with an index as on the hub.

Files are memory-mapped; `give_back_pages` releases what was read.
"""

import json
import mmap
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vosr_jax.errors import UserError
from vosr_jax.files import read_json_object, whole_file, write_json

INDEX = ".safetensors.index.json"
SHARD_BYTES = 4 << 30
# The format's names of types; the last three come from ml_dtypes.
_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
# Of all files that are open.
_MAPS: weakref.WeakSet = weakref.WeakSet()


def map_file(path: str | Path) -> np.ndarray:
    """Map a file as a read-only uint8 array; bytes are read on access.

    Raises:
      OSError, ValueError: the file cannot be read, or is empty.
    """
    content = np.memmap(path, np.uint8, mode="r")
    _MAPS.add(content._mmap)  # type: ignore[attr-defined]
    return content


def give_back_pages() -> None:
    """Release the pages of all mapped files; a later access reads them again.

    Until the system needs the space, the pages would count as this process's memory, against the
    limits of containers and batch systems.
    """
    advice = getattr(mmap, "MADV_DONTNEED", None)
    if advice is None:
        return
    for mapped in list(_MAPS):
        if not mapped.closed:
            mapped.madvise(advice)


def find_safetensors(folder: Path, stem: str) -> Path | None:
    """Find `stem`.safetensors in a folder, or the index of its shards; None if there is neither."""
    for name in (f"{stem}.safetensors", stem + INDEX):
        if (folder / name).is_file():
            return folder / name
    return None


def open_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Open every tensor of a safetensors file as a read-only view into the memory-mapped file.

    Raises:
      UserError: the file is missing, truncated or damaged.
    """

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist or is no file")
    try:
        if not path.stat().st_size:
            raise UserError(f"{path} is empty; fetch it again")
        # Opening it checks the header: types, sizes, and that all bytes are present.
        with safe_open(path, framework="np"):
            pass
        content = map_file(path)
        start = 8 + int.from_bytes(content[:8].tobytes(), "little")
        header = json.loads(content[8:start].tobytes())
        header.pop("__metadata__", None)
        return {name: _view(content[start:], facts) for name, facts in header.items()}
    except (SafetensorError, OSError, TypeError, ValueError, KeyError) as error:
        raise UserError(f"{path} is truncated or no safetensors file ({error})") from error


def _view(data: np.ndarray, facts: Mapping[str, Any]) -> np.ndarray:
    """View a tensor that the header describes."""

    kind, (first, last) = facts["dtype"], facts["data_offsets"]
    if kind not in _TYPES:
        raise TypeError(f"a tensor of type {kind}, which numpy has not")
    dtype = np.dtype(getattr(ml_dtypes, _TYPES[kind], _TYPES[kind]))
    return data[first:last].view(dtype).reshape(facts["shape"])


def shard_files(index: str | Path) -> list[Path]:
    """The files that an index names, each once, in its order.

    Raises:
      UserError: the index is damaged, or names a file outside its own folder.
    """
    return list(dict.fromkeys(_located(Path(index)).values()))


def open_shards(index: str | Path) -> dict[str, np.ndarray]:
    """Open every tensor of an index (`model.safetensors.index.json`), as in `open_safetensors`.

    Raises:
      UserError: the index or a shard is missing or damaged, the index names a file outside its
        folder, or the shards hold other tensors than the index lists.
    """
    index = Path(index)
    located = _located(index)
    tensors: dict[str, np.ndarray] = {}
    for file in dict.fromkeys(located.values()):
        found = open_safetensors(file)
        expected = {name for name, home in located.items() if home == file}
        wrong = sorted(expected ^ found.keys())
        if wrong:
            problem = "lacks the tensor" if wrong[0] in expected else "holds the unexpected tensor"
            raise UserError(f"{file} {problem} {wrong[0]}, against what {index.name} says")
        tensors |= found
    return {name: tensors[name] for name in located}


def _located(index: Path) -> dict[str, Path]:
    """Read {tensor: its shard} from an index."""
    located = read_json_object(index).get("weight_map")
    if not isinstance(located, dict) or not located:
        raise UserError(f"{index} has no weight_map that says where each tensor lies")
    for name, file in located.items():
        # Only a plain name is accepted: no folder, no drive, no "..".
        plain = isinstance(file, str) and file == Path(file).name and "\\" not in file
        if not plain or file in ("", ".", ".."):
            raise UserError(
                f"{index} puts {name} into {file!r}, which is not the name of a file beside it; "
                "nothing was read"
            )
    return {name: index.parent / file for name, file in located.items()}


def write_safetensors(
    folder: Path, stem: str, tensors: Mapping[str, np.ndarray], shard_bytes: int = SHARD_BYTES
) -> list[Path]:
    """Write tensors as `stem`.safetensors, or as numbered shards and their index.

    Args:
      folder: must exist.
      stem: e.g. "model".
      tensors: of any type that safetensors supports, including bfloat16.
      shard_bytes: largest size of a file; a single larger tensor gets its own file.

    Returns:
      The files written. Each is written completely or not at all, the index last.
    """
    shards = _split(tensors, shard_bytes)
    if len(shards) == 1:
        return [_write(folder / f"{stem}.safetensors", tensors, list(tensors))]
    located: dict[str, str] = {}
    files: list[Path] = []
    for number, names in enumerate(shards, 1):
        file = folder / f"{stem}-{number:05}-of-{len(shards):05}.safetensors"
        files.append(_write(file, tensors, names))
        located |= dict.fromkeys(names, file.name)
    size = sum(array.nbytes for array in tensors.values())
    content = {"metadata": {"total_size": size}, "weight_map": located}
    index = folder / (stem + INDEX)
    write_json(index, content)
    return [*files, index]


def _split(tensors: Mapping[str, np.ndarray], shard_bytes: int) -> list[list[str]]:
    """Split the names, in order, into shards of at most `shard_bytes`."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, array in tensors.items():
        if shards[-1] and filled + array.nbytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += array.nbytes
    return shards


def _write(file: Path, tensors: Mapping[str, np.ndarray], names: list[str]) -> Path:
    with whole_file(file) as part:
        content = {name: np.asarray(tensors[name], order="C") for name in names}
        try:
            # torch-based loaders require "pt".
            save_file(content, part, metadata={"format": "pt"})
        except SafetensorError as error:  # a full disk, among others
            raise OSError(str(error)) from error
        part.chmod(0o644)  # safetensors makes files that only their owner can read
    return file
