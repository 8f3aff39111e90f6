"""Provenance of a result: the weights' checksum, package versions and devices."""

import hashlib
import importlib.metadata
import platform
from typing import Any

import jax
import numpy as np
from flax import nnx

from vosr_jax.restoration.model import RestorationModel

_PACKAGES = ("vosr_jax", "jax", "jaxlib", "flax", "numpy", "pillow", "opencv-python-headless")


def weights_sha256(model: RestorationModel) -> str:
    """Checksum of all networks' values in memory.

    Equal values give equal checksums, whether the model comes from an official file, an export or
    a checkpoint. The digest runs over every array, sorted by name: network and path, type and
    shape as text, then its bytes.
    """
    digest = hashlib.sha256()
    networks = ("autoencoder", model.autoencoder), ("denoiser", model.denoiser)
    for part, network in (*networks, ("encoder", model.encoder)):
        if network is None:
            continue
        leaves = jax.tree_util.tree_leaves_with_path(nnx.state(network, nnx.Param))
        named = sorted((jax.tree_util.keystr(path), leaf) for path, leaf in leaves)
        for path, leaf in named:
            array = np.ascontiguousarray(leaf)
            digest.update(f"{part}{path} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect the result."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def device_names(devices: list[jax.Device]) -> list[Any]:
    """Names of the devices; a CPU's includes the processor or machine type."""
    return [
        f"{device.device_kind} ({platform.processor() or platform.machine()})"
        if device.platform == "cpu"
        else device.device_kind
        for device in devices
    ]
