"""Uvicorn with a graceful shutdown, and middleware that limits bodies and counts responses.

On SIGTERM or Ctrl-C the service first finishes its work.
"""

import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from vosr_jax.errors import UserError
from vosr_jax.serving import refusals
from vosr_jax.serving.refusals import Refusal
from vosr_jax.serving.service import Service

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# The page sends all photos of a visitor in one body.
PICTURES_OF_THE_PAGE = 20
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


class BodyLimit:
    """Middleware that reads no request body beyond a limit.

    It buffers nothing; reading the next chunk beyond the limit raises a Refusal in the application.
    """

    def __init__(self, app: App, megabytes: float, answer: Callable[[Refusal], App]):
        self._app, self._megabytes, self._answer = app, megabytes, answer

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass a request on and count the bytes of its body."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        megabytes = self._megabytes
        if not scope["path"].startswith("/v1/"):
            megabytes *= PICTURES_OF_THE_PAGE
        refusal = refusals.body_too_large(megabytes)
        stated = dict(scope["headers"]).get(b"content-length", b"")
        if stated.isdigit() and int(stated) > megabytes * 1e6:
            return await self._answer(refusal)(scope, receive, send)
        read, begun = 0, False

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > megabytes * 1e6:
                raise refusal
            return message

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, counted, watched)
        except Refusal as caught:
            if begun:
                return
            await self._answer(caught)(scope, receive, send)


class CountAnswers:
    """Middleware that counts every response to /v1/upscale, refusals included."""

    def __init__(self, app: App, count: Callable[[int, float], None]):
        self._app, self._count = app, count

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass a request on and count its response."""
        if (scope.get("method"), scope.get("path")) != ("POST", "/v1/upscale"):
            return await self._app(scope, receive, send)
        # An unexpected error becomes a 500 outside this middleware.
        began, code = time.monotonic(), 500

        async def watched(message: Message) -> None:
            nonlocal code
            code = message.get("status", code)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            self._count(code, time.monotonic() - began)
