"""Memory that compilations leave is given back after long ones."""

import ctypes
import types

import jax
import pytest

from vosr_jax import host_memory


@pytest.fixture
def listeners(monkeypatch) -> list:
    """What is registered, and with JAX itself nothing."""
    found: list = []
    monkeypatch.setattr(jax.monitoring, "register_event_duration_secs_listener", found.append)
    return found


def test_long_compilations_alone_give_memory_back(monkeypatch, listeners):
    trimmed: list = []
    library = types.SimpleNamespace(malloc_trim=trimmed.append)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    host_memory.return_compiler_memory.__wrapped__()
    (listener,) = listeners
    for event, seconds in ((host_memory._COMPILED, 0.5), ("/jax/other", 5.0)):
        listener(event, seconds, platform="cpu")
    assert not trimmed
    listener(host_memory._COMPILED, 5.0)
    assert trimmed == [0]


def test_the_event_is_one_that_jax_reports():
    seen = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: seen.append(event))
    jax.jit(lambda x: x * 3 + 1).lower(jax.ShapeDtypeStruct((7,), "float32")).compile()
    assert host_memory._COMPILED in seen


def test_without_glibc_nothing_happens(monkeypatch, listeners):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: types.SimpleNamespace())
    host_memory.return_compiler_memory.__wrapped__()
    assert not listeners
