"""Compiled programs on disk: where they lie, and that a second process finds them."""

import os
import subprocess
import sys

from vosr_jax.compilation_cache import cache_folder

_PROGRAM = """
import sys
import numpy as np
from tests.restoration.models import tiny_model
from vosr_jax.compilation_cache import use_compilation_cache
import jax
found = []
jax.monitoring.register_event_listener(lambda name, **_: found.append(name))
use_compilation_cache()
from vosr_jax.restoration.upscaler import Upscaler
upscaler = Upscaler(tiny_model())
found.clear()
upscaler(np.zeros((8, 8, 3), np.uint8), scale=2, progress=lambda share: None)
print(found.count('/jax/compilation_cache/cache_hits'))
print(found.count('/jax/compilation_cache/cache_misses'))
"""


def _run(**environment: str) -> list[int]:
    given = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "VOSR_"))}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, env=given | environment
    )
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


def test_a_second_process_finds_the_samplers_programs(tmp_path):
    hits_before, misses_before = _run(VOSR_CACHE=str(tmp_path))
    names = [file.name for file in (tmp_path / "compiled").iterdir()]
    for program in ("_shared", "_velocity"):
        assert any(program in name for name in names), names
    hits, misses = _run(VOSR_CACHE=str(tmp_path))
    # Equal small programs are found within one process already.
    assert hits >= hits_before + 2 and misses <= misses_before - 2


def test_the_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("VOSR_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "compiled"
    monkeypatch.delenv("VOSR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "vosr_jax" / "compiled"
