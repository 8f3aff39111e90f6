"""A cache of compiled programs on disk: only the first run of a shape compiles."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def user_cache() -> Path:
    """The folder of everything that this package caches: VOSR_CACHE, or the user's own."""
    if own := os.environ.get("VOSR_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vosr_jax"


def cache_folder() -> Path:
    """The folder of compiled programs."""
    return user_cache() / "compiled"


def use_compilation_cache() -> None:
    """Make JAX keep compiled programs on disk; a folder that is already set for JAX stays.

    JAX takes its folder and thresholds from JAX_COMPILATION_CACHE_DIR and its other variables.
    If the folder cannot be written, JAX warns and nothing else changes.
    """
    # Late here and below: the cache's folder is asked for without JAX.
    import jax

    if folder_in_use() is not None:
        return
    jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    # Keep small programs too, or a second process would compile them again.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def folder_in_use() -> str | None:
    """The folder in which JAX keeps compiled programs; None if it keeps none."""
    import jax

    return jax.config.values["jax_compilation_cache_dir"]


@contextlib.contextmanager
def no_compilation_cache() -> Iterator[None]:
    """Compile inside the block without reading or writing the cache on disk.

    This is for programs of hardware that this machine lacks: JAX cannot load them again, and the
    time of a load from disk is not a compile time.
    """
    import jax
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    folder = folder_in_use()
    jax.config.update("jax_compilation_cache_dir", None)
    # JAX decides at the first compilation whether it has a cache, and keeps that answer.
    reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)
        reset_cache()
