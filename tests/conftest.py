"""Fixtures of all tests."""

import gc
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


@pytest.fixture(scope="module", autouse=True)
def few_mapped_regions():
    """Programs of earlier files are given up before the system would refuse memory for new ones."""
    yield
    regions = Path("/proc/self/maps")
    if regions.exists() and regions.read_bytes().count(b"\n") > _MOST_REGIONS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def bucket(tmp_path_factory):
    """The address of a bucket on loopback, the same for the whole session."""
    with bucket_environment(tmp_path_factory.mktemp("bucket")) as address:
        yield address
