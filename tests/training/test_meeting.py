"""Processes that meet, and those that are told who did not come."""

import socket
import threading
import time

import pytest

from vosr_jax.errors import UserError
from vosr_jax.training.distributed import address_of, join, meet


@pytest.fixture
def address() -> tuple[str, int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()


def outcomes(address, members: list[tuple[int, int, float]], seconds: float) -> list[str]:
    """What each (number, count, delay) is told, "" where all came."""
    told = [""] * len(members)

    def one(place: int, number: int, count: int, delay: float) -> None:
        time.sleep(delay)
        try:
            meet(address, number, count, seconds)
        except UserError as error:
            told[place] = str(error)

    threads = [
        threading.Thread(target=one, args=(place, *member)) for place, member in enumerate(members)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def test_all_go_on_once_the_last_has_come_whoever_is_first(address):
    assert outcomes(address, [(1, 3, 0), (0, 3, 0.3), (2, 3, 0.6)], 20) == ["", "", ""]


def test_those_who_came_are_told_who_is_missing(address):
    first, second = outcomes(address, [(0, 4, 0), (2, 4, 0)], 1.5)
    assert first == second
    host = socket.gethostname()
    assert f"2 of 4 processes came within 2 s (VOSR_START_SECONDS): 0 ({host}), 2" in first
    assert "missing: 1, 3." in first


def test_without_the_first_process_the_others_say_so(address):
    (told,) = outcomes(address, [(1, 2, 0)], 0.5)
    assert "process 1" in told and "did not reach process 0 at 127.0.0.1" in told


def test_two_of_one_number_and_two_counts_are_named(address):
    told = outcomes(address, [(0, 3, 0), (1, 3, 0.1), (1, 3, 0.3)], 10)
    assert len(set(told)) == 1 and "two processes say JAX_PROCESS_ID=1" in told[0]
    told = outcomes(address, [(0, 2, 0), (1, 3, 0.1)], 10)
    assert len(set(told)) == 1 and "says JAX_NUM_PROCESSES=3" in told[0]


def test_a_stranger_and_a_process_that_was_begun_again_disturb_nobody(address):
    def disturb() -> None:
        time.sleep(0.2)
        for line in (b"GET / HTTP/1.1\r\n\r\n", b"1 3 killed.host\n"):
            with socket.create_connection(address) as connection:
                connection.sendall(line)

    thread = threading.Thread(target=disturb)
    thread.start()
    assert outcomes(address, [(0, 3, 0), (1, 3, 0.8), (2, 3, 1.0)], 20) == ["", "", ""]
    thread.join()


def test_a_port_that_is_taken_is_named(address):
    with socket.create_server(address) as _:
        with pytest.raises(UserError, match=f"cannot open port {address[1]}"):
            meet(address, 0, 2, 1)


@pytest.mark.parametrize("text", ["10.0.0.1", "10.0.0.1:", ":1234", "host:port", "host:99999"])
def test_an_address_without_a_port_is_refused(text: str, monkeypatch):
    for name, value in (("COORDINATOR_ADDRESS", text), ("NUM_PROCESSES", 2), ("PROCESS_ID", 0)):
        monkeypatch.setenv(f"JAX_{name}", str(value))
    with pytest.raises(UserError, match=f"JAX_COORDINATOR_ADDRESS={text} must be host:port"):
        join()
    assert address_of("10.0.0.1:1234") == ("10.0.0.1", 1234)
    assert address_of("[::1]:80") == ("::1", 80)


def test_seconds_that_are_no_number_are_refused(monkeypatch):
    for name, value in (("COORDINATOR_ADDRESS", "h:1"), ("NUM_PROCESSES", 2), ("PROCESS_ID", 0)):
        monkeypatch.setenv(f"JAX_{name}", str(value))
    monkeypatch.setenv("VOSR_START_SECONDS", "soon")
    with pytest.raises(UserError, match="VOSR_START_SECONDS=soon must be a whole number"):
        join()
