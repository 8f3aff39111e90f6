"""What tells one network's weights from another's, wherever they lie."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vosr_jax.parameters.host import HostArray


def sha256_of(parameters: Mapping[str, Any]) -> str:
    """Hash of names, shapes and float32 values; the same whatever file they lie in.

    Args:
      parameters: host arrays, numpy's or a device's, by dotted path.
    """
    digest = hashlib.sha256()
    for name in sorted(parameters):
        value = parameters[name]
        array = value if isinstance(value, HostArray) else HostArray.of(value)
        digest.update(f"{name} {array.shape}".encode())
        for piece in array.astype(np.float32).pieces():
            digest.update(piece.data)
    return digest.hexdigest()
