"""Batches lie ready before the step asks, in their order, and errors come in their turn."""

import threading
import time

import pytest

from vosr_jax.training.placing import Prefetch


def test_batches_come_in_order_and_placed():
    with Prefetch(iter(range(5)), lambda number: 10 * number) as placed:
        assert [next(placed) for _ in range(5)] == [0, 10, 20, 30, 40]
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(placed)


def test_an_error_comes_after_the_batches_before_it():
    def batches():
        yield 1
        yield 2
        raise ValueError("the third is bad")

    with Prefetch(batches(), lambda batch: batch) as placed:
        time.sleep(0.1)
        assert [next(placed), next(placed)] == [1, 2]
        with pytest.raises(ValueError, match="third"):
            next(placed)


def test_what_lies_ready_is_not_waited_for():
    slow = threading.Event()

    def batches():
        yield "ready"
        slow.wait(5)
        yield "late"

    with Prefetch(batches(), lambda batch: batch) as placed:
        time.sleep(0.1)
        asked = time.monotonic()
        next(placed)
        ready = time.monotonic()
        assert ready - asked < 0.05
        threading.Timer(0.2, slow.set).start()
        next(placed)
        assert time.monotonic() - ready > 0.1


def test_no_more_lie_ready_than_asked_for_and_closing_ends_the_thread():
    made = []

    def batches():
        while True:
            made.append(None)
            yield len(made)

    with Prefetch(batches(), lambda batch: batch, depth=2) as placed:
        time.sleep(0.3)
        assert len(made) <= 3
    assert not placed._thread.is_alive()
