"""A service with a fake upscaler, and clients of it."""

import contextlib
import threading

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
pytest.importorskip("python_multipart")

from fastapi.testclient import TestClient

from tests.serving.fakes import FakeUpscaler, until
from vosr_jax.serving.api import create_app
from vosr_jax.serving.service import Service
from vosr_jax.serving.settings import ServiceSettings


@contextlib.contextmanager
def serving(*upscalers, **settings):
    """(client, service) of a service whose model is loaded, on as many devices as given."""
    on_devices = [{"fake": upscaler} for upscaler in upscalers]
    service = Service(["fake"], lambda: on_devices, ServiceSettings(**settings))
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        yield client, service
        for upscaler in upscalers:
            getattr(upscaler, "gate", threading.Event()).set()


@pytest.fixture
def client():
    with serving(FakeUpscaler(), max_megabytes=1, max_megapixels=4) as (client, _):
        yield client


@pytest.fixture
def start():
    """Start services that end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *upscalers, **settings: stack.enter_context(serving(*upscalers, **settings))
