"""Write torch zip files (.pth) without torch, for the official code to read.

The pickle inside has the form that `torch.save` writes for a dictionary of tensors; `torch.load`
reads it with `weights_only=True`.
"""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vosr_jax.files import whole_file

_STORAGES = {
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
    np.dtype(np.int32): "IntStorage",
    np.dtype(np.int16): "ShortStorage",
    np.dtype(np.int8): "CharStorage",
    np.dtype(np.uint8): "ByteStorage",
    np.dtype(np.bool_): "BoolStorage",
}


def write_torch_zip(path: str | Path, saved: Any) -> Path:
    """Write containers of plain values and numpy arrays as `torch.save` would.

    Args:
      path: of the file, which is written completely or not at all.
      saved: dict, list, tuple, str, int, float, bool, None and arrays.

    Returns:
      The path.
    """
    path = Path(path)
    buffer = io.BytesIO()
    storages: list[np.ndarray] = []
    _Pickler(buffer, storages).dump(saved)
    with (
        whole_file(path) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive,
    ):
        entries = [("data.pkl", buffer.getvalue()), ("byteorder", b"little"), ("version", b"3\n")]
        for name, content in entries:
            archive.writestr(f"{path.stem}/{name}", content)
        for key, array in enumerate(storages):
            entry = zipfile.ZipInfo(f"{path.stem}/data/{key}")
            with archive.open(entry, "w", force_zip64=array.nbytes >= 1 << 31) as file:
                file.write(array.reshape(-1).view(np.uint8).data)
    return path


class _Named:
    """A global that is written by name and need not exist here."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


# The C pickler cannot write custom opcodes. The type stubs lack the pure-Python one.
_PurePickler: Any = pickle._Pickler  # type: ignore[attr-defined]


class _Pickler(_PurePickler):
    """The pure-Python pickler, extended by named globals and torch tensors."""

    def __init__(self, file: io.BytesIO, storages: list[np.ndarray]):
        super().__init__(file, protocol=2)
        self.storages = storages

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, _Named):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, np.ndarray):
            self._save_tensor(obj)
        else:
            super().save(obj, save_persistent_id)

    def _save_tensor(self, array: np.ndarray) -> None:
        contiguous = np.array(array, order="C", ndmin=1)
        key = str(len(self.storages))
        self.storages.append(contiguous)
        kind = _Named("torch", _STORAGES[array.dtype])
        strides: list[int] = []
        step = 1
        for side in reversed(array.shape):
            strides.insert(0, step)
            step *= side
        self.save(_Named("torch._utils", "_rebuild_tensor_v2"))
        self.write(pickle.MARK)
        self.save(("storage", kind, key, "cpu", array.size))
        self.write(pickle.BINPERSID)
        for argument in (0, array.shape, tuple(strides), False):
            self.save(argument)
        self.save(_Named("collections", "OrderedDict"))
        self.write(pickle.EMPTY_TUPLE + pickle.REDUCE + pickle.TUPLE + pickle.REDUCE)
