"""The denoiser's compiled programs, at a number format and with a float32 fallback.

"float32": everything, with matrix products at the hardware's highest precision. "float16" and
"mixed": matrix products in float16 or bfloat16; residual stream, norms, modulation and gates in
float32. "bfloat16": everything in bfloat16, parameters and time too, as is common for speed.
docs/sampling.md lists what each costs in grey levels.

One program computes the context of the visual tokens. One computes what all steps share. One is a
network call on a batch of tiles. No program depends on guidance scale or weak strength. None calls
back into Python, because XLA does not cache such a program on disk.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from vosr_jax.diffusion.denoiser import CachedDenoiser
from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.diffusion.sampler import (
    SamplerContext,
    SamplerSettings,
    StepContext,
    build_context,
    step_velocity,
)
from vosr_jax.models.lightning_dit.network import LightningDiT

# Split networks.
Graphs = tuple[nnx.GraphDef[LightningDiT], ...]
States = Sequence[nnx.State[Any, Any]]
Networks = tuple[Graphs, States]

_PRODUCTS = {"float16": jnp.float16, "mixed": jnp.bfloat16, "bfloat16": jnp.bfloat16}


def at_precision(denoiser: LightningDiT, precision: str) -> LightningDiT:
    """The denoiser at a precision; parameters that it reads in a short type are cast once.

    Args:
      denoiser: in float32.
      precision: one of `settings.PRECISIONS` except "auto".
    """
    if precision == "float32":
        return denoiser.with_dtype(jnp.float32)
    short = _PRODUCTS[precision]
    everything = precision == "bfloat16"
    other = denoiser.with_dtype(short, *((short, short) if everything else ()))
    # The blocks' matrices are nearly all of the parameters, and every step reads them.
    for part in (other,) if everything else _matrices(other):
        nnx.update(part, jax.tree.map(lambda x: x.astype(short), nnx.state(part)))
    return other


def _matrices(denoiser: LightningDiT) -> list[nnx.Module]:
    blocks = denoiser.blocks
    layers = [blocks.attn.qkv, blocks.attn.proj]
    if blocks.cross_attn is not None:
        cross = blocks.cross_attn
        layers += [cross.query, cross.key, cross.value, cross.proj]
    return [*layers, blocks.mlp]


@dataclasses.dataclass(frozen=True)
class DenoiserProgram:
    """Static settings of the programs, besides the networks' parameters and array shapes.

    `networks` of its methods holds the split networks, (graphs, states): the denoiser, followed by
    the float32 one if there is a fallback.
    """

    keep_kv: bool
    parameterization: Parameterization
    guided: bool = False

    def denoisers(self, graphs: Graphs, states: States) -> list[CachedDenoiser]:
        """The denoiser, followed by the float32 one, which is seldom called."""
        return [
            CachedDenoiser(
                nnx.merge(graph, state), self.parameterization, keep_kv=self.keep_kv and i == 0
            )
            for i, (graph, state) in enumerate(zip(graphs, states, strict=True))
        ]

    def shared(self, networks: Networks, sampler: SamplerSettings) -> list[SamplerContext]:
        """What all steps share, for each network."""
        return _shared(*networks, self, sampler)

    def contexts(self, networks: Networks, tokens: Array | None) -> list[Any]:
        """The context of visual tokens [B, N, D] for each network; None without tokens."""
        graphs, states = networks
        if tokens is None:
            return [None] * len(graphs)
        return _precompute(graphs, states, tokens, self)

    def velocity(
        self,
        networks: Networks,
        steps: list[StepContext],
        contexts: list[Any],
        condition: ArrayLike,
        noisy: ArrayLike,
        extent: ArrayLike | None,
    ) -> tuple[Array, Array]:
        """(velocity [tiles * B, rows, columns, C], rows computed twice [tiles * B] bool)."""
        return _velocity(*networks, steps, contexts, condition, noisy, extent, self)


@partial(jax.jit, static_argnums=(0, 2, 3))
def _shared(
    graphs: Graphs, states: States, program: DenoiserProgram, sampler: SamplerSettings
) -> list[SamplerContext]:
    return [build_context(denoiser, sampler) for denoiser in program.denoisers(graphs, states)]


@partial(jax.jit, static_argnums=(0, 3))
def _precompute(
    graphs: Graphs, states: States, tokens: Array, program: DenoiserProgram
) -> list[Any]:
    return [denoiser.precompute(tokens) for denoiser in program.denoisers(graphs, states)]


@partial(jax.jit, static_argnums=(0, 7))
def _velocity(
    graphs: Graphs,
    states: States,
    steps: list[StepContext],
    contexts: list[Any],
    condition: Array,
    noisy: Array,
    extent: Array | None,
    program: DenoiserProgram,
) -> tuple[Array, Array]:
    called = zip(program.denoisers(graphs, states), steps, contexts, strict=True)
    guided: dict[str, Any] = {"guided": program.guided, "extent": extent}
    fast, *exact = (partial(step_velocity, *one, condition, noisy, **guided) for one in called)
    return first_finite(fast(), exact[0] if exact else None)


def first_finite(velocity: Array, in_float32: Callable[[], Array] | None) -> tuple[Array, Array]:
    """Replace rows that are not finite by those of a second call, made only if there are any.

    Args:
      velocity: [B, h, w, C], of a denoiser below float32.
      in_float32: the same call of the denoiser in float32; None without a fallback.

    Returns:
      (velocity [B, h, w, C], rows that were replaced [B] bool).
    """
    if in_float32 is None:
        return velocity, jnp.zeros(len(velocity), bool)
    bad = ~jnp.isfinite(velocity).all((1, 2, 3))
    again = jax.lax.cond(jnp.any(bad), in_float32, lambda: velocity)
    return jnp.where(bad[:, None, None, None], again, velocity), bad


def kept_bytes(denoiser: LightningDiT, tokens: tuple[int, ...]) -> int:
    """Bytes of all blocks' keys and values for tokens of shape [calls, rows, N, D]."""
    s = denoiser.settings
    return 2 * s.depth * s.width * tokens[0] * tokens[1] * tokens[2] * denoiser.dtype.itemsize
