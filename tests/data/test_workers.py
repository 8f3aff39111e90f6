"""Processes that make batches take one core each."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import cv2
from threadpoolctl import threadpool_info

from vosr_jax.data.workers import start_worker


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
