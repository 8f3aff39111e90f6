"""Run autoencoders in tiles: the untiled result, in memory bounded by the tile size.

A tile that uses its own norm statistics, or attends only to itself, gets other colours than its
neighbours. Here the group norms' statistics and the middle attention cover the whole image: the
networks run stage by stage (streaming.py), each stage over all tiles. Stable Diffusion's encoder
and decoder, the light decoder and Qwen-Image's coders share this code. They differ in their norms:
Qwen's work per pixel.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from vosr_jax.models.autoencoders.blocks import ResidualBlock, double
from vosr_jax.models.layers import Conv
from vosr_jax.restoration.tiled.feature_store import FeatureStore
from vosr_jax.restoration.tiled.streaming import (
    Stage,
    Statistics,
    run_stage,
    streamed_attention,
    tile_side,
)


def encode_tiled(
    autoencoder: Any,
    image: np.ndarray,
    noise: np.ndarray | None,
    tile_size: int,
    host_bytes: int | None = None,
) -> np.ndarray:
    """Run `models.autoencoders.encode` in tiles, one image after another.

    Args:
      autoencoder: with an encoder of convolutions.
      image: [B, H, W, 3] in [-1, 1], sides multiples of `downscale`.
      noise: [B, h, w, C], or None for the posterior's mode.
      tile_size: side of a tile in pixels, at the finest resolution.
      host_bytes: host memory for features before they go to a file, as in `FeatureStore`.

    Returns:
      [B, h, w, C] float32.

    Raises:
      UserError: the disk of the temporary files is full.
    """
    encoded = []
    for picture in np.asarray(image):
        with FeatureStore(host_bytes) as maps:
            walk = _TiledCoder(maps, autoencoder.encoder, tile_size, len(picture))
            encoded.append(np.array(walk.encode(picture)))
    # In NumPy: JAX would compile a program for each size.
    mean, std = autoencoder.posterior(np.stack(encoded))
    if noise is not None:
        mean = mean + std * noise
    return mean * np.float32(autoencoder.scaling_factor)


def decode_tiled(
    autoencoder: Any, latent: np.ndarray, tile_size: int, host_bytes: int | None = None
) -> np.ndarray:
    """Run `models.autoencoders.decode` in tiles, one latent after another; clip the result.

    Args:
      autoencoder: with a decoder of convolutions.
      latent: [B, h, w, C], with the scaling factor, as from the denoiser.
      tile_size: side of a tile in pixels, at the finest resolution.
      host_bytes: as in `encode_tiled`.

    Returns:
      [B, H, W, 3] float32 in [-1, 1].

    Raises:
      UserError: the disk of the temporary files is full.
    """
    given = np.asarray(latent, np.float32) / np.float32(autoencoder.scaling_factor)
    pictures = []
    for one in np.asarray(autoencoder.decoder_input(given)):
        with FeatureStore(host_bytes) as maps:
            height = len(one) * autoencoder.downscale
            picture = _TiledCoder(maps, autoencoder.decoder, tile_size, height).decode(one)
            pictures.append(np.clip(np.array(picture), -1, 1))
    return np.stack(pictures)


# A map on the host, and its statistics for the next norm.
_Found = tuple[np.ndarray, Statistics | None]
# (mean, variance) of a stage's input inside its program; None without a group norm.
_Moments = tuple[Array, Array] | None


class _TiledCoder:
    """One network run over one image.

    Args:
      maps: store of the features.
      network: encoder or decoder.
      tile_size: in pixels at the finest resolution.
      height: of the image at the finest resolution.
    """

    def __init__(self, maps: FeatureStore, network: Any, tile_size: int, height: int):
        self.maps, self.network = maps, network
        # The finest resolution is the encoder's first and the decoder's last.
        width = min(network.conv_in.kernel.shape[-1], network.conv_out.kernel.shape[-2])
        self.area = tile_size**2 * width
        self.tile_size, self.height = tile_size, height
        self.groups = getattr(network.norm_out, "groups", 0)

    def encode(self, image: np.ndarray) -> np.ndarray:
        """Encode [H, W, 3] to the posterior's moments [h, w, 2 C]."""
        net = self.network
        x, statistics = self._run(_CONV, net.conv_in, image, _width(net.conv_in))
        for level in net.levels:
            for block in level.blocks:
                x, statistics = self._block(block, x, statistics)
            if level.resample is not None:
                x, statistics = self._run(_HALVE, level.resample, x, _width(level.resample))
        x, statistics = self._middle(x, statistics)
        out = _Out(net.norm_out, net.conv_out, net.quant)
        return self._run(_LAST, out, x, _width(net.conv_out), statistics, last=True)[0]

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """Decode [h, w, C] to [H, W, 3]."""
        net = self.network
        first = _In(net.quant, net.conv_in)
        x, statistics = self._run(_FIRST, first, latent, _width(net.conv_in))
        x, statistics = self._middle(x, statistics)
        for level in net.levels:
            for block in level.blocks:
                x, statistics = self._block(block, x, statistics)
            if level.resample is not None:
                x, statistics = self._run(_DOUBLE, level.resample, x, _width(level.resample))
        out = _Out(net.norm_out, net.conv_out, None)
        return self._run(_LAST, out, x, _width(net.conv_out), statistics, last=True)[0]

    def _middle(self, x: np.ndarray, statistics: Statistics | None) -> _Found:
        middle = self.network.middle
        x, statistics = self._block(middle.before, x, statistics)
        # Stable Diffusion's attention is a submodule of the middle; in Qwen's the middle has it.
        attention = getattr(middle, "attention", middle)
        if attention is not None:
            x, statistics = self._attend(attention, x, statistics)
        return self._block(middle.after, x, statistics)

    def _attend(self, attention: Any, x: np.ndarray, statistics: Statistics | None) -> _Found:
        channels = x.shape[2]
        projected = self.maps.new((*x.shape[:2], 3 * channels))
        self._stage(_PROJECT, attention, x, projected, statistics=statistics)
        attended = self.maps.new(x.shape)
        flat = projected.reshape(-1, 3, channels)
        streamed_attention(flat, attended.reshape(-1, channels))
        self.maps.free(projected)
        # x is both input and result, because no pixel reads its neighbours here.
        found = self._stage(_JOIN, attention, attended, x, others=(x,), groups=self.groups)
        self.maps.free(attended)
        return x, found

    def _block(self, block: Any, x: np.ndarray, statistics: Statistics | None) -> _Found:
        hidden = self.maps.new((*x.shape[:2], _width(block.conv1)))
        found = self._stage(
            _FIRST_HALF, block, x, hidden, statistics=statistics, groups=self.groups
        )
        # With the same channels the result overwrites its input.
        same = x.shape == hidden.shape
        y = x if same else self.maps.new(hidden.shape)
        found = self._stage(
            _SECOND_HALF, block, hidden, y, statistics=found, others=(x,), groups=self.groups
        )
        for used in (hidden,) if same else (hidden, x):
            self.maps.free(used)
        return y, found

    def _run(
        self,
        stage: Stage,
        module: Any,
        x: np.ndarray,
        channels: int,
        statistics: Statistics | None = None,
        *,
        last: bool = False,
    ) -> _Found:
        """Run one stage into a new map and free x."""
        sides = (n * stage.up // stage.down for n in x.shape[:2])
        y = self.maps.new((*sides, channels))
        groups = 0 if last else self.groups
        found = self._stage(stage, module, x, y, statistics=statistics, groups=groups)
        self.maps.free(x)
        return y, found

    def _stage(
        self, stage: Stage, module: Any, x: np.ndarray, y: np.ndarray, **others: Any
    ) -> Statistics | None:
        """Run one stage in tiles of the same part of the image at every resolution.

        Each stage thus has as many tiles as the finest, and their last ones overlap no more.
        """
        channels = max(x.shape[2], y.shape[2] * stage.up**2 // stage.down**2)
        side = tile_side(self.tile_size * len(x) // self.height, self.area, channels)
        return run_stage(stage, module, x, y, side, **others)


class _In(nnx.Module):
    """The decoder's first layers."""

    def __init__(self, quant: Any, conv: Conv):
        self.quant, self.conv = quant, conv


class _Out(nnx.Module):
    """A coder's last layers."""

    def __init__(self, norm: Any, conv: Conv, quant: Any):
        self.norm, self.conv, self.quant = norm, conv, quant


def _width(conv: Conv) -> int:
    return conv.kernel.shape[-1]


def _convolve(conv: Conv, x: Array) -> Array:
    """Apply a 3x3 convolution to a tile with a halo of one pixel on each side.

    It pads and then crops, because XLA's unpadded convolution takes twice as long on CPU.
    """
    return conv(x)[:, 1:-1, 1:-1]


def _activated(norm: Any, statistics: _Moments, inside: Array, x: Array) -> Array:
    """silu(norm(x)), zero outside the image, as a padded convolution sees it."""
    return jax.nn.silu(_normed(norm, statistics, x)) * inside


def _normed(norm: Any, statistics: _Moments, x: Array) -> Array:
    return norm(x) if statistics is None else norm(x, statistics)


def _conv(conv: Conv, statistics: _Moments, inside: Array, x: Array) -> Array:
    return _convolve(conv, x)


def _first(module: _In, statistics: _Moments, inside: Array, x: Array) -> Array:
    x = x if module.quant is None else module.quant(x)
    return _convolve(module.conv, x * inside)


def _halve(conv: Conv, statistics: _Moments, inside: Array, x: Array) -> Array:
    # SAME padding comes after the tile only; a halo of two pixels there keeps the windows in place.
    return conv(x, stride=2)[:, :-1, :-1]


def _double(conv: Conv, statistics: _Moments, inside: Array, x: Array) -> Array:
    # Doubling turns the halo of one pixel into two; the convolution needs one.
    return _convolve(conv, double(x)[:, 1:-1, 1:-1])


def _first_half(block: ResidualBlock, statistics: _Moments, inside: Array, x: Array) -> Array:
    return _convolve(block.conv1, _activated(block.norm1, statistics, inside, x))


def _second_half(
    block: ResidualBlock, statistics: _Moments, inside: Array, hidden: Array, x: Array
) -> Array:
    y = _convolve(block.conv2, _activated(block.norm2, statistics, inside, hidden))
    return y + (x if block.shortcut is None else block.shortcut(x))


def _project(attention: Any, statistics: _Moments, inside: Array, x: Array) -> Array:
    return jnp.concatenate(attention.project(_normed(attention.norm, statistics, x)), -1)


def _join(attention: Any, statistics: _Moments, inside: Array, attended: Array, x: Array) -> Array:
    return attention.join(x, attended)


def _last(module: _Out, statistics: _Moments, inside: Array, x: Array) -> Array:
    y = _convolve(module.conv, _activated(module.norm, statistics, inside, x))
    return y if module.quant is None else module.quant(y)


_CONV, _FIRST, _LAST = Stage(_conv), Stage(_first), Stage(_last)
_FIRST_HALF, _SECOND_HALF = Stage(_first_half), Stage(_second_half)
_HALVE, _DOUBLE = Stage(_halve, halo=(0, 2), down=2), Stage(_double, up=2)
_PROJECT, _JOIN = Stage(_project, halo=(0, 0)), Stage(_join, halo=(0, 0))
