"""Host memory: how much of it is free, and what XLA's compilations leave behind."""

import ctypes
import re
from functools import cache
from pathlib import Path

_UNKNOWN_FREE = 4 << 30
_COMPILED = "/jax/core/compile/backend_compile_duration"
# Seconds; shorter compilations leave little.
_LONG = 1.0


def free_host_memory() -> int:
    """Bytes free on this machine; 4 GiB if the system does not report it."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else _UNKNOWN_FREE


@cache
def return_compiler_memory() -> None:
    """Return freed memory to the system after every long compilation from now on.

    glibc keeps freed memory for its process. After the compilation of a large step that is half a
    gigabyte, which the step itself never uses because its buffers are larger. Without glibc this
    does nothing.
    """
    # Late: the size of free memory is asked for without JAX, too.
    import jax

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return

    def compiled(event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILED and duration_secs >= _LONG:
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(compiled)
