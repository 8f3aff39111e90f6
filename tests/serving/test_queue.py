"""The queue is bounded, joins what is alike, and lets go of whoever leaves."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.serving.fakes import FakeUpscaler, fields, png, until
from vosr_jax.serving.job_queue import Job
from vosr_jax.serving.refusals import Refusal


def _post(client, content=None, **data):
    picture = png() if content is None else content
    return client.post("/v1/upscale", files={"file": ("a.png", picture)}, data=data)


def test_beyond_the_bound_clients_are_told_when_to_come_back(start):
    upscaler = FakeUpscaler(open_=False)
    client, service = start(upscaler, queue=3)
    with ThreadPoolExecutor(3) as pool:
        accepted = [pool.submit(_post, client) for _ in range(3)]
        until(lambda: service.metrics.registry.get_sample_value("vosr_places_taken") == 3)
        for _ in range(5):
            answer = _post(client)
            assert answer.status_code == 503 and "full" in answer.json()["error"]
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        upscaler.gate.set()
        assert [job.result(10).status_code for job in accepted] == [200] * 3
    assert _post(client).status_code == 200
    value = service.metrics.registry.get_sample_value
    assert value("vosr_requests_total", {"code": "200"}) == 4
    assert value("vosr_requests_total", {"code": "503"}) == 5
    assert value("vosr_pictures_total", {"model": "fake"}) == 4
    assert value("vosr_request_seconds_count") == 9
    assert value("vosr_places_taken") == value("vosr_waiting") == 0
    text = client.get("/metrics").text
    assert 'vosr_requests_total{code="503"} 5.0' in text and "process_resident_memory" in text


def test_pictures_of_equal_settings_share_a_call(start):
    upscaler = FakeUpscaler(open_=False)
    _, service = start(upscaler, batch=3)
    first = service.submit(png(), fields())
    until(upscaler.begun.is_set)
    kinds = [fields(seed=seed) for seed in range(4)] + [fields(scale=3)] * 2
    jobs = [service.submit(png(), kind) for kind in kinds]
    upscaler.gate.set()
    sizes = [job.result.result(10).size for job in [first, *jobs]]
    assert sizes == [(32, 32)] * 5 + [(48, 48)] * 2
    assert upscaler.calls == [1, 3, 1, 2]


def test_every_device_has_a_worker(start):
    devices = [FakeUpscaler(open_=False) for _ in range(3)]
    _, service = start(*devices)
    jobs = [service.submit(png(), fields(scale=scale)) for scale in (2, 3, 4)]
    until(lambda: all(device.begun.is_set() for device in devices))
    for device in devices:
        device.gate.set()
    assert [job.result.result(10).size for job in jobs] == [(32, 32), (48, 48), (64, 64)]
    assert [device.calls for device in devices] == [[1]] * 3


def test_waiting_workers_share_what_comes(start):
    devices = [FakeUpscaler(open_=False) for _ in range(2)]
    _, service = start(*devices, batch=8)
    first = [service.submit(png(), fields(scale=scale)) for scale in (2, 3)]
    until(lambda: all(device.begun.is_set() for device in devices))
    queue = service._queue
    jobs = [Job(png(), "fake", {"scale": 4}, seed, "png", 0.1) for seed in range(6)]
    for job in jobs:
        queue.put(job)
    queue._idle = 1  # another worker that waits
    assert len(queue.take(8, 50.0)) == 3
    queue._idle = 0
    assert len(queue.take(8, 50.0)) == 3
    for device in devices:
        device.gate.set()
    for job in first:
        job.result.result(10)


def test_pictures_that_are_looked_at_are_restored_apart(start):
    upscaler = FakeUpscaler(open_=False)
    _, service = start(upscaler)
    first = service.submit(png(), fields())
    until(upscaler.begun.is_set)
    jobs = [service.submit(png(), fields(), watched=watched) for watched in (False, True, False)]
    upscaler.gate.set()
    for job in [first, *jobs]:
        job.result.result(10)
    assert upscaler.calls == [1, 2, 1] and upscaler.watched == 1


def test_what_is_refused_at_the_door_is_counted_too(start):
    client, service = start(FakeUpscaler(), token="secret", max_megabytes=0.01)
    assert _post(client).status_code == 401
    large = client.post("/v1/upscale", content=bytes(20_000))
    assert large.status_code == 413
    client.get("/v1/upscale")
    value = service.metrics.registry.get_sample_value
    assert value("vosr_requests_total", {"code": "401"}) == 1
    assert value("vosr_requests_total", {"code": "413"}) == 1
    assert value("vosr_request_seconds_count") == 2


def test_a_batch_is_bounded_in_pixels(start):
    upscaler = FakeUpscaler(open_=False)
    _, service = start(upscaler, max_megapixels=0.09)
    first = service.submit(png(), fields())
    until(upscaler.begun.is_set)
    jobs = [service.submit(png((100, 100)), fields()) for _ in range(5)]
    upscaler.gate.set()
    for job in [first, *jobs]:
        job.result.result(10)
    assert upscaler.calls == [1, 2, 2, 1]


def test_a_bad_picture_costs_its_neighbours_nothing(start):
    upscaler = FakeUpscaler(open_=False)
    _, service = start(upscaler)
    first = service.submit(png(), fields())
    until(upscaler.begun.is_set)
    whole = png((64, 64), form="JPEG")
    contents = [png(), whole[: len(whole) * 3 // 4], png((1, 1)), png()]
    jobs = [service.submit(content, fields()) for content in contents]
    upscaler.gate.set()
    assert first.result.result(10).size == jobs[0].result.result(10).size == (32, 32)
    assert jobs[3].result.result(10).size == (32, 32)
    for job, said in ((jobs[1], "damaged"), (jobs[2], "one pixel")):
        with pytest.raises(Refusal, match=said):
            job.result.result(10)
    # One call for the three that can be decoded, then each alone.
    assert upscaler.calls == [1, 3, 1, 1, 1]


def test_a_job_that_is_left_is_never_begun(start):
    upscaler = FakeUpscaler(open_=False)
    _, service = start(upscaler)
    first = service.submit(png(), fields())
    until(upscaler.begun.is_set)
    left, kept = service.submit(png(), fields(seed=1)), service.submit(png(), fields(seed=2))
    left.leave()
    assert service.metrics.registry.get_sample_value("vosr_waiting") == 1
    upscaler.gate.set()
    assert kept.result.result(10).size == first.result.result(10).size
    assert not left.begun and upscaler.calls == [1, 1]


def test_work_that_nobody_waits_for_is_broken_off(start):
    upscaler = FakeUpscaler(open_=False)
    _, service = start(upscaler)
    job = service.submit(png(), fields())
    until(upscaler.begun.is_set)
    job.leave()
    until(lambda: upscaler.broken_off == 1)
    upscaler.gate.set()
    assert service.submit(png(), fields()).result.result(10).size == (32, 32)


def test_a_client_that_disconnects_is_dropped(start):
    upscaler = FakeUpscaler(open_=False)
    client, service = start(upscaler)
    first = service.submit(png(), fields())
    until(upscaler.begun.is_set)
    body = client.build_request("POST", "http://testserver/", files={"file": ("a", png())})
    gone, sent = threading.Event(), []
    messages = [{"type": "http.request", "body": body.read(), "more_body": False}]

    async def receive():
        if messages:
            return messages.pop()
        while not gone.is_set():
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    headers = [(key.lower(), value) for key, value in body.headers.raw]
    scope = {"type": "http", "method": "POST", "path": "/v1/upscale", "headers": headers}
    scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": ""}
    value = service.metrics.registry.get_sample_value
    call = threading.Thread(target=lambda: asyncio.run(client.app(scope, receive, send)))
    call.start()
    until(lambda: value("vosr_waiting") == 1)
    gone.set()
    call.join(10)
    assert value("vosr_waiting") == value("vosr_places_taken") == 0
    assert value("vosr_requests_total", {"code": "499"}) == 1
    upscaler.gate.set()
    first.result.result(10)
    assert upscaler.calls == [1]


def test_a_picture_that_takes_too_long_is_given_up(start):
    upscaler = FakeUpscaler(open_=False)
    client, _ = start(upscaler, max_seconds=0.3)
    answer = _post(client)
    assert answer.status_code == 408 and "0.3 seconds" in answer.json()["error"]
    until(lambda: upscaler.broken_off == 1)


def test_stopping_finishes_what_runs_and_refuses_the_rest(start):
    upscaler = FakeUpscaler(open_=False)
    client, service = start(upscaler)
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(_post, client)
        until(upscaler.begun.is_set)
        waiting = pool.submit(_post, client, scale=3)
        until(lambda: service.metrics.registry.get_sample_value("vosr_waiting") == 1)
        service.stop()
        answer = waiting.result(10)
        assert answer.status_code == 503 and "stopping" in answer.json()["error"]
        for refused in (_post(client), client.get("/readyz")):
            assert refused.status_code == 503 and refused.headers["retry-after"]
        assert client.get("/healthz").status_code == 200
        assert not service.idle
        upscaler.gate.set()
        assert running.result(10).status_code == 200
    assert service.idle


def test_the_service_is_not_ready_before_its_models_are():
    from fastapi.testclient import TestClient

    from vosr_jax.serving.api import create_app
    from vosr_jax.serving.service import Service

    loaded = threading.Event()

    def load():
        loaded.wait(10)
        return [{"fake": FakeUpscaler()}]

    with TestClient(create_app(Service(["fake"], load))) as client:
        for answer in (client.get("/readyz"), client.get("/v1/models"), _post(client)):
            assert answer.status_code == 503 and "loaded" in answer.json()["error"]
        assert client.get("/healthz").json() == {"status": "alive"}
        loaded.set()
        until(lambda: client.get("/readyz").status_code == 200)
        assert [m["name"] for m in client.get("/v1/models").json()["models"]] == ["fake"]
