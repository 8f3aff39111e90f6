"""Uvicorn, which on SIGTERM or Ctrl-C first lets the service finish what it has begun."""

import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from vosr_jax.errors import UserError
from vosr_jax.serving.service import Service

_SECONDS_FOR_CLIENTS = 10


class Server(uvicorn.Server):
    """A server that answers with 503 while the service finishes, and ends after that.

    A second signal ends it without waiting.
    """

    def __init__(self, app: FastAPI, service: Service):
        config = uvicorn.Config(
            app,
            log_level="warning",
            # Uvicorn's own would close the handlers that others have set up.
            log_config=None,
            server_header=False,
            # Of open pages and slow readers, once nothing is at work.
            timeout_graceful_shutdown=_SECONDS_FOR_CLIENTS,
        )
        super().__init__(config)
        self._service = service
        self._told = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal; the loop acts on it, since a handler must take no lock."""
        if self._told:
            self.should_exit = self.force_exit = True
        self._told = True

    async def on_tick(self, counter: int) -> bool:
        """Whether to end: after a signal once nothing is at work, or without models."""
        if self._told and not self._service.stopping:
            self._service.stop()
        ended = self._service.stopping and self._service.idle
        return await super().on_tick(counter) or ended


def listen(host: str, port: int) -> socket.socket:
    """A socket to which clients can connect; they wait until the server runs.

    Args:
      host: a name or an address.
      port: 0 is any that is free.

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
