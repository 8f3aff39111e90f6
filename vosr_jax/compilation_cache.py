"""Compiled programs kept on disk, so that only the first run of a shape compiles."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def cache_folder() -> Path:
    """Where compiled programs lie: below VOSR_CACHE_DIR, else the user's cache folder."""
    own = os.environ.get("VOSR_CACHE_DIR")
    if own:
        return Path(own).expanduser() / "compiled"
    users = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(users) / "vosr_jax" / "compiled"


def use_compilation_cache() -> None:
    """Let JAX keep compiled programs; where JAX has been given a folder, that one stays.

    JAX takes its folder and thresholds from JAX_COMPILATION_CACHE_DIR and its other variables.
    A folder that cannot be written costs a warning of JAX and no result.
    """
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    # Small programs too: a second process then compiles nothing.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


@contextlib.contextmanager
def no_compilation_cache() -> Iterator[None]:
    """What is compiled inside is neither taken from disk nor kept there.

    For programs of hardware that is not here: JAX cannot load them again, and a compile time read
    from disk says nothing.
    """
    import jax
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    folder = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    # Whether there is a cache is remembered from the first compilation on.
    reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)
        reset_cache()
