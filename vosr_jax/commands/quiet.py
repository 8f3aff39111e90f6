"""Filter of library warnings that the user can do nothing about."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator

_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "GRPC_VERBOSITY": "ERROR",
    "ABSL_MIN_LOG_LEVEL": "3",
}
# None is the root logger, which Beam uses for its warnings.
_LOGGERS = (None, "absl", "orbax", "tensorflow", "apache_beam", "jax._src.xla_bridge")


def quieten() -> None:
    """Limit libraries to errors; variables that are already set stay."""
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("vosr_jax").setLevel(logging.WARNING)


def open_devices() -> None:
    """Let JAX find its devices, and hide libtpu's complaints on a machine without a TPU."""
    with silenced():
        import jax

        jax.local_devices()


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
