"""Writes torch zip files as `torch.save` does, without torch; and ones that it never would."""

import io
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np

_STORAGES = {
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
}


class _Named:
    """Pickles as a call of a global by name, whether it exists here or not."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class _Pickler(pickle._Pickler):
    """The pure-Python pickler, taught the two things that torch adds."""

    dispatch = pickle._Pickler.dispatch.copy()

    def __init__(self, file, storages: dict[str, bytes]):
        super().__init__(file, protocol=2)
        self.storages = storages

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, _Named):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, np.ndarray):
            self._save_tensor(obj)
        else:
            super().save(obj, save_persistent_id)

    def _save_tensor(self, array: np.ndarray) -> None:
        key = str(len(self.storages))
        self.storages[key] = np.ascontiguousarray(array).tobytes()
        storage = ("storage", _Named("torch", _STORAGES[array.dtype]), key, "cpu", array.size)
        strides = tuple(s // array.itemsize for s in np.empty(array.shape, array.dtype).strides)
        self.save(_Named("torch._utils", "_rebuild_tensor_v2"))
        self.write(pickle.MARK)
        self.save(storage)
        self.write(pickle.BINPERSID)
        for argument in (0, array.shape, strides, False, {}):
            self.save(argument)
        self.write(pickle.TUPLE + pickle.REDUCE)


def save_torch(path: Path, obj) -> Path:
    """Write containers of plain values and numpy arrays as a torch zip file."""
    buffer, storages = io.BytesIO(), {}
    _Pickler(buffer, storages).dump(obj)
    return write_zip(path, buffer.getvalue(), storages)


def write_zip(path: Path, pickled: bytes, storages: dict[str, bytes]) -> Path:
    """Write a torch zip file around a pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.stem}/data.pkl", pickled)
        archive.writestr(f"{path.stem}/byteorder", "little")
        for key, content in storages.items():
            archive.writestr(f"{path.stem}/data/{key}", content)
    return path
