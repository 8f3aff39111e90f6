"""A real server on loopback, with clients that are slow, endless or killed."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip("uvicorn")

from tests.serving.fakes import FakeUpscaler, png, until
from tests.serving.live import get, served
from vosr_jax.errors import UserError
from vosr_jax.serving.server import listen

_HEAD = b"POST /v1/upscale HTTP/1.1\r\nHost: x\r\n"
_FORM = b"Content-Type: multipart/form-data; boundary=b\r\n"
_PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'


def _body(content: bytes) -> bytes:
    scale = b'\r\n--b\r\nContent-Disposition: form-data; name="scale"\r\n\r\n2\r\n--b--\r\n'
    return _PART + content + scale


def _request(content: bytes) -> bytes:
    body = _body(content)
    return _HEAD + _FORM + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _connect(port) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def _answer(client: socket.socket) -> bytes:
    """All of an answer: its body may arrive after its head."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += (more := client.recv(4096))
        assert more, "the connection was closed within the head"
    head, _, body = head.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
    while len(body) < length:
        body += (more := client.recv(4096))
        assert more, "the connection was closed within the body"
    return head + b"\r\n\r\n" + body


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_stated_gigabyte_is_refused_unread():
    with served(FakeUpscaler(), max_megabytes=2) as (_, _, port), _connect(port) as client:
        client.sendall(_HEAD + _FORM + b"Content-Length: 1000000000\r\n\r\n")
        answer = _answer(client)
        assert b" 413 " in answer.splitlines()[0] and b"larger than 2 MB" in answer


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
def test_a_gigabyte_in_chunks_is_refused_and_never_held():
    piece = bytes(1 << 20)
    with served(FakeUpscaler(), max_megabytes=2) as (_, service, port), _connect(port) as client:
        before = _resident()
        client.sendall(_HEAD + _FORM + b"Transfer-Encoding: chunked\r\n\r\n")
        client.sendall(b"%x\r\n" % len(_PART) + _PART + b"\r\n")
        most = 0
        for _ in range(1000):
            client.sendall(b"%x\r\n" % len(piece) + piece + b"\r\n")
            most = max(most, _resident())
        client.sendall(b"0\r\n\r\n")
        answer = _answer(client)
        assert b" 413 " in answer.splitlines()[0] and b"larger than 2 MB" in answer
        # A tenth of what was sent; the process's other memory moves by some tens of MB too.
        assert most - before < 100e6
        assert service.idle and get(port, "/healthz") == 200


def test_a_slow_client_loses_its_place():
    settings = {"queue": 1, "max_seconds": 0.6}
    with served(FakeUpscaler(), **settings) as (_, service, port), _connect(port) as slow:
        request = _request(png())
        for i in range(3):
            slow.sendall(request[40 * i : 40 * i + 40])
            time.sleep(0.05)
        slow.sendall(request[120:300])
        until(lambda: not service.idle)
        answer = _answer(slow)
        assert b" 408 " in answer.splitlines()[0] and b"not read within 0.6 seconds" in answer
        until(lambda: service.idle)
        with _connect(port) as quick:
            quick.sendall(request)
            assert b" 200 " in quick.recv(4096).splitlines()[0]


def test_clients_that_are_cut_off_leave_nothing_behind():
    upscaler = FakeUpscaler(open_=False)
    with served(upscaler, queue=4) as (_, service, port):
        for sent in (_request(png()), _request(png())[:200]):
            with _connect(port) as client:
                client.sendall(sent)
                until(lambda: not service.idle)
            until(lambda: service.idle)
        until(lambda: upscaler.broken_off == 1)
        upscaler.gate.set()
        with _connect(port) as client:
            client.sendall(_request(png()))
            assert b" 200 " in client.recv(4096).splitlines()[0]


def test_a_signal_lets_the_picture_at_work_be_finished():
    upscaler = FakeUpscaler(open_=False)
    with served(upscaler) as (server, service, port), _connect(port) as client:
        client.sendall(_request(png()))
        until(upscaler.begun.is_set)
        server.handle_exit(signal.SIGTERM, None)
        until(lambda: service.stopping)
        with _connect(port) as late:
            late.sendall(_request(png()))
            answer = _answer(late)
            assert b" 503 " in answer.splitlines()[0] and b"stopping" in answer
        assert server.started and get(port, "/healthz") == 200
        upscaler.gate.set()
        assert b" 200 " in client.recv(4096).splitlines()[0]
        until(lambda: not server.servers or not server.servers[0].is_serving())


def test_a_taken_port_is_one_sentence():
    with contextlib.closing(listen("127.0.0.1", 0)) as listener:
        with pytest.raises(UserError, match="another --port"):
            listen("127.0.0.1", listener.getsockname()[1])


def test_the_command_serves_and_ends_with_sigterm():
    command = [sys.executable, "-m", "vosr_jax.cli", "serve", "--api-only", "--port", "0"]
    environment = os.environ | {"VOSR_SERVE_TOKEN": "t"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            line = process.stdout.readline()
            port = int(line.partition("http://127.0.0.1:")[2].partition("/")[0])
            until(lambda: get(port, "/readyz") == 200, 60)
            assert get(port, "/v1/models") == 401
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0 and errors == ""
