"""Adapter files: adapter.safetensors and adapter.json, small compared with their base."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vosr_jax.config import Config
from vosr_jax.errors import UserError
from vosr_jax.files import read_json_object, whole_folder, write_json
from vosr_jax.models.lora import is_adapter, kernels_of, merged_kernel
from vosr_jax.parameters.lazy import HostArray, HostNetwork, sha256_of
from vosr_jax.parameters.safetensors_files import write_safetensors
from vosr_jax.parameters.tensors import read_tensors
from vosr_jax.version import __version__
from vosr_jax.weights.saved_run import SavedRun, facts_of

STEM, FACTS = "adapter", "adapter.json"


@dataclasses.dataclass(frozen=True)
class Adapter:
    """Low-rank matrices and the base network that they belong to.

    Attributes:
      name: the adapter's name in messages.
      base: {"name": the base's name, "sha256": checksum of its float32 values}.
      rank, alpha: see models/lora.py.
      parameters: {dotted path: array}.
      facts: other facts about its training.
    """

    name: str
    base: dict[str, str]
    rank: int
    alpha: float
    parameters: Mapping[str, np.ndarray]
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


def is_adapter_run(run: SavedRun) -> bool:
    """Whether a run trains adapters alone."""
    return any(is_adapter(name) for name in run.ema)


def adapter_of_run(run: SavedRun, name: str) -> Adapter:
    """Read the newest averaged adapters of a run.

    Args:
      run: a run with model.lora_rank above 0.
      name: the adapter's name in messages.

    Raises:
      UserError: the run trains no adapters, or does not name their base.
    """
    if not is_adapter_run(run) or run.progress.base is None:
        raise UserError(
            f"{name} trained all of its network and has no adapters; set model.lora_rank for that"
        )
    base = {key: run.progress.base[key] for key in ("name", "sha256")}
    model = run.config["model"]
    return Adapter(
        name, base, int(model["lora_rank"]), float(model["lora_alpha"]), run.ema, facts_of(run)
    )


def write_adapter(adapter: Adapter, folder: str | Path) -> Path:
    """Write an adapter without its base.

    Args:
      adapter: the adapter of a run.
      folder: must not exist, or be empty; it appears complete or not at all.

    Raises:
      UserError: the folder cannot be written.
    """
    facts = adapter.facts | {
        "base": adapter.base,
        "rank": adapter.rank,
        "alpha": adapter.alpha,
        "vosr_jax": __version__,
    }
    with whole_folder(folder) as draft:
        arrays = {k: np.asarray(v, np.float32) for k, v in adapter.parameters.items()}
        write_safetensors(draft, STEM, arrays)
        write_json(draft / FACTS, facts)
    return Path(folder)


def read_adapter(folder: str | Path) -> Adapter:
    """Read an adapter that `write_adapter` wrote.

    Raises:
      UserError: the folder holds no adapter, or a damaged one.
    """
    folder = Path(folder).expanduser()
    file = folder / f"{STEM}.safetensors"
    if not (folder / FACTS).is_file() or not file.is_file():
        raise UserError(
            f"{folder} is no adapter: it needs {FACTS} and {file.name}; name a folder that "
            "`vosr convert --adapter` or `vosr train-on` has written"
        )
    facts, parameters = read_json_object(folder / FACTS), read_tensors(file)
    try:
        base = {key: str(facts["base"][key]) for key in ("name", "sha256")}
        rank, alpha = int(facts["rank"]), float(facts["alpha"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / FACTS} lacks or spoils {error}; make it anew") from error
    name = folder.resolve().name
    return Adapter(name, base, rank, alpha, parameters, facts)


def with_adapter(network: HostNetwork, name: str, adapter: Adapter) -> HostNetwork:
    """Add an adapter to the base's matrices; no value of the base is kept twice.

    Args:
      network: the base; it is read once for its hash.
      name: the base's name in messages.
      adapter: the adapter to add.

    Raises:
      UserError: the adapter belongs to another base, or its files do not fit this one.
    """
    sha256 = sha256_of(network.parameters)
    if sha256 != adapter.base["sha256"]:
        raise UserError(
            f"adapter {adapter.name} belongs to {adapter.base['name']} (sha256 "
            f"{adapter.base['sha256'][:12]}…), and {name} is another model (sha256 "
            f"{sha256[:12]}…); name its own base with -m"
        )
    return merged(network, adapter)


def merged(network: HostNetwork, adapter: Adapter) -> HostNetwork:
    """Do as `with_adapter`, for a base that is known to be the right one.

    Raises:
      UserError: the adapter does not fit.
    """
    parameters = dict(network.parameters)
    for kernel, (down, up) in kernels_of(adapter.parameters).items():
        parameters[kernel] = _merged(network.parameters, kernel, adapter, down, up)
    return HostNetwork(network.blueprint, parameters)


def _merged(
    base: Mapping[str, HostArray], kernel: str, adapter: Adapter, down: str, up: str
) -> HostArray:
    given, missing = adapter.parameters, [n for n in (down, up) if n not in adapter.parameters]
    if kernel not in base or missing:
        lacking = kernel if kernel not in base else missing[0]
        raise UserError(f"adapter {adapter.name} is damaged: {lacking} is missing; make it anew")
    whole, thin, wide = base[kernel], given[down], given[up]
    shapes = (*whole.shape[:2], adapter.rank), (whole.shape[0], adapter.rank, *whole.shape[2:])
    if (thin.shape, wide.shape) != shapes:
        raise UserError(
            f"adapter {adapter.name} is damaged: {down} and {up} are {thin.shape} and "
            f"{wide.shape} and should be {shapes[0]} and {shapes[1]}; make it anew"
        )
    scale = adapter.alpha / adapter.rank
    return HostArray(
        whole.shape,
        np.float32,
        [lambda: merged_kernel(np.asarray(whole), thin, wide, scale)],
    )


def without_adapters(config: Config) -> Config:
    """The config of the merged network."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, lora_rank=0))
