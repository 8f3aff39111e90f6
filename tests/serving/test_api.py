"""Pictures through HTTP are those of the upscaler; the document and the token hold."""

import base64
import io

import jsonschema
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.serving.fakes import FakeUpscaler, png, until
from vosr_jax import Upscaler
from vosr_jax.errors import UserError
from vosr_jax.serving.api import create_app
from vosr_jax.serving.openapi import sample
from vosr_jax.serving.service import Service
from vosr_jax.serving.settings import ServiceSettings, served_names


@pytest.fixture(scope="module")
def upscaler():
    return Upscaler.from_pretrained("nano-onestep")


@pytest.fixture(scope="module")
def client(upscaler):
    service = Service(["nano-onestep"], lambda: [{"nano-onestep": upscaler}])
    with TestClient(create_app(service)) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        yield client


def _coloured(size=(24, 16)) -> bytes:
    values = np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def _post(client, content, **data):
    return client.post("/v1/upscale", files={"file": ("a.png", content)}, data=data)


@pytest.mark.parametrize(
    "given, settings",
    [
        ({"scale": 2, "seed": 5}, {"scale": 2, "seed": 5}),
        (
            {"scale": 1.5, "seed": 7, "preset": "faithful", "steps": 2, "colour_fix": "adain"},
            {"scale": 1.5, "seed": 7, "strength": 0.7, "steps": 2, "colour_fix": "adain"},
        ),
    ],
)
def test_the_picture_is_the_upscalers_own(client, upscaler, given, settings):
    content = _coloured()
    answer = _post(client, content, tile_size=128, **given)
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    expected = upscaler(content, tile_size=128, **settings)
    made = Image.open(io.BytesIO(answer.content))
    assert made.size == expected.size
    np.testing.assert_array_equal(np.asarray(made), np.asarray(expected))


@pytest.mark.parametrize(
    "form, kind, media_type",
    [
        ("png", "PNG", "image/png"),
        ("jpeg", "JPEG", "image/jpeg"),
        ("jpg", "JPEG", "image/jpeg"),
        ("webp", "WEBP", "image/webp"),
        ("tiff", "TIFF", "image/tiff"),
    ],
)
def test_every_format(client, form, kind, media_type):
    answer = _post(client, png(), scale=2, tile_size=128, format=form)
    assert answer.status_code == 200 and answer.headers["content-type"] == media_type
    image = Image.open(io.BytesIO(answer.content))
    image.load()
    assert image.format == kind and image.size == (32, 32)


def test_sixteen_bits_and_transparency_come_back(client):
    deep = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    file = io.BytesIO()
    Image.fromarray(deep).save(file, "PNG")
    made = _post(client, file.getvalue(), scale=1, tile_size=128)
    values = np.asarray(Image.open(io.BytesIO(made.content)))
    assert values.dtype == np.uint16 and len(np.unique(values)) > 100
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 100))
    file = io.BytesIO()
    clear.save(file, "PNG")
    made = _post(client, file.getvalue(), scale=2, tile_size=128)
    assert Image.open(io.BytesIO(made.content)).mode == "RGBA"


def test_models_are_described(client):
    (model,) = client.get("/v1/models").json()["models"]
    assert model["name"] == "nano-onestep" and model["default"] and model["one_step"]
    assert model["presets"]["faithful"] == {"strength": 0.7} and not model["guided"]


def test_the_documents_examples_can_be_sent(client):
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/v1/upscale"]["post"]
    json = operation["requestBody"]["content"]["application/json"]
    jsonschema.Draft202012Validator.check_schema(json["schema"])
    examples = [example["value"] for example in json["examples"].values()]
    assert len(examples) == 2
    for example in examples:
        jsonschema.validate(example, json["schema"])
        answer = client.post("/v1/upscale", json=example)
        assert answer.status_code == 200
        assert answer.headers["content-type"] in operation["responses"]["200"]["content"]
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"].keys() - {"file"} == json["schema"]["properties"].keys() - {"image"}
    for field in form["properties"].values():
        for value in field.get("examples", ()):
            jsonschema.validate(value, field)
    for code, described in operation["responses"].items():
        assert described["description"]
        if code != "200":
            reference = described["content"]["application/json"]["schema"]["$ref"]
            assert reference == "#/components/schemas/Error"


def test_the_documents_answers_are_those_given(client):
    document = client.get("/openapi.json").json()
    for path in ("/v1/models", "/healthz", "/readyz"):
        answer = document["paths"][path]["get"]["responses"]["200"]
        schema = answer["content"]["application/json"]["schema"] | document
        jsonschema.validate(client.get(path).json(), schema)


def test_a_token_is_asked_for(start):
    client, _ = start(FakeUpscaler(), token="open-sesame")
    for header in (None, "Bearer wrong", "Basic open-sesame", "Bearer é", "open-sesame"):
        headers = {} if header is None else {"authorization": header.encode()}
        for answer in (
            client.post("/v1/upscale", content=b"", headers=headers),
            client.get("/v1/models", headers=headers),
            client.get("/metrics", headers=headers),
        ):
            assert answer.status_code == 401 and "token" in answer.json()["error"]
            assert answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    client.headers["authorization"] = "Bearer open-sesame"
    assert client.get("/v1/models").status_code == 200
    assert client.post("/v1/upscale", json={"image": sample(), "scale": 2}).status_code == 200
    schemes = client.get("/openapi.json").json()["components"]["securitySchemes"]
    assert schemes["HTTPBearer"]["scheme"] == "bearer"


def test_the_sample_is_a_picture():
    assert Image.open(io.BytesIO(base64.b64decode(sample()))).size == (16, 16)


def test_models_are_called_by_their_folders_last_name(tmp_path):
    for part in ("a", "b"):
        (tmp_path / part / "mine").mkdir(parents=True)
    names = served_names(["nano", str(tmp_path / "a" / "mine")])
    assert list(names) == ["nano", "mine"]
    with pytest.raises(UserError, match="two models are called mine"):
        served_names([str(tmp_path / part / "mine") for part in ("a", "b")])


@pytest.mark.parametrize(
    "given, said",
    [
        ({"queue": 0}, "--queue"),
        ({"batch": -1}, "--batch"),
        ({"max_megabytes": 0}, "--max-megabytes"),
        ({"max_seconds": float("nan")}, "--max-seconds"),
        ({"token": "two words"}, "token"),
        ({"token": ""}, "token"),
    ],
)
def test_impossible_limits_are_refused(given, said):
    with pytest.raises(UserError, match=said):
        ServiceSettings(**given)
