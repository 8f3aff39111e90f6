"""Blend the weights of two exports of one network, parameter by parameter.

    python benchmarks/blend_weights.py FIRST SECOND --share 0.4 -o OUT

OUT holds (1 - share) * FIRST + share * SECOND, summed in float32, with FIRST's config. This is how
`nano-onestep` gets part of what the adversarial stage brings, for part of what that costs
(docs/nano.md). It needs weights that come from one another: one starts where the other ended.
"""

import argparse
from pathlib import Path

import numpy as np

from vosr_jax.errors import UserError
from vosr_jax.files import read_json_object
from vosr_jax.parameters.safetensors_files import find_safetensors
from vosr_jax.parameters.tensors import open_tensors
from vosr_jax.weights.export import save_export


def blend(first: Path, second: Path, share: float, out: Path) -> Path:
    """Write the blend of two exports.

    Raises:
      UserError: a folder is no export or holds frozen networks, the networks differ, or the share
        is not one.
    """
    if not 0 <= share <= 1:
        raise UserError(f"--share must be between 0 and 1, not {share:g}")
    parts = []
    for folder in (first, second):
        weights = find_safetensors(folder, "model")
        if weights is None:
            raise UserError(f"{folder} is no export; write one with vosr convert")
        if inner := [path.name for path in folder.iterdir() if path.is_dir()]:
            raise UserError(f"{folder} holds {', '.join(inner)}, which a blend would not have")
        parts.append({name: np.asarray(value) for name, value in open_tensors(weights).items()})
    shapes = [{name: value.shape for name, value in part.items()} for part in parts]
    if shapes[0] != shapes[1]:
        raise UserError(f"{first} and {second} hold different networks")
    blended = {
        name: (1 - share) * value.astype(np.float32) + share * parts[1][name].astype(np.float32)
        for name, value in parts[0].items()
    }
    dtype = str(next(iter(parts[0].values())).dtype)
    return save_export(out, read_json_object(first / "config.json"), blended, dtype)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, required=True, help="of SECOND, 0 to 1")
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    print(blend(options.first, options.second, options.share, options.out))


if __name__ == "__main__":
    main()
