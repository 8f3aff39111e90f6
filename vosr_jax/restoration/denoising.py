"""The compiled programs that take a restoration model's latent from noise to picture.

Two programs make the whole: one for what all questions to the denoiser share, one for the
questions from a number to another. Neither depends on guidance scale or weak strength, and
neither calls back into Python, since XLA keeps no program that does on disk: a person who wants
to see progress gets it between calls.
"""

import dataclasses
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from vosr_jax.diffusion.branches import Branches, Plain, Remembered
from vosr_jax.diffusion.sampling import SamplerSettings
from vosr_jax.diffusion.walk import Parts, Task, Walk, Whole, advance, prepare, start
from vosr_jax.errors import UserError
from vosr_jax.restoration.precision import Guarded
from vosr_jax.restoration.tiled_network import TiledLatent
from vosr_jax.restoration.tiling import TileGrid

if TYPE_CHECKING:
    from vosr_jax.diffusion.parameterization import Parameterization
    from vosr_jax.models.lightning_dit import LightningDiT
    from vosr_jax.restoration.model import RestorationModel

# All tiles' keys and values are kept from step to step up to this size. Beyond it every step
# makes them anew, for 2 parts in 34 more work.
KEPT_BYTES = 2 * 2**30


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What fixes the programs, beside the networks and the shapes of arrays."""

    grid: TileGrid | None
    tile_batch: int
    latent_hw: tuple[int, int]
    keep_keys: bool
    parameterization: "Parameterization"

    def parts(self) -> Parts:
        if self.grid is None:
            return Whole()
        return TiledLatent(self.grid, self.tile_batch, self.latent_hw)

    def branches(self, networks: list["LightningDiT"]) -> Branches:
        fast = Remembered(networks[0], keep_keys=self.keep_keys)
        return fast if len(networks) == 1 else Guarded(fast, Plain(networks[1]))


def denoise(
    model: "RestorationModel",
    lq_latent: ArrayLike,
    noise: ArrayLike,
    visual_tokens: ArrayLike | None,
    sampler: SamplerSettings,
    grid: TileGrid | None = None,
    tile_batch: int = 1,
    on_evaluation: Callable[[], None] | None = None,
) -> Array:
    """Noise to the restored latent; arguments as those of `RestorationModel.sample`."""
    lq_latent, noise = jnp.asarray(lq_latent), jnp.asarray(noise)
    tokens = None if visual_tokens is None else jnp.asarray(visual_tokens)
    height, width = lq_latent.shape[1:3]
    form = model.parameterization
    plan = _Plan(grid, tile_batch, (height, width), False, form)
    parts = plan.parts()
    if tokens is not None and sampler.steps > 1:
        size = kept_bytes(model.networks[0], parts.tokens(tokens).shape)
        plan = dataclasses.replace(plan, keep_keys=size <= KEPT_BYTES)

    split = [nnx.split(network) for network in model.networks]
    graphs, states = tuple(graph for graph, _ in split), [state for _, state in split]
    # The scale is an argument of the program; only whether there is one is part of it.
    guided = sampler.guidance_scale != 1
    settled = dataclasses.replace(sampler, guidance_scale=0.0 if guided else 1.0, weak_strength=0.0)
    task = _prepare(graphs, states, lq_latent, tokens, settled, plan)
    task = task._replace(
        guidance_scale=jnp.float32(sampler.guidance_scale),
        weak_strength=jnp.float32(sampler.weak_strength),
    )
    walk = start(noise)
    watch = _Watch(on_evaluation)
    for guided, first, last in sampler.runs():
        first, last = first * parts.count, last * parts.count
        stride = last - first if on_evaluation is None else 1
        for begin in range(first, last, stride):
            walk = _advance(graphs, states, task, walk, begin, begin + stride, plan, guided)
            watch.sent(walk)
    watch.finish()
    latent, finite = _finish(walk.z, lq_latent, form)
    if not finite:
        raise UserError(
            f"model '{model.name}' gives values that are not finite, also in float32; "
            "its weights are damaged or it was not made for such pictures"
        )
    if repeated := int(walk.repeated):
        tiles = "tile" if repeated == 1 else "tiles"
        message = f"{repeated} {tiles} repeated in float32: {model.precision} gave no finite value"
        warnings.warn(message, stacklevel=3)
    return latent


def kept_bytes(denoiser: "LightningDiT", tokens: tuple[int, ...]) -> int:
    """Size of all blocks' keys and values for tokens of the shape [parts, rows, N, D]."""
    s = denoiser.settings
    return 2 * s.depth * s.width * tokens[0] * tokens[1] * tokens[2] * denoiser.dtype.itemsize


class _Watch:
    """Tells of finished questions, keeping the device one ahead."""

    def __init__(self, on_evaluation: Callable[[], None] | None):
        self._tell = on_evaluation
        self._running: Walk | None = None

    def sent(self, walk: Walk) -> None:
        self.finish()
        self._running = walk

    def finish(self) -> None:
        if self._tell is not None and self._running is not None:
            jax.block_until_ready(self._running.repeated)
            self._tell()
        self._running = None


def _merged(graphs, states) -> list["LightningDiT"]:
    return [nnx.merge(graph, state) for graph, state in zip(graphs, states, strict=True)]


@partial(jax.jit, static_argnums=(0, 4, 5))
def _prepare(graphs, states, lq_latent, tokens, sampler: SamplerSettings, plan: _Plan) -> Task:
    branches = plan.branches(_merged(graphs, states))
    return prepare(branches, plan.parts(), sampler, lq_latent, tokens)


@partial(jax.jit, static_argnums=(0, 6, 7))
def _advance(graphs, states, task: Task, walk: Walk, first, last, plan: _Plan, guided: bool):
    branches = plan.branches(_merged(graphs, states))
    form = plan.parameterization
    return advance(branches, plan.parts(), form, task, walk, first, last, guided=guided)


@partial(jax.jit, static_argnums=2)
def _finish(z: Array, lq_latent: Array, form: "Parameterization") -> tuple[Array, Array]:
    latent = form.to_latent(z, lq_latent)
    return latent, jnp.all(jnp.isfinite(latent))
