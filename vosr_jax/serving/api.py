"""The HTTP interface: upscaling, models, health and metrics."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from vosr_jax.errors import UserError
from vosr_jax.files.photo import Photo
from vosr_jax.files.photo_writing import encode
from vosr_jax.serving import openapi, refusals
from vosr_jax.serving.fields import MEDIA_TYPES, read_request
from vosr_jax.serving.job_queue import Job
from vosr_jax.serving.refusals import Refusal
from vosr_jax.serving.server import BodyLimit, CountAnswers
from vosr_jax.serving.service import Service
from vosr_jax.version import __version__

_CLIENT_LEFT = 499
_LAST_PICTURE_SECONDS = 30
_GET_ONLY = ("/v1/models", "/healthz", "/readyz", "/metrics", "/openapi.json")


def create_app(service: Service) -> FastAPI:
    """Make the application, without the page.

    Args:
      service: the service; it starts and stops with the application.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()
        await run_in_threadpool(service.join, _LAST_PICTURE_SECONDS)

    app = FastAPI(
        title="vosr",
        version=__version__,
        description=openapi.DESCRIPTION,
        lifespan=lifespan,
        # FastAPI's documentation pages load scripts from other servers.
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(BodyLimit, megabytes=service.settings.max_megabytes, answer=_answer)
    # The middleware added last runs first, so it counts every response.
    app.add_middleware(CountAnswers, count=service.metrics.answered)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_exception_handler(Exception, _broken)
    app.include_router(_health(service))
    app.include_router(_pictures(service), dependencies=_authorised(service))
    # Added before the page, which would answer every path without a route.
    for path in _GET_ONLY:
        app.router.routes.append(Route(path, _Elsewhere("GET"), include_in_schema=False))
    app.router.routes.append(Route("/v1/upscale", _Elsewhere("POST"), include_in_schema=False))
    app.router.routes.append(Route("/v1/{rest:path}", _Elsewhere(), include_in_schema=False))
    return app


def _pictures(service: Service) -> APIRouter:
    router = APIRouter(tags=["pictures"])

    @router.post(
        "/v1/upscale",
        summary="Restore and enlarge a picture",
        response_class=Response,
        responses=openapi.responses(400, 401, 404, 408, 413, 415, 422, 500, 503),
        openapi_extra=openapi.upscale_documentation(),
    )
    async def upscale(request: Request) -> Response:
        """Restore and enlarge the image in the body; the response has the requested format."""
        return await _upscale(service, request)

    @router.get(
        "/v1/models",
        summary="Models that are served",
        response_model=openapi.Models,
        responses=openapi.responses(401, 503),
    )
    def models() -> dict[str, Any]:
        """List the models with their settings and the values of their presets."""
        return {"models": [service.describe(name) for name in service.names]}

    @router.get(
        "/metrics",
        tags=["health"],
        summary="Counts for Prometheus",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **openapi.responses(401),
        },
    )
    def metrics() -> Response:
        """Report requests, images, times, the queue and the process's memory."""
        return Response(service.metrics.text(), media_type=service.metrics.media_type)

    return router


def _health(service: Service) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Whether the process lives", response_model=openapi.State)
    async def healthz() -> dict[str, str]:
        """Respond while the process is alive."""
        return {"status": "alive"}

    @router.get(
        "/readyz",
        summary="Whether pictures are taken in",
        response_model=openapi.State,
        responses=openapi.responses(503),
    )
    async def readyz() -> dict[str, str]:
        """Respond "ready" from when the models are loaded until the service is told to stop."""
        service.require_ready()
        return {"status": "ready"}

    return router


async def _upscale(service: Service, request: Request) -> Response:
    seconds = service.settings.max_seconds
    deadline = asyncio.get_running_loop().time() + seconds
    try:
        with service.place():
            content, fields = await read_request(request, deadline, seconds)
            job = await run_in_threadpool(service.submit, content, fields)
            photo = await _result(request, job, deadline, seconds)
            name = Path(f"result.{fields.ending}")
            data = await run_in_threadpool(encode, photo, name)
    except ClientDisconnect:
        return Response(status_code=_CLIENT_LEFT)
    except UserError as error:
        raise Refusal(422, str(error)) from error
    return Response(data, media_type=MEDIA_TYPES[fields.ending])


async def _result(request: Request, job: Job, deadline: float, seconds: float) -> Photo:
    """Wait for the job's photo; abandon the job if the client disconnects or the time is up.

    Raises:
      ClientDisconnect: the client has disconnected.
      Refusal: there is no photo, or it is late.
    """
    loop = asyncio.get_running_loop()
    result = asyncio.wrap_future(job.result)
    try:
        while not result.done():
            if loop.time() >= deadline:
                raise refusals.too_slow(seconds, "the picture was not finished")
            await asyncio.wait([result], timeout=min(0.2, deadline - loop.time()))
            if not result.done() and await request.is_disconnected():
                raise ClientDisconnect
        return await result
    finally:
        result.cancel()
        job.leave()


def _authorised(service: Service) -> list[Any]:
    token = service.settings.token
    if token is None:
        return []
    bearer = HTTPBearer(auto_error=False, description="the service's token")
    expected = token.encode()

    def check(given: HTTPAuthorizationCredentials | None = Depends(bearer)) -> None:  # noqa: B008
        if given is None or not secrets.compare_digest(given.credentials.encode(), expected):
            raise Refusal(401, "send the service's token: Authorization: Bearer TOKEN")

    return [Depends(check)]


def _answer(refusal: Refusal) -> Response:
    headers = {}
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(refusal.retry_after)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": str(refusal)}, refusal.status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _answer(error)


async def _not_routed(request: Request, error: Exception) -> Response:
    """Answer a request whose path or method the router refuses."""
    assert isinstance(error, HTTPException)
    sentences = {
        404: "there is nothing at this address; see /openapi.json",
        405: f"{request.method} is not for this address",
    }
    sentence = sentences.get(error.status_code, str(error.detail))
    return JSONResponse({"error": sentence}, error.status_code, error.headers)


class _Elsewhere:
    """Answers 405 for a method that an address lacks, and 404 for an unknown address."""

    def __init__(self, allowed: str | None = None):
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = HTTPException(404)
        if self._allowed is not None:
            error = HTTPException(405, headers={"Allow": self._allowed})
        answer = await _not_routed(Request(scope), error)
        await answer(scope, receive, send)


async def _broken(request: Request, error: Exception) -> Response:
    return _answer(refusals.failed())
