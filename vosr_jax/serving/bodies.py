"""Request bodies: read chunk by chunk up to a limit, then parsed."""

import asyncio
import base64
import binascii
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pydantic_core import from_json
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from vosr_jax.serving import refusals
from vosr_jax.serving.fields import Fields, read_fields
from vosr_jax.serving.refusals import Refusal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# The page sends all photos of a visitor in one body.
PICTURES_OF_THE_PAGE = 20
_MOST_FIELDS = 20
_LONGEST_FIELD = 1 << 12


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


async def read_request(request: Request, deadline: float, seconds: float) -> tuple[bytes, Fields]:
    """Read a request's image file and fields.

    Args:
      request: multipart/form-data with a file, or JSON with the image file in base64.
      deadline: time on the event loop's clock.
      seconds: the time limit that errors state.

    Raises:
      Refusal: the body is broken, incomplete, too slow or of another type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    readers = {"multipart/form-data": _multipart, "application/json": _json}
    if kind not in readers:
        raise Refusal(415, "send multipart/form-data with a file, or application/json")
    try:
        async with asyncio.timeout_at(deadline):
            return await readers[kind](request)
    except TimeoutError:
        raise refusals.too_slow(seconds, "the body was not read") from None


async def _multipart(request: Request) -> tuple[bytes, Fields]:
    limits: dict[str, Any] = {"max_files": 1, "max_fields": _MOST_FIELDS}
    try:
        async with request.form(**limits, max_part_size=_LONGEST_FIELD) as form:
            content: bytes | None = None
            values: dict[str, Any] = {}
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    if name != "file":
                        raise Refusal(422, f"the picture's field is called file, not {name[:60]!r}")
                    content = await value.read()
                elif name == "file":
                    raise Refusal(422, "file has no file name, so it is no file; use curl's -F")
                elif name in values:
                    raise Refusal(422, f"{name[:60]!r} is given twice")
                else:
                    values[name] = value
    except HTTPException as error:
        detail = str(error.detail).rstrip(".")
        raise Refusal(400, f"the multipart body is broken ({detail})") from None
    if content is None:
        raise Refusal(422, "the field file with the picture is missing, or the body breaks off")
    return content, read_fields(values)


async def _json(request: Request) -> tuple[bytes, Fields]:
    body = await request.body()
    if not body:
        raise Refusal(400, "the body is empty; send a picture")
    try:
        values = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refusal(400, f"the body is no JSON ({error})") from None
    if not isinstance(values, dict):
        raise Refusal(422, "the JSON must be an object with the key image")
    image = values.pop("image", None)
    if not isinstance(image, str):
        raise Refusal(422, "image must be the picture's file in base64")
    try:
        content = base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(422, "image is no base64 of a file, without line breaks or prefix") from None
    return content, read_fields(values)
