"""Run a convolutional network stage by stage over maps that need not fit on a device.

A stage is the part of a network between two operations that must see the whole image (the
statistics of a group norm, the middle attention). It runs tile by tile, in tiles of one shape for
maps of all shapes. It reads its input with a halo, writes its output to a map on the host, and
collects the output's statistics for the next norm. Every pixel is computed from the same values as
in the untiled network, and the device holds one tile at a time.

The middle's one-head attention runs chunk by chunk. Its softmax keeps a running maximum and sum
(arXiv 1805.02867), so the result equals that of the whole row of scores.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

CHUNK = 1024
_SIDE_MULTIPLE = 8
_SMALLEST_SIDE = 16

# (output, moments of its groups; None without groups), of one tile.
_Tile = tuple[Array, Any]
# (first, end) of the new pixels along both axes.
_Fresh = tuple[tuple[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Stage:
    """The computation of every tile.

    Attributes:
      compute: (module, statistics, inside, tile, *others) -> tile of the output. `tile` includes
        the halo. `inside`, [1, rows, columns, 1], is 0 where the tile lies outside the image.
        `others` are further maps at the same pixels, without halo.
      halo: input pixels needed before and after a tile.
      up, down: the output's side over the input's is up / down.
    """

    compute: Callable[..., Array]
    halo: tuple[int, int] = (1, 1)
    up: int = 1
    down: int = 1


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean and variance of a map's channel groups over the whole image, float32 [groups]."""

    mean: np.ndarray
    variance: np.ndarray


def run_stage(
    stage: Stage,
    module: nnx.Module,
    source: np.ndarray,
    target: np.ndarray,
    side: int,
    *,
    statistics: Statistics | None = None,
    others: tuple[np.ndarray, ...] = (),
    groups: int = 0,
) -> Statistics | None:
    """Compute a whole map from another.

    Args:
      stage: what to compute.
      module: its parameters.
      source: [H, W, C] input.
      target: [H up / down, W up / down, C'] output; it may be one of `others`, not `source`.
      side: of a tile, in input pixels, from `tile_side`.
      statistics: for the input's group norm, if it has one.
      others: further inputs of the output's size.
      groups: of the output's next group norm; 0 if there is none.

    Returns:
      The output's statistics; None for 0 groups.
    """
    height, width = source.shape[:2]
    graph, state = nnx.split(module)
    merged = _Merged(groups) if groups else None
    waiting: tuple[_Tile, tuple[int, int], _Fresh] | None = None
    for row, fresh_rows in _tiles(height, side):
        for column, fresh_columns in _tiles(width, side):
            start, fresh = (row, column), (fresh_rows, fresh_columns)
            lengths = zip(start, (height, width), strict=True)
            inside = tuple(_inside(s, side, length, stage) for s, length in lengths)
            counted = tuple(_counted(s, f, side, stage) for s, f in zip(start, fresh, strict=True))
            tile = _read(source, start, side, stage.halo)
            same = tuple(_read(o, _scale(start, stage), _one(side, stage), (0, 0)) for o in others)
            result = _compute(
                (stage, graph, groups), state, _arrays(statistics), inside, counted, tile, same
            )
            # The device computes this tile while the host writes the previous one.
            if waiting is not None:
                _write(target, merged, stage, *waiting)
            waiting = (result, start, fresh)
    if waiting is not None:
        _write(target, merged, stage, *waiting)
    return merged.finish() if merged is not None else None


def tile_side(wanted: int, area: int, channels: int) -> int:
    """The side of a tile in input pixels, a multiple of 8; it does not depend on the image's size.

    A side that is too large is halved, since tiles of a whole part of the wanted side cover what
    tiles of the wanted side cover.

    Args:
      wanted: the side that covers the same part of the image as the tiles of other stages.
      area: largest number of pixels times channels in a tile.
      channels: of the tile.
    """
    while wanted**2 * channels > area:
        wanted //= 2
    return max(wanted // _SIDE_MULTIPLE * _SIDE_MULTIPLE, _SMALLEST_SIDE)


@partial(jax.jit, static_argnums=0)
def _compute(
    static: tuple[Stage, nnx.GraphDef[nnx.Module], int],
    state: nnx.State[Any, Any],
    statistics: tuple[Array, Array] | None,
    inside: tuple[Array, Array],
    counted: tuple[Array, Array],
    tile: Array,
    others: tuple[Array, ...],
) -> _Tile:
    stage, graph, groups = static
    rows, columns = (mask.astype(jnp.float32) for mask in inside)
    mask = (rows[:, None] * columns[None])[None, :, :, None]
    output = stage.compute(nnx.merge(graph, state), statistics, mask, tile, *others)
    if not groups:
        return output, None
    return output, _moments(output, counted, groups)


def _moments(output: Array, counted: tuple[Array, Array], groups: int) -> tuple[Array, Array]:
    """Mean and squared deviations of a tile's groups, over the pixels that count."""
    rows, columns = (mask.astype(jnp.float32) for mask in counted)
    weight = (rows[:, None] * columns[None])[None, :, :, None, None]
    grouped = output.reshape(*output.shape[:3], groups, -1)
    count = jnp.sum(weight) * grouped.shape[-1]
    mean = jnp.sum(grouped * weight, (0, 1, 2, 4)) / count
    deviation = (grouped - mean[:, None]) * weight
    return mean, jnp.sum(jnp.square(deviation), (0, 1, 2, 4))


class _Merged:
    """Statistics of all tiles so far, merged in double precision (Chan et al., 1979)."""

    def __init__(self, groups: int):
        self.count, self.mean, self.squares = 0, np.zeros(groups), np.zeros(groups)

    def add(self, count: int, mean: np.ndarray, squares: np.ndarray) -> None:
        total = self.count + count
        difference = np.asarray(mean, np.float64) - self.mean
        self.mean = self.mean + difference * (count / total)
        self.squares = self.squares + squares + difference**2 * (self.count * count / total)
        self.count = total

    def finish(self) -> Statistics:
        variance = self.squares / max(self.count, 1)
        return Statistics(self.mean.astype(np.float32), variance.astype(np.float32))


def _arrays(statistics: Statistics | None) -> tuple[np.ndarray, np.ndarray] | None:
    return None if statistics is None else (statistics.mean, statistics.variance)


def _tiles(length: int, side: int) -> list[tuple[int, tuple[int, int]]]:
    """(start, (first, end) of the input pixels that no earlier tile has) along one axis.

    The last tile is shifted inward. On a map shorter than a tile it reaches beyond the edge.
    """
    starts = [*range(0, max(length - side, 0), side), max(length - side, 0)]
    ends = [min(start + side, length) for start in starts]
    firsts = [0, *ends[:-1]]
    return [(s, (a, b)) for s, a, b in zip(starts, firsts, ends, strict=True)]


def _inside(start: int, side: int, length: int, stage: Stage) -> np.ndarray:
    """Mask of the pixels of a tile with its halo that lie in the image, at input resolution."""
    before, after = stage.halo
    position = np.arange(start - before, start + side + after)
    return (position >= 0) & (position < length)


def _one(pixels: int, stage: Stage) -> int:
    return pixels * stage.up // stage.down


def _scale(start: tuple[int, int], stage: Stage) -> tuple[int, int]:
    return _one(start[0], stage), _one(start[1], stage)


def _counted(start: int, fresh: tuple[int, int], side: int, stage: Stage) -> np.ndarray:
    """Mask of the new pixels of an output tile, along one axis."""
    first, last = (_one(pixel - start, stage) for pixel in fresh)
    position = np.arange(_one(side, stage))
    return (position >= first) & (position < last)


def _read(
    source: np.ndarray, start: tuple[int, int], side: int, halo: tuple[int, int]
) -> np.ndarray:
    """Read a tile [1, side + halo, side + halo, C]; zero outside the map."""
    before, after = halo
    slices, padding = [], []
    for first, length in zip(start, source.shape[:2], strict=True):
        low, high = first - before, first + side + after
        slices.append(slice(max(low, 0), min(high, length)))
        padding.append((max(-low, 0), max(high - length, 0)))
    return np.pad(source[tuple(slices)], [*padding, (0, 0)])[None]


def _write(
    target: np.ndarray,
    merged: _Merged | None,
    stage: Stage,
    result: _Tile,
    start: tuple[int, int],
    fresh: _Fresh,
) -> None:
    """Write the new pixels of a finished tile, and merge their statistics."""
    output, moments = result
    (top, bottom), (left, right) = ((_one(a, stage), _one(b, stage)) for a, b in fresh)
    row, column = _scale(start, stage)
    values = np.asarray(output)[0, top - row : bottom - row, left - column : right - column]
    target[top:bottom, left:right] = values
    if merged is not None:
        count = (bottom - top) * (right - left) * (values.shape[-1] // len(merged.mean))
        merged.add(count, *(np.asarray(value) for value in moments))


def streamed_attention(projected: np.ndarray, out: np.ndarray, chunk: int = CHUNK) -> None:
    """Compute softmax(q k^T / sqrt(C)) v of all positions.

    Args:
      projected: [N, 3, C] float32, query, key and value of every position.
      out: [N, C], receives the result.
      chunk: positions on the device at a time; memory grows with its square. One value for all
        images lets them share a program.
    """
    count, _, channels = projected.shape
    for first in range(0, count, chunk):
        query = _padded(projected[first : first + chunk, 0], chunk)
        carry = (
            jnp.full((chunk, 1), -jnp.inf),
            jnp.zeros((chunk, 1)),
            jnp.zeros((chunk, channels)),
        )
        for start in range(0, count, chunk):
            part = projected[start : start + chunk]
            live = np.arange(chunk) < len(part)
            key, value = (_padded(part[:, i], chunk) for i in (1, 2))
            carry = _absorb(carry, query, key, value, live)
        _, total, weighted = carry
        rows = slice(first, min(first + chunk, count))
        out[rows] = np.asarray(weighted / total)[: rows.stop - first]


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    return np.pad(rows, ((0, length - len(rows)), (0, 0)))


@partial(jax.jit, donate_argnums=0)
def _absorb(
    carry: tuple[Array, Array, Array], query: Array, key: Array, value: Array, live: Array
) -> tuple[Array, Array, Array]:
    """The softmax's state after a chunk of keys: (maximum, sum of weights, weighted values)."""
    maximum, total, weighted = carry
    scores = jnp.matmul(query, key.T, precision=jax.lax.Precision.HIGHEST)
    scores = jnp.where(live, scores / math.sqrt(query.shape[-1]), -jnp.inf)
    larger = jnp.maximum(maximum, jnp.max(scores, 1, keepdims=True))
    weights, fade = jnp.exp(scores - larger), jnp.exp(maximum - larger)
    added = jnp.matmul(weights, value, precision=jax.lax.Precision.HIGHEST)
    return larger, total * fade + jnp.sum(weights, 1, keepdims=True), weighted * fade + added
