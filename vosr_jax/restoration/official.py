"""A folder in the official layout as a restoration model."""

import dataclasses
from pathlib import Path

from vosr_jax.restoration.model import RestorationModel
from vosr_jax.weights.release import load_release, read_args, with_parts


def load_official(path: str | Path) -> RestorationModel:
    """Read a release folder, or weights inside one, with its frozen networks.

    Raises:
      UserError: args.json, the weights or a frozen network is missing, unknown or damaged.
    """
    from vosr_jax.restoration.loading import from_config

    args, file = read_args(path)
    denoiser, config, notes = load_release(path)
    model = from_config(with_parts(config, args, file), denoiser, file.parent.name)
    return dataclasses.replace(model, notes=notes)
