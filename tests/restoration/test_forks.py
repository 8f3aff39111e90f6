"""An upscaler in a forked process is refused instead of waiting for ever."""

import multiprocessing
import pickle

import numpy as np
import pytest

from tests.restoration.models import tiny_model
from vosr_jax.errors import UserError
from vosr_jax.restoration.upscaler import Upscaler


def test_an_upscaler_does_not_work_after_a_fork():
    upscaler = Upscaler(tiny_model())

    def work(queue, make) -> None:
        try:
            make() if make is not None else upscaler(np.zeros((4, 4, 3), np.uint8))
            queue.put("worked")
        except UserError as error:
            queue.put(str(error))

    context = multiprocessing.get_context("fork")
    for make in (None, lambda: Upscaler.from_pretrained("nano")):
        queue = context.Queue()
        process = context.Process(target=work, args=(queue, make), daemon=True)
        process.start()
        try:
            assert "JAX does not work after a fork" in queue.get(timeout=60)
        finally:
            process.kill()


def test_an_upscaler_is_not_sent_to_another_process():
    with pytest.raises(UserError, match="cannot be sent"):
        pickle.dumps(Upscaler(tiny_model()))
