"""Read torch zip files (.pth, .pt, .bin) without running code from them.

The pickle inside is interpreted here, instruction by instruction. A name that it imports is never
looked up; only the few names of tensors and ordered dictionaries are accepted. Tensors are views
into the memory-mapped file.
"""

import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vosr_jax.errors import UserError
from vosr_jax.parameters.safetensors_files import map_file

_STORAGES: dict[str, np.dtype] = {
    "torch.DoubleStorage": np.dtype(np.float64),
    "torch.FloatStorage": np.dtype(np.float32),
    "torch.HalfStorage": np.dtype(np.float16),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype(np.int64),
    "torch.IntStorage": np.dtype(np.int32),
    "torch.ShortStorage": np.dtype(np.int16),
    "torch.CharStorage": np.dtype(np.int8),
    "torch.ByteStorage": np.dtype(np.uint8),
    "torch.BoolStorage": np.dtype(np.bool_),
}
_ORDERED_DICT = "collections.OrderedDict"
_TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"
_KNOWN = {_ORDERED_DICT, _TENSOR, _PARAMETER, *_STORAGES}
_LARGEST_PICKLE = 1 << 28
_MARK = object()
# Errors of zipfile and zlib on a damaged zip archive.
_DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError,
                RuntimeError)  # fmt: skip
# Errors from a malformed pickle, as opposed to a refused one.
_MALFORMED = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
              RecursionError)  # fmt: skip


@dataclass(frozen=True)
class _Global:
    """A name that the pickle imports; never looked up."""

    name: str


class _Refused(Exception):
    """The pickle contains something that is neither a tensor nor a plain container."""


def read_torch_zip(path: str | Path) -> Any:
    """Read a file of `torch.save`; its tensors become read-only, memory-mapped numpy arrays.

    Args:
      path: a zip file of torch 1.6 or later.

    Returns:
      The saved object: dict, list, tuple, str, int, float, bool, None and arrays. float16 and
      bfloat16 (`ml_dtypes.bfloat16`) keep their type.

    Raises:
      UserError: the file is missing, not a torch zip, truncated or damaged, or its pickle holds
        anything but tensors and plain containers. Nothing from the file is ever executed.
    """
    path = Path(path)
    archive = _open(path)
    with archive:
        names = [name for name in archive.namelist() if name.split("/")[-1] == "data.pkl"]
        if len(names) != 1:
            raise UserError(f"{path}: a torch file has one data.pkl inside, this has {len(names)}")
        prefix = names[0][: -len("data.pkl")]
        try:
            if archive.getinfo(names[0]).file_size > _LARGEST_PICKLE:
                raise UserError(f"{path}: its pickle is larger than any list of tensors can be")
            pickled = archive.read(names[0])
            if prefix + "byteorder" in archive.namelist():
                if archive.read(prefix + "byteorder").strip() != b"little":
                    raise UserError(f"{path}: its tensors are big-endian; save it again elsewhere")
        except _DAMAGED_ZIP as error:
            raise UserError(f"{path} is damaged ({error}); fetch it again") from error
        entries = {i.filename[len(prefix) :]: i for i in archive.infolist()}
    return _Machine(_Storages(path, entries)).run(pickled)


def _open(path: Path) -> zipfile.ZipFile:
    try:
        with open(path, "rb") as file:
            head = file.read(2)
        if head == b"PK":
            return zipfile.ZipFile(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except _DAMAGED_ZIP as error:
        raise UserError(f"{path} is truncated or damaged ({error}); fetch it again") from error
    state = "is empty" if not head else "is no torch zip file (torch 1.6 or later writes them)"
    raise UserError(f"{path} {state}")


class _Storages:
    """The raw bytes of a torch zip's tensors, memory-mapped."""

    def __init__(self, path: Path, entries: dict[str, zipfile.ZipInfo]):
        self.path = path
        self.entries = entries
        self.bytes = map_file(path)

    def get(self, key: str, dtype: np.dtype, count: int) -> np.ndarray:
        """The storage `key` as a flat array of `count` elements."""
        info = self.entries.get(f"data/{key}")
        if info is None:
            raise UserError(f"{self.path}: the bytes of tensor storage {key!r} are missing")
        if info.compress_type != zipfile.ZIP_STORED:
            raise UserError(f"{self.path}: storage {key!r} is compressed; save it with torch.save")
        header = self.bytes[info.header_offset : info.header_offset + 30].tobytes()
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise UserError(f"{self.path}: storage {key!r} is damaged; fetch the file again")
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        start = info.header_offset + 30 + name_length + extra_length
        size = count * dtype.itemsize
        if size > info.file_size or start + info.file_size > self.bytes.size:
            raise UserError(f"{self.path}: storage {key!r} is truncated; fetch the file again")
        return self.bytes[start : start + size].view(dtype)


class _Machine:
    """Interpreter of the pickle instructions for tensors and plain containers."""

    def __init__(self, storages: _Storages):
        self.storages = storages
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, pickled: bytes) -> Any:
        """Build the object that the pickle describes."""
        path = self.storages.path
        try:
            for opcode, argument, _ in pickletools.genops(pickled):
                if opcode.name != "STOP":  # always the last; genops raises if it is missing
                    self.step(opcode.name, argument)
            return self.stack.pop()
        except _Refused as error:
            raise UserError(
                f"{path} holds {error}, which is neither a tensor nor a plain container; "
                "it was not loaded and nothing in it was run"
            ) from error
        except _MALFORMED as error:
            raise UserError(f"{path}: its pickle is damaged ({error}); fetch it again") from error

    def step(self, name: str, argument: Any) -> None:
        """Execute one instruction."""
        stack = self.stack
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[int(argument)])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name in _FROM_MARK:
            stack.append(_FROM_MARK[name](self.marked()))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self.marked()
            _expect(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self.marked()
            _expect(stack[-1], dict).update(_pairs(items))
        elif name == "GLOBAL":
            stack.append(_known(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_known(f"{module}.{attribute}"))
        elif name == "REDUCE":
            arguments, function = _expect(stack.pop(), tuple), stack.pop()
            stack.append(self.call(_expect(function, _Global).name, arguments))
        elif name == "BUILD":
            stack.pop()  # attributes of a state dict (its versions), which are not needed
            _expect(stack[-1], dict)
        elif name == "BINPERSID":
            stack.append(self.storage(_expect(stack.pop(), tuple)))
        elif name not in ("PROTO", "FRAME"):
            raise _Refused(f"the pickle instruction {name}")

    def marked(self) -> list[Any]:
        """Remove and return everything above the topmost mark; remove the mark too."""
        for position in range(len(self.stack) - 1, -1, -1):
            if self.stack[position] is _MARK:
                items = self.stack[position + 1 :]
                del self.stack[position:]
                return items
        raise ValueError("a mark is missing")

    def storage(self, reference: tuple) -> np.ndarray:
        """Resolve ("storage", type, key, device, count) to a flat array."""
        kind, storage_type, key, _, count = reference
        name = _expect(storage_type, _Global).name
        if kind != "storage" or name not in _STORAGES:
            raise _Refused(f"a storage of type {name}")
        if _expect(count, int) < 0:
            raise ValueError(f"storage {key!r} has {count} elements")
        return self.storages.get(_expect(key, str), _STORAGES[name], count)

    def call(self, name: str, arguments: tuple) -> Any:
        """Apply one of the few functions that torch writes for tensors and ordered dictionaries."""
        if name == _ORDERED_DICT:
            items = arguments[0] if arguments else []
            return dict(_pairs([x for pair in items for x in pair]))
        if name == _PARAMETER:
            return _expect(arguments[0], np.ndarray)
        if name == _TENSOR:
            return _strided(*arguments[:4])
        raise _Refused(f"a call of {name}")


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "MARK": lambda: _MARK,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "STRING"),
    *("BINSTRING", "SHORT_BINSTRING"),
}
_FROM_MARK: dict[str, Callable[[list[Any]], Any]] = {
    "TUPLE": tuple,
    "LIST": list,
    "DICT": lambda items: dict(_pairs(items)),
}


def _known(name: str) -> _Global:
    if name not in _KNOWN:
        raise _Refused(f"the name {name}")
    return _Global(name)


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} where {kind.__name__} belongs")
    return value


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    if len(items) % 2:
        raise ValueError("a key without a value")
    return list(zip(items[::2], items[1::2], strict=True))


def _strided(storage: Any, offset: Any, size: Any, stride: Any) -> np.ndarray:
    """View a tensor of `size` and `stride` (in elements) at `offset` of its storage."""
    storage, size, stride = _expect(storage, np.ndarray), tuple(size), tuple(stride)
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or any(not isinstance(n, int) or n < 0 for n in numbers):
        raise ValueError(f"a tensor of size {size} and stride {stride}")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if 0 not in size and last >= storage.size:
        raise ValueError(f"a tensor of size {size} reaches beyond its storage")
    strides = [s * storage.itemsize for s in stride]
    if 0 in size:
        return np.zeros(size, storage.dtype)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)
