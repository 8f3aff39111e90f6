"""Host memory that XLA's compilations leave behind."""

import ctypes
from functools import cache

_COMPILED = "/jax/core/compile/backend_compile_duration"
# Seconds; shorter compilations leave little.
_LONG = 1.0


@cache
def return_compiler_memory() -> None:
    """Return freed memory to the system after every long compilation from now on.

    glibc keeps freed memory for its process. After the compilation of a large step that is half a
    gigabyte, which the step itself never uses because its buffers are larger. Without glibc this
    does nothing.
    """
    import jax

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return

    def compiled(event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILED and duration_secs >= _LONG:
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(compiled)
