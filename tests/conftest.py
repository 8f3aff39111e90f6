"""Fixtures of all tests."""

import ctypes
import gc
import os
import signal
from pathlib import Path

import jax
import pytest

from tests.bucket import bucket_environment

# A shell that runs the tests in the background has them ignore Ctrl-C, and their children too.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Linux lets a process have 65530 mapped regions. Every compiled program takes some, and XLA aborts
# where one more is refused.
_MOST_REGIONS = 30_000
# Compiled programs and the compiler's freed memory otherwise grow to 8 GB a process.
_MOST_BYTES = 3_000_000_000


@pytest.fixture(scope="module", autouse=True)
def few_compiled_programs():
    """Give up the programs of earlier files before they take too much memory."""
    yield
    process = Path("/proc/self")
    if not process.exists():
        return
    regions = (process / "maps").read_bytes().count(b"\n")
    resident = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if regions > _MOST_REGIONS or resident > _MOST_BYTES:
        jax.clear_caches()
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


@pytest.fixture(scope="session")
def bucket(tmp_path_factory):
    """The address of a bucket on loopback, the same for the whole session."""
    with bucket_environment(tmp_path_factory.mktemp("bucket")) as address:
        yield address
