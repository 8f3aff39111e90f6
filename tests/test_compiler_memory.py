"""Memory that compilations leave is given back after long ones."""

import ctypes
import types

import jax

from vosr_jax import compiler_memory


def test_long_compilations_alone_give_memory_back(monkeypatch):
    trimmed = []
    library = types.SimpleNamespace(malloc_trim=trimmed.append)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    compiler_memory.return_compiler_memory.__wrapped__()
    for event, seconds in ((compiler_memory._COMPILED, 0.5), ("/jax/other", 5.0)):
        jax.monitoring.record_event_duration_secs(event, seconds)
    assert not trimmed
    jax.monitoring.record_event_duration_secs(compiler_memory._COMPILED, 5.0)
    assert trimmed == [0]


def test_the_event_is_one_that_jax_reports():
    seen = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: seen.append(event))
    jax.jit(lambda x: x * 3 + 1).lower(jax.ShapeDtypeStruct((7,), "float32")).compile()
    assert compiler_memory._COMPILED in seen


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: types.SimpleNamespace())
    compiler_memory.return_compiler_memory.__wrapped__()
