"""Choose tile sizes that fit the free memory.

The formulas count the largest feature maps that a program holds at once; a test compares them with
the compiler's figures (`memory_analysis`).

`estimate` asks the compiler itself, for an image of one size.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from vosr_jax.host_memory import free_host_memory
from vosr_jax.models.autoencoders import decode, encode
from vosr_jax.models.autoencoders.blocks import QUERY_CHUNK
from vosr_jax.models.dinov2.network import visual_tokens
from vosr_jax.restoration.model import RestorationModel
from vosr_jax.restoration.tiled.streaming import CHUNK

_FLOAT = 4
_USABLE = 0.6  # of the free memory; fragments and other programs need the rest

# The training size comes first; smaller tiles show the denoiser less of the image.
_DENOISER_SIDES = (512, 384, 256, 128)
_AUTOENCODER_SIDES = (2048, 1536, 1024, 768, 512, 384, 256, 128)

# Suits a CPU: larger tiles reach further beyond the edges of most images.
SHARED_AUTOENCODER_SIDE = 64

# Feature maps of one size that a program holds at once.
_WHOLE_COPIES = 3  # of the widest map at full resolution
_TILE_COPIES = 8  # tiles: input, normed, padded, output, and the one being fetched
_SCORE_COPIES = 2
_TOKEN_COPIES = 16  # residual, modulated, query, key, value and the MLP's hidden maps


def plan_tile_sizes(
    model: RestorationModel,
    picture_hw: tuple[int, int],
    free_bytes: int | None = None,
    shapes: str = "shared",
    device: jax.Device | None = None,
) -> tuple[int, int]:
    """Choose the tile sides for one result.

    Args:
      model: the model that restores it.
      picture_hw: height and width of the result in pixels.
      free_bytes: free memory of the device; the device's own report if None.
      device: the device of that report; None is the first.
      shapes: one of `settings.SHAPES`. On CPU "shared" runs the autoencoder in tiles of one size
        for all images. An accelerator would wait for feature maps on the host, so it takes the
        whole image if that fits, and compiles a program for each new size.

    Returns:
      (tile_size of the denoiser, vae_tile_size), in pixels; the second is 0 if the autoencoder
      takes the whole image.
    """
    usable = int((free_memory(device) if free_bytes is None else free_bytes) * _USABLE)
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


def tile_sizes(
    model: RestorationModel,
    size: tuple[int, int],
    tile_size: int | Literal["auto"] = "auto",
    vae_tile_size: int | None = None,
    shapes: str = "shared",
    device: jax.Device | None = None,
) -> tuple[int, int]:
    """The tile sides for a result of (width, height): the given ones, and planned others.

    Args:
      model, shapes, device: as in `plan_tile_sizes`.
      size: of the result in pixels.
      tile_size: of the denoiser; "auto" is planned.
      vae_tile_size: of the autoencoder; None is planned.
    """
    if tile_size != "auto" and vae_tile_size is not None:
        return tile_size, vae_tile_size
    denoiser, autoencoder = plan_tile_sizes(model, size[::-1], shapes=shapes, device=device)
    if tile_size != "auto":
        denoiser = tile_size
    return denoiser, autoencoder if vae_tile_size is None else vae_tile_size


def whole_autoencoder_bytes(model: RestorationModel, picture_hw: tuple[int, int]) -> int:
    """Bytes to encode or decode a whole image, besides the weights."""
    height, width = picture_hw
    positions = height * width // model.autoencoder.downscale**2
    queries = positions if positions <= 2 * QUERY_CHUNK else QUERY_CHUNK
    scores = _SCORE_COPIES * positions * queries if _coders(model) else 0
    return _FLOAT * (_WHOLE_COPIES * height * width * _widest(model) + scores)


def tiled_autoencoder_bytes(model: RestorationModel, side: int) -> int:
    """Bytes of the autoencoder in tiles, for an image of any size."""
    if not _coders(model):
        return 0
    return _FLOAT * _TILE_COPIES * side**2 * _finest(model) + attention_bytes()


def attention_bytes() -> int:
    """Bytes of the scores of one chunk of queries against one chunk of keys."""
    return _FLOAT * _SCORE_COPIES * CHUNK**2


def tile_batch() -> int:
    """Tiles in one call of the denoiser: a single tile does not fill an accelerator."""
    return 1 if jax.default_backend() == "cpu" else 8


def denoiser_bytes(model: RestorationModel, side: int, tiles: int = 1) -> int:
    """Bytes of one call on these tiles, both branches, in float32 without fused attention."""
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


def free_memory(device: jax.Device | None = None) -> int:
    """Free bytes on a device, by default the first; on CPU, on the machine."""
    statistics = (device or jax.local_devices()[0]).memory_stats()
    if statistics and "bytes_limit" in statistics:
        return int(statistics["bytes_limit"] - statistics.get("bytes_in_use", 0))
    return free_host_memory()


def _coders(model: RestorationModel) -> list[Any]:
    parts = (getattr(model.autoencoder, name, None) for name in ("encoder", "decoder"))
    return [part for part in parts if part is not None]


def _finest(model: RestorationModel) -> int:
    """Channels at the finest resolution; for a pixel autoencoder, the image's channels."""
    widths = [
        min(coder.conv_in.kernel.shape[-1], coder.conv_out.kernel.shape[-2])
        for coder in _coders(model)
    ]
    return max(widths, default=3)


def _widest(model: RestorationModel) -> int:
    """Channels of the widest full-resolution map, the output of a decoder's last upsampling."""
    widths = [_finest(model)]
    for coder in _coders(model):
        widths += [
            level.resample.kernel.shape[-1]
            for level in coder.levels[-2:]
            if level.resample is not None and coder.conv_out.kernel.shape[-1] == 3
        ]
    return max(widths)


@dataclasses.dataclass(frozen=True)
class Memory:
    """Memory use in bytes.

    Attributes:
      parameters: of all networks together.
      programs: {name: bytes while it runs, besides the parameters}.
    """

    parameters: int
    programs: dict[str, int]

    @property
    def peak(self) -> int:
        """All parameters plus the largest program."""
        return self.parameters + max(self.programs.values(), default=0)


def parameter_count(network: Any) -> int:
    """Number of a network's parameters; 0 for None."""
    if network is None:
        return 0
    return sum(math.prod(p.shape) for p in jax.tree.leaves(nnx.state(network, nnx.Param)))


def estimate(model: RestorationModel, size: tuple[int, int], tile_size: int) -> Memory:
    """Estimate the memory to restore one image on the current backend.

    Each network is compiled for its shapes but not run. XLA's own count of the program's inputs,
    outputs and temporaries is taken for: encoder and decoder on the whole image, one evaluation of
    the denoiser on a tile (both branches if it is guided), the visual encoder on one image.

    Args:
      model: the networks.
      size: (width, height) of the result in pixels.
      tile_size: side of the denoiser's tiles in result pixels; 0 means the whole image.

    Returns:
      The bytes.
    """
    autoencoder, denoiser = model.autoencoder, model.denoiser
    grown = [-(-side // model.multiple) * model.multiple for side in size[::-1]]
    latent = [side // autoencoder.downscale for side in grown]
    tile = tile_size // autoencoder.downscale if tile_size else max(latent)
    crop = [min(side, max(tile, denoiser.settings.patch_size)) for side in latent]
    channels, sampler = autoencoder.latent_channels, model.sampler
    branches = 1 if sampler.r_input or sampler.guidance_scale == 1 else 2

    image, whole = _floats(1, *grown, 3), _floats(1, *latent, channels)
    part = _floats(branches, *crop, channels)
    tokens = None
    if model.encoder is not None:
        tokens = jax.eval_shape(model.visual_tokens, image)
        tokens = _floats(branches, *tokens.shape[1:])
    t = _floats(branches)
    programs = {
        "encode": _compiled(autoencoder, lambda net, x: encode(net, x, None), image),
        "denoise": _compiled(
            denoiser,
            lambda net, c, z, t, tokens: net(c, z, t, tokens, t if sampler.r_input else None),
            *(part, part, t, tokens),
        ),
        "decode": _compiled(autoencoder, decode, whole),
    }
    if model.encoder is not None:
        side, block = model.token_size, model.token_block
        programs["visual tokens"] = _compiled(
            model.encoder, lambda net, x: visual_tokens(net, x, side, block), image
        )
    networks = (denoiser, autoencoder, model.encoder)
    return Memory(4 * sum(map(parameter_count, networks)), programs)


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _compiled(
    network: Any, function: Callable[..., Array], *arguments: jax.ShapeDtypeStruct | None
) -> int:
    """Bytes of a program's inputs, outputs and temporaries, without the network's parameters."""
    graph, state = nnx.split(network)
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)

    def run(state: nnx.State[Any, Any], *arguments: Array | None) -> Array:
        return function(nnx.merge(graph, state), *arguments)

    compiled = jax.jit(run).lower(state, *arguments).compile()
    sizes: Any = compiled.memory_analysis()
    inputs = sum(np.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(arguments))
    return int(inputs) + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
