"""Fields of a request: a client's settings for one image."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from vosr_jax.restoration.presets import PresetName
from vosr_jax.restoration.upscaler import Upscaler
from vosr_jax.serving.refusals import Refusal

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
