"""Read named tensors from a file, check them and map them to a network's parameters."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from flax import nnx

from vosr_jax.errors import UserError
from vosr_jax.parameters.blueprint import Blueprint, dotted
from vosr_jax.parameters.lazy import HostArray, HostNetwork
from vosr_jax.parameters.safetensors_files import INDEX, open_safetensors, open_shards
from vosr_jax.parameters.torch_reader import read_torch_zip

Network = TypeVar("Network", bound=nnx.Module)
_STATE_DICT_KEYS = ("model_state_dict", "state_dict", "model")


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read every tensor of safetensors or of a torch zip file, as in `open_tensors`.

    Returns:
      Tensors by name, in the file's type; those of safetensors are copies that outlive the file.
    """
    tensors = open_tensors(path)
    if Path(path).suffix in (".safetensors", ".json"):
        return {name: np.array(tensor) for name, tensor in tensors.items()}
    return tensors


def open_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Open every tensor of safetensors or of a torch zip file (.pth, .pt, .bin), without reading.

    Args:
      path: a .safetensors file, the index of several (`model.safetensors.index.json`), or a torch
        file with the tensors at the top or under the key `model_state_dict`, `state_dict` or
        `model`.

    Returns:
      Tensors by name, in the file's type (including float16 and `ml_dtypes.bfloat16`): read-only
      views into the memory-mapped file, which read only the bytes that are accessed.

    Raises:
      UserError: the file is missing, truncated, damaged, hostile, or holds no tensors.
    """
    path = Path(path)
    if path.name.endswith(INDEX):
        return open_shards(path)
    if path.suffix == ".safetensors":
        return open_safetensors(path)
    return state_dict(read_torch_zip(path), path)


def state_dict(saved: Any, path: str | Path) -> dict[str, np.ndarray]:
    """Find the tensors by name in the result of `read_torch_zip` for `path`."""
    for _ in range(2):
        if not isinstance(saved, dict):
            break
        tensors = {k: v for k, v in saved.items() if isinstance(v, np.ndarray)}
        if tensors:
            return {str(name): tensor for name, tensor in tensors.items()}
        inner = [key for key in _STATE_DICT_KEYS if key in saved]
        if not inner:
            break
        saved = saved[inner[0]]
    keys = ", ".join(_STATE_DICT_KEYS)
    raise UserError(f"{path} holds no tensors by name, neither at its top nor under {keys}")


@dataclass(frozen=True)
class Layout:
    """Conversion of an official tensor to (a layer of) one of our parameters, and back.

    Attributes:
      to_ours: (official array, our shape) -> our array.
      to_official: our array -> official array, the exact inverse.
    """

    to_ours: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
    to_official: Callable[[np.ndarray], np.ndarray]


def dense(in_axes: int = 1) -> Layout:
    """Layout of a torch Linear's [out, in]; ours has `in_axes` input axes, then the output axes."""

    def to_official(ours: np.ndarray) -> np.ndarray:
        return ours.reshape(int(np.prod(ours.shape[:in_axes])), -1).T

    return Layout(lambda official, shape: official.T.reshape(shape), to_official)


SAME = Layout(lambda official, shape: official, lambda ours: ours)
FLAT = Layout(lambda official, shape: official.reshape(shape), lambda ours: ours.reshape(-1))
CONV = Layout(
    lambda official, shape: official.transpose(2, 3, 1, 0), lambda ours: ours.transpose(3, 2, 0, 1)
)
# A 1x1 convolution as a matrix.
POINTWISE = Layout(
    lambda official, shape: official.reshape(official.shape[:2]).T,
    lambda ours: ours.T[:, :, None, None],
)


@dataclass(frozen=True)
class Entry:
    """One line of the table between official names and ours.

    Attributes:
      official: the tensor's name in the official file.
      ours: path of our parameter, e.g. ("blocks", "norm1", "scale").
      layout: the conversion between the two.
      layer: index into the leading axis of a stacked parameter; None if it is not stacked.
    """

    official: str
    ours: tuple[str | int, ...]
    layout: Layout = SAME
    layer: int | None = None


def assign(
    build: Callable[[], Network],
    entries: Iterable[Entry],
    tensors: Mapping[str, np.ndarray],
    path: str | Path,
    *,
    ignored: Iterable[str] = (),
) -> HostNetwork[Network]:
    """Make a network with all parameters from `tensors`, as float32, without reading them yet.

    Args:
      build: makes the network; only its shapes are evaluated, nothing is initialized.
      entries: the table; each parameter of the network must be in it.
      tensors: official tensors by name.
      path: the file that they come from, for messages.
      ignored: prefixes of names of tensors that the file may hold but the network does not use.

    Returns:
      The network; its values are read from `tensors` on demand.

    Raises:
      UserError: a tensor is missing, unexpected or of another shape; the message names it.
    """
    blueprint = Blueprint(build)
    shapes = {key: tuple(shape.shape) for key, shape in blueprint.by_path.items()}
    arrays = host_arrays(entries, shapes, tensors, path, ignored=ignored, dtype=np.float32)
    return HostNetwork(blueprint, {dotted(key): arrays[key] for key in shapes})


def arrange(*args: Any, **options: Any) -> dict[tuple, np.ndarray]:
    """Read official tensors as our parameters; arguments and errors as in `host_arrays`."""
    return {path: np.asarray(value) for path, value in host_arrays(*args, **options).items()}


def host_arrays(
    entries: Iterable[Entry],
    shapes: Mapping[tuple, tuple[int, ...]],
    tensors: Mapping[str, np.ndarray],
    path: str | Path,
    *,
    ignored: Iterable[str] = (),
    dtype: Any = None,
) -> dict[tuple, HostArray]:
    """Map official tensors to our parameters, each read on demand.

    Args:
      entries: the table; each parameter must be in it.
      shapes: of every parameter, by path.
      tensors: official tensors by name.
      path: the file that they come from, for messages.
      ignored: prefixes of names of tensors that the file may hold but that are not used.
      dtype: of the arrays; None keeps the tensors' own type, or float32 for a stack of mixed types.

    Returns:
      {path of the parameter: array}.

    Raises:
      UserError: a tensor is missing, unexpected or of another shape; the message names it.
    """
    entries = list(entries)
    _check(entries, shapes, tensors, path, tuple(ignored))
    kinds: dict[tuple, Any] = {}
    layers: dict[tuple, dict[int | None, Callable[[], np.ndarray]]] = {}
    for entry in entries:
        own = dtype or tensors[entry.official].dtype
        # float32 is the smallest type that holds both float16 and bfloat16.
        kinds[entry.ours] = own if kinds.get(entry.ours, own) == own else np.dtype(np.float32)
        shape = shapes[entry.ours][0 if entry.layer is None else 1 :]
        layers.setdefault(entry.ours, {})[entry.layer] = partial(
            entry.layout.to_ours, tensors[entry.official], shape
        )
    absent = sorted(map(dotted, shapes.keys() - layers.keys()))
    if absent:
        raise ValueError(f"the table of names lacks {', '.join(absent)}")
    arrays = {}
    for ours, read in layers.items():
        stacked = None not in read
        ordered = [read[layer] for layer in (sorted(read) if stacked else [None])]  # type: ignore
        arrays[ours] = HostArray(shapes[ours], kinds[ours], ordered, stacked=stacked)
    return arrays


def _check(entries, shapes, tensors, path, ignored) -> None:
    """Raise UserError unless exactly the table's tensors are present, each in its shape."""
    expected = [entry.official for entry in entries]
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise UserError(f"{path}: tensor {_names(missing)} missing")
    known = set(expected)
    unexpected = [n for n in tensors if n not in known and not n.startswith(ignored or ("\0",))]
    if unexpected:
        raise UserError(f"{path}: tensor {_names(unexpected)} unexpected for this network")
    for entry in entries:
        shape = shapes[entry.ours][0 if entry.layer is None else 1 :]
        wanted = entry.layout.to_official(np.broadcast_to(np.float32(0), shape)).shape
        found = tensors[entry.official].shape
        if found != wanted:
            raise UserError(f"{path}: tensor {entry.official} has shape {found}, not {wanted}")


def _names(names: list[str]) -> str:
    """The first name and the number of others."""
    return f"{names[0]} is" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more are"


def to_official(model: nnx.Module, entries: Iterable[Entry]) -> dict[str, np.ndarray]:
    """Convert the network's parameters to their official names and layout."""
    flat = dict(nnx.to_flat_state(nnx.state(model)))
    return name_officially({key: np.asarray(value[...]) for key, value in flat.items()}, entries)


def name_officially(
    arrays: Mapping[tuple, np.ndarray], entries: Iterable[Entry]
) -> dict[str, np.ndarray]:
    """The inverse of `arrange`: {path of the parameter: array} to {official name: array}."""
    return {
        entry.official: np.ascontiguousarray(
            entry.layout.to_official(
                arrays[entry.ours] if entry.layer is None else arrays[entry.ours][entry.layer]
            )
        )
        for entry in entries
    }
