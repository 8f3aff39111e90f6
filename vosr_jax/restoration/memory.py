"""How large tiles may be in the memory that is free.

The formulas count the largest maps that a program holds at once; a test compares them with what
the compiler says (`memory_analysis`).
"""

from typing import TYPE_CHECKING

from vosr_jax.host_memory import free_host_memory
from vosr_jax.models.autoencoders.blocks import QUERY_CHUNK
from vosr_jax.restoration.streamed_attention import CHUNK

if TYPE_CHECKING:
    from vosr_jax.restoration.model import RestorationModel

_FLOAT = 4
_USABLE = 0.6  # of the free memory; fragments and other programs need the rest

# Tiles that a denoiser was trained on come first; smaller ones show it less of the picture.
_DENOISER_SIDES = (512, 384, 256, 128)
_AUTOENCODER_SIDES = (2048, 1536, 1024, 768, 512, 384, 256, 128)

# What suits a CPU: larger tiles stick out further over most pictures' edges.
SHARED_AUTOENCODER_SIDE = 64

# Maps of one size that a program holds at once.
_WHOLE_COPIES = 3  # of the widest map at full resolution
_TILE_COPIES = 8  # tiles: input, normed, padded, output, and the one that is being fetched
_SCORE_COPIES = 2
_TOKEN_COPIES = 16  # residual, modulated, query, key, value and the MLP's hidden maps


def plan_tile_sizes(
    model: "RestorationModel",
    picture_hw: tuple[int, int],
    free_bytes: int | None = None,
    shapes: str = "shared",
) -> tuple[int, int]:
    """Tile sides for one result picture.

    Args:
      model: what restores it.
      picture_hw: height and width of the result in pixels.
      free_bytes: of the device; what it reports if None.
      shapes: one of `shapes.SHAPES`. On CPU "shared" has the autoencoder in tiles of one size
        whatever the picture's. An accelerator would wait for maps that lie on the host, so there
        the whole picture is taken where it fits, and each new size is compiled.

    Returns:
      (tile_size of the denoiser, vae_tile_size), in pixels; the second is 0 where the
      autoencoder takes the whole picture.
    """
    import jax

    usable = int((free_memory() if free_bytes is None else free_bytes) * _USABLE)
    tiles = tile_batch()
    denoiser = next(
        (side for side in _DENOISER_SIDES if denoiser_bytes(model, side, tiles) <= usable),
        _DENOISER_SIDES[-1],
    )
    if not _coders(model):
        return denoiser, 0
    if shapes == "shared" and jax.default_backend() == "cpu":
        return denoiser, SHARED_AUTOENCODER_SIDE
    if whole_autoencoder_bytes(model, picture_hw) <= usable:
        return denoiser, 0
    autoencoder = next(
        (side for side in _AUTOENCODER_SIDES if tiled_autoencoder_bytes(model, side) <= usable),
        _AUTOENCODER_SIDES[-1],
    )
    return denoiser, autoencoder


def whole_autoencoder_bytes(model: "RestorationModel", picture_hw: tuple[int, int]) -> int:
    """What encoding or decoding a whole picture takes beside the weights."""
    height, width = picture_hw
    positions = height * width // model.autoencoder.downscale**2
    queries = positions if positions <= 2 * QUERY_CHUNK else QUERY_CHUNK
    scores = _SCORE_COPIES * positions * queries if _coders(model) else 0
    return _FLOAT * (_WHOLE_COPIES * height * width * _widest(model) + scores)


def tiled_autoencoder_bytes(model: "RestorationModel", side: int) -> int:
    """What the autoencoder takes in tiles, whatever the picture's size."""
    if not _coders(model):
        return 0
    return _FLOAT * _TILE_COPIES * side**2 * _finest(model) + attention_bytes()


def attention_bytes() -> int:
    """The scores of one chunk of queries against one of keys."""
    return _FLOAT * _SCORE_COPIES * CHUNK**2


def tile_batch() -> int:
    """Tiles in one call of the denoiser: an accelerator is not busy with one."""
    import jax

    return 1 if jax.default_backend() == "cpu" else 8


def denoiser_bytes(model: "RestorationModel", side: int, tiles: int = 1) -> int:
    """What tiles in one call, with both branches, take in float32 without a fused attention."""
    settings = model.denoiser.settings
    tokens = (side // model.multiple) ** 2
    visual = 0
    if settings.token_width is not None and model.encoder is not None:
        visual = (model.token_size // model.encoder.settings.patch_size) ** 2
    scores = 2 * settings.heads * tokens * max(tokens, visual)
    streams = 2 * max(tokens, visual) * settings.width
    memory = 2 * settings.depth * visual * settings.width
    total = _SCORE_COPIES * scores + _TOKEN_COPIES * streams + memory
    return _FLOAT * tiles * total


def free_memory() -> int:
    """Bytes free on the first device; on CPU, of the machine."""
    import jax

    statistics = jax.local_devices()[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return int(statistics["bytes_limit"] - statistics.get("bytes_in_use", 0))
    return free_host_memory()


def _coders(model: "RestorationModel") -> list:
    parts = (getattr(model.autoencoder, name, None) for name in ("encoder", "decoder"))
    return [part for part in parts if part is not None]


def _finest(model: "RestorationModel") -> int:
    """Channels at the finest resolution; of a pixel autoencoder, those of the picture."""
    widths = [
        min(coder.conv_in.kernel.shape[-1], coder.conv_out.kernel.shape[-2])
        for coder in _coders(model)
    ]
    return max(widths, default=3)


def _widest(model: "RestorationModel") -> int:
    """Channels of the widest map at full resolution: what a decoder's last upsampling makes."""
    widths = [_finest(model)]
    for coder in _coders(model):
        widths += [
            level.resample.kernel.shape[-1]
            for level in coder.levels[-2:]
            if level.resample is not None and coder.conv_out.kernel.shape[-1] == 3
        ]
    return max(widths)
