"""Fields of a request, a client's settings for one image: read from its body, as a command line."""

import asyncio
import base64
import binascii
import shlex
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from pydantic_core import from_json
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from vosr_jax.restoration.presets import PresetName
from vosr_jax.restoration.upscaler import Upscaler
from vosr_jax.serving import refusals
from vosr_jax.serving.refusals import Refusal
from vosr_jax.weights.model_names import SHIPPED, hub_model

# Each tile size compiles and keeps a program, so clients choose among few sizes.
TileSize = Literal["auto", "128", "256", "384", "512", "768", "1024"]
TILE_SIZES: tuple[str, ...] = get_args(TileSize)
ENDINGS = {"png": "png", "jpeg": "jpg", "jpg": "jpg", "webp": "webp", "tiff": "tif", "tif": "tif"}
MEDIA_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "tif": "image/tiff",
}

# Precisions that `vosr upscale` uses by default.
PLAIN = ("float32", "float32")
_MOST_FIELDS = 20
_LONGEST_FIELD = 1 << 12
_OWN = "the model's own if not given"
_Steps = Annotated[int, Field(ge=1, le=200)]
_GuidanceScale = Annotated[FiniteFloat, Field(ge=-10, le=10)]
_Strength = Annotated[FiniteFloat, Field(ge=0, le=2)]


class Fields(BaseModel):
    """Settings of one image; every field is optional."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(None, description="one of /v1/models; the first if not given")
    scale: FiniteFloat = Field(
        4, ge=1, le=8, description="each side becomes round(scale * side)", examples=[4, 2.5]
    )
    steps: _Steps | None = Field(None, description=f"sampling steps; {_OWN}", examples=[1])
    guidance_scale: _GuidanceScale | None = Field(
        None, description=f"below 1 invents more; {_OWN}; not of one-step models"
    )
    preset: PresetName | None = Field(
        None,
        description="guidance or strength by name; the other fields win",
        examples=["faithful"],
    )
    strength: _Strength | None = Field(
        None, description="share of the model's change; 0 is bicubic, 1 if not given"
    )
    seed: int = Field(0, ge=0, lt=1 << 32, description="of the noise", examples=[0])
    colour_fix: Literal["adain", "wavelet", "none"] | None = Field(
        None, description=f"how the source's colours are kept; {_OWN}"
    )
    tile_size: TileSize = Field(
        "auto", description="side of the denoiser's tiles in pixels of the result"
    )
    format: Literal["png", "jpeg", "jpg", "webp", "tiff", "tif"] = Field(
        "png", description="of the answer; PNG and TIFF keep 16 bits", examples=["jpeg"]
    )

    @property
    def ending(self) -> str:
        """File ending of the response's format: png, jpg, webp or tif."""
        return ENDINGS[self.format]

    def settings(self, upscaler: Upscaler) -> dict[str, Any]:
        """Make the upscaler's keyword arguments except the seed.

        Raises:
          UserError: the model refuses them.
        """
        given: dict[str, Any] = {} if self.preset is None else dict(upscaler.preset(self.preset))
        for name in ("steps", "guidance_scale", "strength", "colour_fix"):
            value = getattr(self, name)
            if value is not None:
                given[name] = value
        size = self.tile_size
        given |= {"scale": self.scale, "tile_size": size if size == "auto" else int(size)}
        upscaler.check(**given)
        return given


def read_fields(values: dict[str, Any]) -> Fields:
    """Parse the values that a client sent, as text or JSON.

    Empty values count as missing, because HTML forms send them.

    Raises:
      Refusal: a name or a value that cannot be used.
    """
    values = {
        key: value
        for key, value in values.items()
        if value is not None and not (isinstance(value, str) and not value.strip())
    }
    if isinstance(values.get("tile_size"), int):
        values["tile_size"] = str(values["tile_size"])
    try:
        return Fields.model_validate(values)
    except ValidationError as error:
        raise Refusal(422, _sentence(error.errors(include_url=False)[0])) from None


def _sentence(error: Any) -> str:
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"{_shown(name)} is no field{hint(name, Fields.model_fields)}"
    value, message = (
        error["input"],
        error["msg"].removeprefix("Input ").replace("should ", "must ", 1),
    )
    return f"{name} {message}, not {_shown(value)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def hint(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean NAME?" with the nearest known name, or a list of all names."""
    near = get_close_matches(word, list(known), 1, 0.6)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


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


def command_lines(
    names: Sequence[str], fields: Sequence[Fields], model: str, precisions: tuple[str, str] = PLAIN
) -> str:
    """Make the `vosr upscale` calls that give the same results, one per line.

    If there are several, each writes into its own folder.

    Args:
      names: names of the files.
      fields: as given to `page_work.restore`.
      model: the model's served name.
      precisions: precisions of its denoiser and its autoencoder.
    """
    if len(fields) == 1:
        return command_line(names, fields[0], model, precisions)
    return "\n".join(
        command_line(names, given, model, precisions, f"out/{given.preset or 'own'}/")
        for given in fields
    )


def command_line(
    names: Sequence[str],
    fields: Fields,
    model: str,
    precisions: tuple[str, str] = PLAIN,
    out: str = "out/",
) -> str:
    """Make the `vosr upscale` call that gives the same results.

    Args:
      names: names of the files.
      fields: fields of all files.
      model: the model's served name; for a folder on the server a placeholder path is shown.
      precisions: precisions of its denoiser and its autoencoder.
      out: the folder for results.
    """
    endings = {ENDINGS.get(Path(name).suffix.lower().removeprefix("."), "png") for name in names}
    words = ["vosr", "upscale", *names, "-o", out, "-u", f"{fields.scale:g}", "-m"]
    known = model in SHIPPED or hub_model(model) is not None
    words.append(model if known else f"PATH/TO/{model}")
    for flag in ("preset", "strength", "steps", "guidance_scale", "colour_fix"):
        value = getattr(fields, flag)
        if value is not None:
            words += [f"--{flag.replace('_', '-')}", str(value)]
    if fields.seed:
        words += ["--seed", str(fields.seed)]
    if fields.tile_size != "auto":
        words += ["--tile-size", fields.tile_size]
    for flag, precision in zip(("--precision", "--autoencoder-precision"), precisions, strict=True):
        if precision != "float32":
            words += [flag, precision]
    if len(endings) == 1 and endings != {"png"}:
        words += ["--format", endings.pop()]
    return shlex.join(words)
