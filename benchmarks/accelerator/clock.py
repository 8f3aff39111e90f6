"""Milliseconds of calls whose results are waited for, and the device's memory."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

_GIB = 2**30


def milliseconds(call: Callable[[], Any], most: int = 9, seconds: float = 2.0) -> float:
    """Median of several calls after one that warms up.

    Args:
      call: what is timed; its result is waited for.
      most: calls at most.
      seconds: after so many no further call begins, once three are done.
    """
    jax.block_until_ready(call())
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or (len(times) < most and time.perf_counter() < end):
        begun = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times)


def peak_gib() -> float | None:
    """The most that this process has held on the device; None where the device keeps no count."""
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return None if peak is None else peak / _GIB
