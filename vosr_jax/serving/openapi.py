"""OpenAPI description of the interface, with examples that can be sent as they are."""

import base64
import io
from typing import Any

from PIL import Image
from pydantic import BaseModel, Field

from vosr_jax.serving.fields import MEDIA_TYPES, Fields

DESCRIPTION = """Restores and enlarges photographs with a generative model.

Send a picture as a file of a form or in base64, get the larger one as bytes. Whatever cannot be
done is answered with one sentence: `{"error": "..."}`.
"""


class Error(BaseModel):
    """Why there is no result."""

    error: str = Field(examples=["the queue is full; try again in 4 seconds"])


class Model(BaseModel):
    """A model that is served."""

    name: str
    default: bool = Field(description="taken where a request names none")
    steps: int = Field(description="its own, taken where a request names none")
    one_step: bool
    guided: bool = Field(description="whether guidance_scale can be set")
    guidance_scale: float | None = Field(description="its own")
    colour_fix: str
    presets: dict[str, dict[str, float]]
    notes: list[str]


class Models(BaseModel):
    """All models that are served."""

    models: list[Model]


class State(BaseModel):
    """State of the service."""

    status: str = Field(examples=["ready"])


def responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Describe refusals for FastAPI."""
    said = {
        400: "The body is broken.",
        401: "The token is missing or wrong.",
        404: "No such model.",
        408: "It takes longer than is allowed here.",
        413: "The body or the result is larger than is allowed here.",
        415: "The body is neither a form nor JSON.",
        422: "No picture, or a field that cannot be used.",
        500: "The service failed.",
        503: "The queue is full, or the service loads or stops; `Retry-After` says when to ask.",
    }
    return {code: {"model": Error, "description": said[code]} for code in codes}


def upscale_documentation() -> dict[str, Any]:
    """Describe the request's body and the image in the response."""
    fields = Fields.model_json_schema()["properties"]
    file = {"type": "string", "format": "binary", "description": "the picture"}
    text = {
        "type": "string",
        "contentEncoding": "base64",
        "description": "the picture's file in base64",
    }
    examples = {
        "plain": {"summary": "Twice as large", "value": {"image": sample(), "scale": 2}},
        "chosen": {
            "summary": "All of it chosen",
            "value": {
                "image": sample(),
                "scale": 1.5,
                "steps": 2,
                "preset": "faithful",
                "seed": 7,
                "colour_fix": "wavelet",
                "tile_size": "128",
                "format": "jpeg",
            },
        },
    }
    texts = {name: _without_null(field) for name, field in fields.items()}
    form = {
        "schema": _object({"file": file} | texts, ["file"]),
        "encoding": {"file": {"contentType": "image/*"}},
    }
    json = {"schema": _object({"image": text} | fields, ["image"]), "examples": examples}
    picture = {"schema": {"type": "string", "format": "binary"}}
    return {
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": form, "application/json": json},
        },
        "responses": {
            "200": {
                "description": "The restored picture.",
                "content": {kind: picture for kind in MEDIA_TYPES.values()},
            }
        },
    }


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    """Adapt a field to a form, which has only texts: a missing field stands for JSON's null."""
    if "anyOf" not in field:
        return field
    (kind,) = (kind for kind in field["anyOf"] if kind != {"type": "null"})
    rest = {key: value for key, value in field.items() if key not in ("anyOf", "default")}
    return kind | rest


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def sample() -> str:
    """Make an image of 16 by 16 pixels with a grey gradient, in base64."""
    image, file = Image.linear_gradient("L").resize((16, 16)), io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
