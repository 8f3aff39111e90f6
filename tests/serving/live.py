"""A service behind a real server on loopback."""

import contextlib
import http.client
import threading

from tests.serving.fakes import until
from vosr_jax.serving.api import create_app
from vosr_jax.serving.server import Server, listen
from vosr_jax.serving.service import Service
from vosr_jax.serving.settings import ServiceSettings


@contextlib.contextmanager
def served(upscaler, **settings):
    """(server, service, port) of a server in a thread."""
    service = Service(["fake"], lambda: [{"fake": upscaler}], ServiceSettings(**settings))
    listener = listen("127.0.0.1", 0)
    server = Server(create_app(service), service)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until(lambda: server.started and not service.trouble)
        until(lambda: get(listener.getsockname()[1], "/readyz") == 200)
        yield server, service, listener.getsockname()[1]
    finally:
        upscaler.gate.set()
        server.should_exit = server.force_exit = True
        thread.join(10)
        listener.close()
    assert not thread.is_alive()


def get(port, path) -> int:
    """The status of a GET request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    with contextlib.closing(connection):
        return connection.getresponse().status
