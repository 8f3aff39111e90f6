"""Filters of library notices and native output that the user can do nothing about."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

_LIBRARIES = ("orbax", "grain", "clu", "etils", "tensorflow", "tensorboard")
_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "GRPC_VERBOSITY": "ERROR",
    "ABSL_MIN_LOG_LEVEL": "3",
}
# None is the root logger, which Beam uses for its warnings.
_LOGGERS = (None, "absl", "orbax", "tensorflow", "apache_beam", "jax._src.xla_bridge")


def quiet_libraries() -> None:
    """Hide notices of libraries but not their errors; call this before they are imported."""
    # TensorFlow, used for event files alone, otherwise prints a notice about its rounding.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    # Late: the command line starts without absl.
    from absl import logging as absl_logging

    handler = absl_logging.get_absl_handler()
    if _is_wanted not in handler.filters:
        handler.addFilter(_is_wanted)


def _is_wanted(record) -> bool:
    inside = any(f"{os.sep}{library}{os.sep}" in record.pathname for library in _LIBRARIES)
    return record.levelno >= logging.ERROR or not inside


def quieten() -> None:
    """Limit libraries to errors; variables that are already set stay."""
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("vosr_jax").setLevel(logging.WARNING)


def open_devices() -> list[Any]:
    """Let JAX find its devices, and hide libtpu's complaints on a machine without a TPU.

    Returns:
      The devices of this process.
    """
    with silenced():
        # Late: the command line starts without JAX.
        import jax

        return jax.local_devices()


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Hide native code's output to stderr inside the block, unless an exception ends it."""
    try:
        kept = os.dup(2)
    except OSError:
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            hidden.seek(0)
            os.write(2, hidden.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
