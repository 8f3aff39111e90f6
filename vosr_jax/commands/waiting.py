"""A line that explains the wait during compilation."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def told_of_compilation(say: Callable[[str], None]) -> Iterator[None]:
    """Say once inside the block that programs are compiled, if some are not in the cache."""
    import jax
    from jax import monitoring

    told: list[str] = []

    def listen(event: str, **_) -> None:
        if event == "/jax/compilation_cache/cache_misses" and not told:
            told.append(event)
            folder = jax.config.values["jax_compilation_cache_dir"]
            say(f"compiling for this model and device, once; kept in {folder}")

    monitoring.register_event_listener(listen)
    try:
        yield
    finally:
        monitoring.unregister_event_listener(listen)
