"""The denoiser of whatever `resolve` has found: its settings, and where its values are read."""

import dataclasses
from pathlib import Path

from vosr_jax.config import Config, validate
from vosr_jax.files import absolute
from vosr_jax.models.lightning_dit import LightningDiT
from vosr_jax.weights.export import ARGS_FILE, local_config, open_export, open_parameters
from vosr_jax.weights.host import HostNetwork
from vosr_jax.weights.json_file import read_json_object
from vosr_jax.weights.official_args import config_of_args
from vosr_jax.weights.release import open_release, read_args
from vosr_jax.weights.resolve import Found
from vosr_jax.weights.saved_run import load_ema


@dataclasses.dataclass(frozen=True)
class OpenDenoiser:
    """A denoiser whose values are still where they are kept.

    Attributes:
      name: what messages call it.
      config: of the run that trained it. A release's names its frozen networks as args.json does;
        `release.with_parts` finds them.
      network: structure and values, float32.
      notes: what a user should know about this checkpoint, one sentence each.
    """

    name: str
    config: Config
    network: HostNetwork[LightningDiT]
    notes: tuple[str, ...] = ()


def open_denoiser(found: Found, **options) -> OpenDenoiser:
    """Open a model's denoiser; nothing of a file's values is read yet, a workdir's are.

    Args:
      found: from `resolve`.
      **options: `dtype` and `remat` of `LightningDiT`.

    Raises:
      UserError: a file is missing or damaged, or its tensors are not the network's.
    """
    if found.kind == "release":
        network, config, notes = open_release(found.path, **options)
        return OpenDenoiser(read_args(found.path)[1].parent.name, config, network, notes)
    if found.kind == "export":
        config = validate(local_config(found.path))
        network = open_export(found.path, config, **options)
        return OpenDenoiser(found.path.name, config, network, _export_notes(found.path, config))
    return _open_workdir(found.path, **options)


def _export_notes(folder: Path, config: Config) -> tuple[str, ...]:
    file = folder / ARGS_FILE
    if not file.is_file():
        return ()
    return config_of_args(read_json_object(file), file, r_embedding=config.model.r_embedding)[1]


def _open_workdir(workdir: Path, **options) -> OpenDenoiser:
    values, step, parameters = load_ema(workdir)
    config, source = validate(values), f"checkpoint {step} of {workdir}"
    network = open_parameters(config.model_settings(), parameters, source, **options)
    return OpenDenoiser(f"{absolute(workdir).name}, step {step}", config, network)
