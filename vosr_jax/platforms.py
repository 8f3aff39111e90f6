"""JAX in this process: the platform it looks for, and a guard against forks after its use."""

import glob
import importlib.util
import os
from importlib.metadata import entry_points
from pathlib import Path

from vosr_jax.errors import UserError

_GOOGLE = "0x1ae0"
# Environment variables of machines in TPU pods and GKE.
_TPU_VARIABLES = ("TPU_NAME", "TPU_WORKER_ID", "TPU_ACCELERATOR_TYPE", "TPU_CHIPS_PER_HOST_BOUNDS")
_state = {"used": False, "forked_after_use": False}


def use_found_platform() -> None:
    """Set JAX to "cpu" if libtpu is installed but there is neither a TPU nor a GPU plugin.

    JAX would otherwise load libtpu to find out. That prints errors, takes the library's lock and
    makes a later profiler trace crash. JAX_PLATFORMS takes precedence. Must run before anything
    touches a device.
    """
    # Late: a fork is checked for without JAX, too.
    import jax

    library = "TPU_LIBRARY_PATH" in os.environ or _installed("libtpu")
    if jax.config.jax_platforms or not library:  # type: ignore[attr-defined]
        return
    others = _installed("jax_plugins") or entry_points(group="jax_plugins")
    if not others and not tpu_in_sight():
        jax.config.update("jax_platforms", "cpu")


def tpu_in_sight(root: str = "/") -> bool:
    """Whether this machine may have a TPU; True in doubt.

    Args:
      root: folder that holds dev and sys.
    """
    if any(name in os.environ for name in _TPU_VARIABLES):
        return True
    if any(glob.glob(f"{root}dev/{name}") for name in ("accel[0-9]*", "vfio/[0-9]*")):
        return True
    # Google's network cards match too: a needless look costs less than a missed TPU.
    vendors = glob.glob(f"{root}sys/bus/pci/devices/*/vendor")
    return any(Path(file).read_text().strip() == _GOOGLE for file in vendors)


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _in_child() -> None:
    _state["forked_after_use"] = _state["used"]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def check_fork() -> None:
    """Record that this process uses JAX.

    JAX's threads are gone after a fork, so its calls would hang.

    Raises:
      UserError: this process was forked from one that had used JAX.
    """
    if _state["forked_after_use"]:
        raise UserError(
            "this process was forked from one that had used the upscaler, and JAX does not work "
            "after a fork; use multiprocessing.get_context('spawn') and load the model there"
        )
    _state["used"] = True
