"""Writing any readable model as our export."""

import dataclasses
from pathlib import Path

from vosr_jax.files import local_or_epath, write_json
from vosr_jax.files.folders import whole_folder
from vosr_jax.models.autoencoders.weights import LIGHT_DECODER
from vosr_jax.parameters.sharded import SHARD_BYTES, write_safetensors
from vosr_jax.weights.manifest import write_manifest
from vosr_jax.weights.package import ARGS_FILE, BUFFERS_FILE, STEM, Package
from vosr_jax.weights.writing import (
    DIFFUSERS_STEM,
    cast_tensors,
    dtype_name,
    facts_of,
    write_part,
)


def write_export(
    package: Package,
    folder: str | Path,
    *,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write a model as our export: config.json, weights, frozen networks, manifest.json.

    Args:
      package: the model.
      folder: must not exist, or be empty; it appears complete or not at all.
      dtype: type of the denoiser's tensors, one of `DTYPES`; None keeps their types.
      shard_bytes: largest size of a weights file.

    Returns:
      The folder.

    Raises:
      UserError: the folder cannot be written, or the type cannot hold a weight.
    """
    parameters = cast_tensors(package.parameters, dtype)
    config = package.config.to_dict()
    # Paths of this machine mean nothing to the recipient of the weights.
    for section, key in (
        *(("data", "sources"), ("train", "init_from")),
        *(("eval", "model"), ("eval", "hr"), ("eval", "lr")),
    ):
        config[section][key] = None
    config["teacher"] = None
    places = {"autoencoder": ("autoencoder", "path"), "light_decoder": ("autoencoder", "decoder")}
    places["encoder"] = ("encoder", "path")
    for part, (section, key) in places.items():
        config[section][key] = part if getattr(package, part) is not None else None
    with whole_folder(folder) as draft:
        write_json(draft / "config.json", config)
        write_safetensors(draft, STEM, parameters, shard_bytes)
        if package.autoencoder is not None:
            write_part(draft / "autoencoder", package.autoencoder, DIFFUSERS_STEM, shard_bytes)
        if package.light_decoder is not None:
            light = package.light_decoder
            named = {"_class_name": LIGHT_DECODER} | (light.config or {})
            light = dataclasses.replace(light, config=named)
            write_part(draft / "light_decoder", light, DIFFUSERS_STEM, shard_bytes)
        if package.encoder is not None:
            write_part(draft / "encoder", package.encoder, STEM, shard_bytes)
        if package.args is not None:
            write_json(draft / ARGS_FILE, package.args)
        if package.buffers:
            buffers = draft / BUFFERS_FILE
            buffers.parent.mkdir(exist_ok=True)
            write_safetensors(buffers.parent, buffers.stem, package.buffers)
        if package.facts is not None:
            write_json(draft / "provenance.json", package.facts | {"dtype": dtype_name(parameters)})
        narrow = {} if dtype else package.narrow
        write_manifest(
            draft, facts_of(package, parameters) | ({"narrow": narrow} if narrow else {})
        )
    return local_or_epath(folder)
