"""Uvicorn with a graceful shutdown: on SIGTERM or Ctrl-C the service first finishes its work."""

import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from vosr_jax.errors import UserError
from vosr_jax.serving.service import Service

_SECONDS_FOR_CLIENTS = 10


class Server(uvicorn.Server):
    """A server that answers 503 while the service finishes, and then ends.

    A second signal ends it at once.
    """

    def __init__(self, app: FastAPI, service: Service):
        config = uvicorn.Config(
            app,
            log_level="warning",
            # Uvicorn's own config would close handlers set up elsewhere.
            log_config=None,
            server_header=False,
            # Grace for open pages and slow readers once all work is done.
            timeout_graceful_shutdown=_SECONDS_FOR_CLIENTS,
        )
        super().__init__(config)
        self._service = service
        self._told = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Record the signal; the loop acts on it, since a handler must not take a lock."""
        if self._told:
            self.should_exit = self.force_exit = True
        self._told = True

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end: after a signal once all work is done, or if no models loaded."""
        if self._told and not self._service.stopping:
            self._service.stop()
        ended = self._service.stopping and self._service.idle
        return await super().on_tick(counter) or ended


def listen(host: str, port: int) -> socket.socket:
    """Open a socket to which clients can connect; they wait until the server runs.

    Args:
      host: a name or an address.
      port: 0 means any free port.

    Raises:
      UserError: there is no such address here, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        raise UserError(
            f"no listening at {host}, port {port} ({error.strerror}); give another --port"
        ) from error
    return listener
