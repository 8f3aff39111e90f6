"""Which hardware JAX is told to look for, before it looks."""

import glob
import importlib.util
import os
from importlib.metadata import entry_points
from pathlib import Path

_GOOGLE = "0x1ae0"
# What the machines of TPU pods and GKE have in their environment.
_TPU_VARIABLES = ("TPU_NAME", "TPU_WORKER_ID", "TPU_ACCELERATOR_TYPE", "TPU_CHIPS_PER_HOST_BOUNDS")


def use_found_platform() -> None:
    """Tell JAX "cpu" where libtpu is installed but neither a TPU nor a GPU's plugin is in sight.

    JAX would load libtpu to find that out; that prints errors, takes the library's lock, and makes
    a later trace of the profiler crash. What JAX_PLATFORMS says stands. Must run before anything
    touches a device.
    """
    import jax

    library = "TPU_LIBRARY_PATH" in os.environ or _installed("libtpu")
    if jax.config.jax_platforms or not library:  # type: ignore[attr-defined]
        return
    others = _installed("jax_plugins") or entry_points(group="jax_plugins")
    if not others and not tpu_in_sight():
        jax.config.update("jax_platforms", "cpu")


def tpu_in_sight(root: str = "/") -> bool:
    """Whether anything speaks for a TPU; in doubt it does.

    Args:
      root: folder that holds dev and sys.
    """
    if any(name in os.environ for name in _TPU_VARIABLES):
        return True
    if any(glob.glob(f"{root}dev/{name}") for name in ("accel[0-9]*", "vfio/[0-9]*")):
        return True
    # Google's network cards count too: better to look in vain than not to look.
    vendors = glob.glob(f"{root}sys/bus/pci/devices/*/vendor")
    return any(Path(file).read_text().strip() == _GOOGLE for file in vendors)


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
