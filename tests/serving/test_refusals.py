"""Whatever cannot be done is answered with one sentence, and the service goes on."""

import base64
import io
import os
import struct
import zlib

import pytest
from PIL import Image

from tests.serving.fakes import FakeUpscaler, png
from vosr_jax.serving.openapi import sample


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _vast_png() -> bytes:
    """30,000 x 30,000 pixels of one bit, whose header is true."""
    rows = zlib.compressobj(9)
    line = bytes(1 + 30_000 // 8)
    data = b"".join(rows.compress(line) for _ in range(30_000)) + rows.flush()
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    parts = _chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _animated() -> bytes:
    file, frames = io.BytesIO(), [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def _form(content=None, name="file", **values):
    return {"files": {name: ("a.png", png() if content is None else content)}, "data": values}


def _raw(body: bytes, kind: str):
    return {"content": body, "headers": {"content-type": kind}}


_JSON, _MULTIPART = "application/json", "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    "request_, status, said",
    [
        ({"content": b""}, 415, "multipart/form-data"),
        (_raw(b"", _JSON), 400, "empty"),
        (_raw(b"", _MULTIPART), 422, "missing"),
        (_raw(b"x", "text/plain"), 415, "application/json"),
        (_raw(b"x", "multipart/form-data"), 400, "boundary"),
        (_raw(b"garbage" * 99, _MULTIPART), 400, "broken"),
        (_raw(b"--x\r\nContent-Disposition: form-data\r\n\r\na", _MULTIPART), 400, "broken"),
        (_raw(b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nab',
              _MULTIPART), 422, "breaks off"),
        (_raw(b"{", _JSON), 400, "no JSON"),
        (_raw(b"[" * 100_000, _JSON), 400, "no JSON"),
        (_raw(b"\xff\xfe", _JSON), 400, "no JSON"),
        ({"json": []}, 422, "object"),
        ({"json": {}}, 422, "image"),
        ({"json": {"image": 3}}, 422, "base64"),
        ({"json": {"image": "data:image/png;base64,AAAA"}}, 422, "base64"),
        ({"json": {"image": sample(), "scale": [2]}}, 422, "scale"),
        ({"json": {"image": sample(), "scale": {"a": {"b": 1}}}}, 422, "scale"),
        (_form(b"just words\n"), 422, "no picture"),
        (_form(b""), 422, "empty"),
        (_form(png()[:60]), 422, "picture"),
        (_form(_animated()), 422, "animated"),
        (_form(_vast_png()), 413, "120000x120000"),
        (_form(png((600, 600)), scale=4), 413, "2400x2400"),
        (_form(bytes(1_200_000)), 413, "1 MB"),
        (_form(name="picture"), 422, "called file"),
        (_form(model="vosr-9000"), 404, "known are fake"),
        (_form(model="../../etc/passwd"), 404, "not served"),
        (_form(scale=0), 422, "scale"),
        (_form(scale=9), 422, "scale"),
        (_form(scale="nan"), 422, "finite"),
        (_form(scale="four"), 422, "number"),
        (_form(steps=0), 422, "steps"),
        (_form(steps=10**30), 422, "steps"),
        (_form(seed=-1), 422, "seed"),
        (_form(seed=1.5), 422, "seed"),
        (_form(strength=3), 422, "strength"),
        (_form(guidance_scale=0.5), 422, "one-step"),
        (_form(preset="wild"), 422, "faithful"),
        (_form(colour_fix="red"), 422, "wavelet"),
        (_form(tile_size=100), 422, "auto"),
        (_form(format="bmp"), 422, "png"),
        (_form(scales=2), 422, "did you mean scale?"),
        (_form(scale=["2", "3"]), 422, "twice"),
        (_form(model="x" * 5000), 400, "broken"),
        (_form(png(mode="RGBA", size=(1, 1))), 422, "one pixel"),
        ({"data": {"file": "a"}, "files": {"b": ("", b"")}}, 422, "file"),
    ],
)  # fmt: skip
def test_one_sentence(client, request_, status, said):
    answer = client.post("/v1/upscale", **request_)
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"error"}
    sentence = answer.json()["error"]
    assert said in sentence and "\n" not in sentence
    for word in ("Traceback", 'File "', "site-packages", "/tmp", "/home", "/usr", os.getcwd()):
        assert word not in sentence
    assert client.post("/v1/upscale", **_form()).status_code == 200


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/v1/upscale", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/downscale", 404),
        ("GET", "/v1/../../etc/passwd", 404),
        ("PUT", "/healthz", 405),
        ("GET", "/nothing", 404),
    ],
)
def test_other_addresses(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status and answer.json().keys() == {"error"}
    if status == 405:
        assert answer.headers["allow"]


def test_what_a_format_cannot_hold_is_refused_before_any_work(start):
    upscaler = FakeUpscaler()
    client, _ = start(upscaler)
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 100))
    file = io.BytesIO()
    clear.save(file, "PNG")
    answer = client.post("/v1/upscale", **_form(file.getvalue(), format="jpeg"))
    assert answer.status_code == 422 and "transparency" in answer.json()["error"]
    assert upscaler.calls == []


def test_a_fault_of_the_service_says_nothing_of_it(start, caplog):
    upscaler = FakeUpscaler()
    upscaler.fails = RuntimeError("at /secret/place")
    client, _ = start(upscaler)
    answer = client.post("/v1/upscale", **_form(png((1, 1))))
    assert answer.status_code == 500
    assert answer.json() == {"error": "the service failed at this picture; its log says why"}
    assert "/secret/place" in caplog.text


def test_the_file_name_is_of_no_account(client):
    for name in ("../../etc/passwd", "/dev/null", "a\x00b.png", "C:\\x.png", "é" * 300):
        answer = client.post("/v1/upscale", files={"file": (name, png())})
        assert answer.status_code == 200
        assert all("passwd" not in value for value in answer.headers.values())


def test_base64_of_a_picture_is_the_picture(client):
    image = base64.b64encode(png()).decode()
    by_json = client.post("/v1/upscale", json={"image": image, "scale": 2, "seed": 3})
    by_form = client.post("/v1/upscale", **_form(scale=2, seed=3))
    assert by_json.status_code == by_form.status_code == 200
    assert by_json.content == by_form.content
