"""Turn noise into restored latents, with a few compiled programs for images of all sizes.

Tiles of several images share network calls; progress is reported between calls.
"""

import collections
import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from vosr_jax.diffusion.sampler import SamplerContext, SamplerSettings, StepContext
from vosr_jax.errors import UserError
from vosr_jax.restoration.denoiser_programs import DenoiserProgram, Networks, kept_bytes
from vosr_jax.restoration.tiled.latent import ProgramTile, TiledLatent, TileGrid, program_tile

if TYPE_CHECKING:  # that file imports this one
    from vosr_jax.restoration.model import RestorationModel

# Up to this size the keys and values of all tiles are kept from step to step. Beyond it every
# step recomputes them, for 2 parts in 34 more work.
KEPT_BYTES = 2 * 2**30


@dataclasses.dataclass(frozen=True)
class Latents:
    """Inputs of one image.

    Attributes:
      lq_latent, noise: [B, h, w, C].
      visual_tokens: [B, N, D], or [B, tiles, N, D] with a grid; None if the model has none.
      grid: tiles for the denoiser; None for the whole latent at once.
      sides: tile sides at which programs exist, see `tiled.latent.program_sides`.
      preview: takes (place, z) of every finished tile, see `restore.Preview`.
    """

    lq_latent: ArrayLike
    noise: ArrayLike
    visual_tokens: ArrayLike | None = None
    grid: TileGrid | None = None
    sides: tuple[int, ...] = ()
    preview: Callable[[tuple[slice, slice], np.ndarray], None] | None = None

    @property
    def program(self) -> ProgramTile:
        """The program tile that its tiles are computed in."""
        height, width = np.shape(self.lq_latent)[1:3]
        # On CPU attention is as fast with an extent; an accelerator's fused kernel takes none.
        full_apart = jax.default_backend() != "cpu"
        return program_tile((height, width), self.grid, self.sides, full_apart=full_apart)

    @property
    def count(self) -> int:
        """Number of tiles."""
        return 1 if self.grid is None else len(self.grid.starts)

    def tiled(self) -> TiledLatent:
        """The tiled latent, ready for the first step."""
        lq_latent, noise = (np.asarray(x, np.float32) for x in (self.lq_latent, self.noise))
        return TiledLatent(lq_latent, noise, self.grid, self.program)


def denoise(
    model: "RestorationModel",
    pictures: Sequence[Latents],
    sampler: SamplerSettings,
    tile_batch: int = 1,
    on_evaluation: Callable[[], None] | None = None,
    disagreements: list[list[float]] | None = None,
) -> list[np.ndarray]:
    """Turn noise into restored latents.

    Args:
      model: the model whose denoiser is called.
      pictures: all with the same number of rows B; tiles of equal shape share batches.
      sampler: steps and guidance.
      tile_batch: largest number of tiles in one call.
      on_evaluation: called after every call.
      disagreements: receives one list per image with the disagreement of overlapping tiles at
        each step: their deviation from their mean over the root mean square of the velocity.

    Returns:
      One [B, h, w, C] float32 array per image.

    Raises:
      UserError: a latent is not finite, even in float32.
    """
    split = [nnx.split(network) for network in model.networks]
    networks = tuple(graph for graph, _ in split), [state for _, state in split]
    keep_kv = sampler.steps > 1 and pictures[0].visual_tokens is not None
    program = DenoiserProgram(keep_kv, model.parameterization)
    # The scale is an argument of the programs. Only its presence is compiled into them.
    guided = sampler.guidance_scale != 1
    settled = dataclasses.replace(sampler, guidance_scale=0.0 if guided else 1.0, weak_strength=0.0)
    scale, strength = jnp.float32(sampler.guidance_scale), jnp.float32(sampler.weak_strength)
    shared = [
        context._replace(guidance_scale=scale, weak_strength=strength)
        for context in program.shared(networks, settled)
    ]
    repeated = 0
    restored: dict[int, np.ndarray] = {}
    for group in _alike(pictures):
        told = disagreements is not None
        batches = _Batches(model, networks, program, [pictures[i] for i in group], told)
        repeated += batches.run(shared, sampler, tile_batch, on_evaluation)
        restored.update(zip(group, batches.results(), strict=True))
        if disagreements is not None:
            disagreements += batches.disagreements()
    if repeated:
        tiles = "tile" if repeated == 1 else "tiles"
        message = f"{repeated} {tiles} repeated in float32: {model.precision} gave no finite value"
        warnings.warn(message, stacklevel=3)
    return [restored[i] for i in range(len(pictures))]


def network_calls(pictures: Sequence[Latents], tile_batch: int) -> int:
    """Number of network calls for one evaluation of all latents."""
    counts = [sum(pictures[i].count for i in group) for group in _alike(pictures)]
    return sum(-(-count // rows_of(count, tile_batch)) for count in counts)


class _Batches:
    """Tiles of one shape, from one or several images, in batches."""

    def __init__(
        self,
        model: "RestorationModel",
        networks: Networks,
        program: DenoiserProgram,
        pictures: list[Latents],
        told: bool,
    ):
        self._model, self._networks, self._program = model, networks, program
        self._pictures = pictures
        self._tiled = [picture.tiled() for picture in pictures]
        for tiled in self._tiled:
            tiled.disagreements = [] if told else None
        self._tiles = [(i, tile) for i, one in enumerate(pictures) for tile in range(one.count)]

    def run(
        self,
        shared: list[SamplerContext],
        sampler: SamplerSettings,
        tile_batch: int,
        tell: Callable[[], None] | None,
    ) -> int:
        """Take the images from noise to t = 0; return the number of repeated tiles."""
        rows = rows_of(len(self._tiles), tile_batch)
        batches = [self._tiles[i : i + rows] for i in range(0, len(self._tiles), rows)]
        tokens = [self._tokens_of(batch, rows) for batch in batches]
        program = self._program
        if tokens[0] is not None and program.keep_kv:
            size = kept_bytes(self._model.networks[0], (len(batches), *tokens[0].shape))
            program = dataclasses.replace(program, keep_kv=size <= KEPT_BYTES)
        contexts = [program.contexts(self._networks, t) for t in tokens]
        repeated, times = 0, sampler.times()
        # On the host, where indexing needs no compiled program.
        shared = [
            one._replace(ends=times, times=jax.tree.map(np.asarray, one.times)) for one in shared
        ]
        for guided, first, last in sampler.runs():
            program = dataclasses.replace(program, guided=guided)
            for number in range(first, last):
                steps = [one.at(number) for one in shared]
                begun: collections.deque[_Begun] = collections.deque()
                for batch, context in zip(batches, contexts, strict=True):
                    begun.append(self._begin(steps, batch, rows, context, program))
                    if len(begun) > _calls_ahead():
                        repeated += self._finish(begun.popleft(), steps, tell)
                while begun:
                    repeated += self._finish(begun.popleft(), steps, tell)
                for latent in self._tiled:
                    latent.step(times[number], times[number + 1])
        return repeated

    def _begin(
        self,
        steps: list[StepContext],
        batch: list[tuple[int, int]],
        rows: int,
        contexts: list[Any],
        program: DenoiserProgram,
    ) -> "_Begun":
        """Dispatch a network call to the device."""
        filled = _filled(batch, rows)
        tiles = [self._tiled[i].tile(tile) for i, tile in filled]
        condition, noisy = (np.concatenate(latents) for latents in zip(*tiles, strict=True))
        per_tile, extent = len(condition) // rows, None
        if self._tiled[0].extent is not None:
            extents = np.array([self._tiled[i].extent for i, _ in filled], np.int32)
            extent = np.repeat(extents, per_tile, axis=0)
        given = steps, contexts, condition, noisy, extent
        return _Begun(batch, per_tile, program.velocity(self._networks, *given))

    def _finish(
        self, begun: "_Begun", steps: list[StepContext], tell: Callable[[], None] | None
    ) -> int:
        """Wait for a call and blend its tiles in; return how many were computed twice."""
        batch, per_tile = begun.batch, begun.per_tile
        made, repeated = (np.asarray(x) for x in begun.result)
        for place, (i, tile) in enumerate(batch):
            self._tiled[i].add(tile, made[place * per_tile : (place + 1) * per_tile])
            if (preview := self._pictures[i].preview) is not None:
                preview(*self._tiled[i].ahead(tile, np.asarray(steps[0].t)))
        if tell is not None:
            tell()
        return int(repeated[: len(batch) * per_tile].sum())

    def disagreements(self) -> list[list[float]]:
        """One list per image, one value per step."""
        return [tiled.disagreements or [] for tiled in self._tiled]

    def results(self) -> list[np.ndarray]:
        """The restored latents.

        Raises:
          UserError: one is not finite.
        """
        restored = []
        for picture, tiled in zip(self._pictures, self._tiled, strict=True):
            z, lq_latent = tiled.result(), np.asarray(picture.lq_latent, np.float32)
            latent = np.asarray(self._program.parameterization.to_latent(z, lq_latent))
            if not np.isfinite(latent).all():
                raise UserError(
                    f"model '{self._model.name}' gives values that are not finite, also in "
                    "float32; its weights are damaged or it was not made for such pictures"
                )
            restored.append(latent)
        return restored

    def _tokens_of(self, batch: list[tuple[int, int]], rows: int) -> Array | None:
        """Visual tokens of a batch's tiles, [rows * B, N, D]."""
        if self._pictures[0].visual_tokens is None:
            return None
        found = []
        for i, tile in _filled(batch, rows):
            tokens = np.asarray(self._pictures[i].visual_tokens)
            found.append(tokens[:, tile] if tokens.ndim == 4 else tokens)
        return jnp.asarray(np.concatenate(found))


class _Begun(NamedTuple):
    """A network call under way: its tiles, rows per tile, (velocity, rows computed twice)."""

    batch: list[tuple[int, int]]
    per_tile: int
    result: tuple[Array, Array]


def _calls_ahead() -> int:
    """Number of calls queued on the device while another is blended in, to keep it busy.

    A CPU would compute both at the same time, in twice the memory.
    """
    return 0 if jax.default_backend() == "cpu" else 1


def _filled(batch: list[tuple[int, int]], rows: int) -> list[tuple[int, int]]:
    """The batch, filled by repeating its last tile; the filling's results are not used."""
    return batch + batch[-1:] * (rows - len(batch))


def rows_of(tiles: int, tile_batch: int) -> int:
    """Tiles in one call. A few tiles get a smaller program, so no call is mostly filling."""
    return min(tile_batch, 1 << (tiles - 1).bit_length())


def _alike(pictures: Sequence[Latents]) -> list[list[int]]:
    """Group the indices of images whose tiles may share a batch."""
    groups: dict[Any, list[int]] = {}
    for index, picture in enumerate(pictures):
        shape, extent = picture.program
        groups.setdefault((shape, extent is None), []).append(index)
    return list(groups.values())
