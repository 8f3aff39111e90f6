"""Processes that make batches take one core each."""

import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor

import cv2
import pytest
from threadpoolctl import threadpool_info

from vosr_jax.data.pipeline import PipelineSettings, batches
from vosr_jax.data.workers import OutOfMemory, start_worker, why_a_worker_died
from vosr_jax.errors import UserError


def _threads_of_a_worker(parent: int) -> tuple[int, list[int]]:
    import numpy  # noqa: F401  its library of matrix products is what is asked about

    start_worker(parent, 0, 1)
    return cv2.getNumThreads(), [library["num_threads"] for library in threadpool_info()]


def test_a_worker_gives_pictures_and_matrix_products_one_thread():
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as process:
        pictures, products = process.submit(_threads_of_a_worker, os.getpid()).result()
    assert pictures == 1
    assert products and set(products) == {1}


def test_a_killed_worker_is_named_in_one_sentence(photographs):
    pipeline = PipelineSettings(
        sources=str(photographs), batch_size=2, crop_size=32, workers=1, max_bad_fraction=1.0
    )
    with batches(pipeline) as own:
        next(own)
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(UserError, match="data worker was killed from outside .SIGKILL.*memory"):
            for _ in range(20):
                next(own)


def counter(file, kills: int) -> None:
    file.write_text(f"low 0\noom 0\noom_kill {kills}\noom_group_kill 0\n")


def test_what_the_kernel_ended_for_want_of_memory_is_told_apart(tmp_path, monkeypatch):
    events = tmp_path / "memory.events"
    monkeypatch.setattr(OutOfMemory, "_COUNTERS", (events, tmp_path / "none"))
    counter(events, 3)
    memory, killed = OutOfMemory(), RuntimeError("terminated unexpectedly with exit code -9. See")
    assert "killed from outside" in why_a_worker_died(killed, memory)
    counter(events, 4)
    assert "by the kernel because memory ran out" in why_a_worker_died(killed, memory)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("with exit code -7.", "SIGBUS, as happens where /dev/shm is full"),
        ("with exit code -11.", "ended with SIGSEGV"),
        ("with exit code 3.", "ended with exit code 3"),
        ("another error", None),
    ],
)
def test_other_ends_of_a_worker(text, sentence):
    told = why_a_worker_died(RuntimeError(text), OutOfMemory())
    assert told is None if sentence is None else sentence in told
