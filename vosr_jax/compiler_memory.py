"""The host memory that XLA's compilations leave behind."""

import ctypes
from functools import cache

_COMPILED = "/jax/core/compile/backend_compile_duration"
# Shorter compilations leave little.
_LONG = 1.0


@cache
def return_compiler_memory() -> None:
    """From now on give back to the system what every long compilation has freed.

    glibc keeps freed memory for its process: after a large step's compilation half a gigabyte that
    the step itself, whose buffers are larger, never uses. Without glibc nothing happens.
    """
    import jax

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return

    def compiled(event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILED and duration_secs >= _LONG:
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(compiled)
