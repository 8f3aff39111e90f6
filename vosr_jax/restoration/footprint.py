"""How much memory a model needs for a picture, from its compiled programs."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vosr_jax.models.autoencoders import decode, encode
from vosr_jax.models.dinov2.network import visual_tokens
from vosr_jax.restoration.model import RestorationModel


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes.

    Attributes:
      parameters: of all networks together.
      programs: {name: bytes besides the parameters, while it runs}.
    """

    parameters: int
    programs: dict[str, int]

    @property
    def peak(self) -> int:
        """All parameters, and the program that needs the most."""
        return self.parameters + max(self.programs.values(), default=0)


def parameter_count(network: Any) -> int:
    """How many numbers a network has learned."""
    if network is None:
        return 0
    return sum(math.prod(p.shape) for p in jax.tree.leaves(nnx.state(network, nnx.Param)))


def estimate(model: RestorationModel, size: tuple[int, int], tile_size: int) -> Memory:
    """Memory of restoring one picture on the present backend.

    Each network is compiled for its shapes, without being run, and XLA's own count of the
    program's inputs, outputs and temporaries is taken: encoder and decoder for the whole
    picture, one evaluation of the denoiser for a tile (both branches where it is guided), one
    picture of the visual encoder.

    Args:
      model: the networks.
      size: (width, height) of the result in pixels.
      tile_size: side of the denoiser's tiles in result pixels; 0 means the whole picture.

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


def _compiled(network: Any, function, *arguments) -> int:
    """Bytes of a program's inputs, outputs and temporaries, without the network's parameters."""
    graph, state = nnx.split(network)
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)

    def run(state, *arguments):
        return function(nnx.merge(graph, state), *arguments)

    compiled = jax.jit(run).lower(state, *arguments).compile()
    sizes: Any = compiled.memory_analysis()
    inputs = sum(np.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(arguments))
    return int(inputs) + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
