"""Restore photos: enlarge them, draw their noise, restore, and finish as the source's kind."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from PIL import Image

from vosr_jax.errors import UserError
from vosr_jax.files.photo import Photo, to_uint8
from vosr_jax.restoration.colour import alpha_as_pixels, alpha_within_source, fix_colour
from vosr_jax.restoration.inputs import (
    Picture,
    as_photo,
    as_plain,
    as_seed,
    enlarged,
    enlarged_size,
)
from vosr_jax.restoration.memory import tile_sizes
from vosr_jax.restoration.model import RestorationModel, channels_last
from vosr_jax.restoration.restore import Enlarged, TilePlan, restore
from vosr_jax.restoration.settings import UpscalerSettings, sampler_settings, usable_overlap

_LUMA = np.array([0.299, 0.587, 0.114])


def restore_photos(
    model: RestorationModel,
    images: Sequence[Picture],
    seeds: Sequence[int],
    draws: Sequence[tuple[np.ndarray | None, np.ndarray | None]],
    settings: UpscalerSettings,
    sampler: dict[str, Any],
    *,
    device: jax.Device | None = None,
    progress: Callable[[float], None] | None = None,
    disagreements: list[list[float]] | None = None,
    preview: Callable[[int, np.ndarray], None] | None = None,
) -> list[Any]:
    """Restore the grey or colour channels and the transparency of every image.

    Args:
      model: the model that restores them.
      images: as in `Upscaler.__call__`.
      seeds: one per image.
      draws: (noise, posterior_noise) of each image, or None for the seed's.
      settings: of all images.
      sampler: steps and the like, as in `sampler_settings`.
      device: that of the model; None is JAX's default.
      progress, disagreements: as in `restore.restore`.
      preview: takes an image's index and its preview, uint8 [H, W, 3].

    Raises:
      UserError: a setting or a file cannot be used.
    """
    settings = as_plain(settings)
    photos = [as_photo(image) for image in images]
    settings.check()
    chosen = sampler_settings(model, sampler)
    pictures: list[Enlarged] = []
    with jax.default_device(device):
        for index, (photo, seed, draw) in enumerate(zip(photos, seeds, draws, strict=True)):
            shows = None if preview is None else partial(preview, index)
            pictures += _enlarged(model, photo, seed, draw, settings, shows, device)
        made = restore(model, pictures, chosen, progress, disagreements)
    strength = settings.strength
    restored = [
        # At strength 1 the values pass through unchanged, to the bit.
        values if strength == 1 else picture.lq + strength * (values - picture.lq)
        for picture, values in zip(pictures, made, strict=True)
    ]
    results = []
    for photo in photos:
        values, alpha = restored.pop(0), None
        if photo.alpha is not None:
            alpha = alpha_within_source(restored.pop(0), photo.alpha)
        results.append(_finished(model, values, alpha, photo, settings))
    return results


def _enlarged(
    model: RestorationModel,
    photo: Photo,
    seed: int,
    draw: tuple[np.ndarray | None, np.ndarray | None],
    settings: UpscalerSettings,
    preview: Callable[[np.ndarray], None] | None,
    device: jax.Device | None,
) -> list[Enlarged]:
    """The images to restore of a photo: its pixels, and its transparency if it has any."""
    size = enlarged_size(photo.size, settings.scale)
    wanted = settings.tile_size, settings.vae_tile_size
    tiles = tile_sizes(model, size, *wanted, settings.shapes, device)
    overlap = usable_overlap(tiles[0], settings.tile_overlap)
    plan = TilePlan(tiles[0], overlap, tiles[1], settings.shapes, settings.tile_passes)
    computed = plan.computed(size[::-1], model)
    drawn = latent_draws(model, computed, as_seed(seed), *draw, posterior=settings.posterior)
    lq = enlarged(photo.pixels, settings.scale)
    pictures = [Enlarged(lq, plan, drawn[1], drawn[0], preview)]
    if photo.alpha is not None:
        # It has no preview.
        lq = enlarged(alpha_as_pixels(photo.alpha), settings.scale)
        pictures.append(Enlarged(lq, plan, drawn[1], drawn[0]))
    return pictures


def latent_draws(
    model: RestorationModel,
    size: tuple[int, int],
    seed: int,
    noise: np.ndarray | None = None,
    posterior_noise: np.ndarray | None = None,
    *,
    posterior: str | None = None,
) -> tuple[Any, Any]:
    """Draw the posterior's noise (None if the model takes its mode) and the sampler's noise.

    Args:
      model: the model whose latents they are for.
      size: (height, width) of the computed image, in pixels.
      seed: alone fixes the numbers; other images in the batch do not matter.
      noise, posterior_noise: the draws themselves, [1, C, h, w], instead of the seed's.
      posterior: "mode" or "sample"; None is the model's own.

    Returns:
      Two arrays [1, h, w, C]; one field for the whole image, even if it is cut into tiles.

    Raises:
      UserError: a given draw has another shape.
    """
    autoencoder = model.autoencoder
    shape = (1, *(side // autoencoder.downscale for side in size), autoencoder.latent_channels)
    drawn_posterior = model.sample_posterior if posterior is None else posterior == "sample"
    drawn: list[Any] = []
    for number, given in enumerate((posterior_noise, noise)):
        if given is None:
            wanted = number == 1 or drawn_posterior
            drawn.append(_normal(seed, number, shape) if wanted else None)
            continue
        draw = channels_last(given)
        if draw.shape != shape:
            expected = [1, shape[3], shape[1], shape[2]]
            raise UserError(f"noise must have the shape {expected}, not {np.shape(given)}")
        drawn.append(draw)
    return drawn[0], drawn[1]


def _normal(seed: int, number: int, shape: tuple[int, ...]) -> np.ndarray:
    """jax.random.normal(fold_in(key(seed), number), shape), with programs for few lengths.

    With partitionable draws, JAX's default, each value depends only on its place in the flat
    array.
    """
    count = math.prod(shape)
    with jax.threefry_partitionable(True):
        drawn = _flat_normal(np.uint32(seed), np.uint32(number), 1 << (count - 1).bit_length())
    return np.asarray(drawn)[:count].reshape(shape)


@partial(jax.jit, static_argnums=2)
def _flat_normal(seed: Array, number: Array, length: int) -> Array:
    return jax.random.normal(jax.random.fold_in(jax.random.key(seed), number), (length,))


def _finished(
    model: RestorationModel,
    picture: np.ndarray,
    alpha: np.ndarray | None,
    source: Photo,
    settings: UpscalerSettings,
) -> Any:
    """The restored values with the source's colours, as the kind of output that is wanted."""
    if model.truncate and source.bits == 8:
        picture = to_uint8(picture, truncate=True) / np.float32(255)
    kind = settings.colour_fix or model.colour_fix
    picture = fix_colour(kind, picture, enlarged(source.pixels, settings.scale))
    photo = _as_source(picture, source, alpha, model.truncate)
    if settings.output == "photo":
        return photo
    return photo.image if settings.output == "pil" else _as_float(picture, photo)


def _as_source(
    picture: np.ndarray, source: Photo, alpha: np.ndarray | None, truncate: bool
) -> Photo:
    """The restored values with the source's depth, kind, profile and metadata."""
    if source.bits == 16:
        pixels = np.rint(np.clip(picture, 0, 1) * 65535).astype(np.uint16)
        if source.grey:
            pixels = np.rint(pixels @ _LUMA).astype(np.uint16)[..., None].repeat(3, axis=-1)
    else:
        pixels = to_uint8(picture, truncate=truncate)
        if source.grey:
            pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None].repeat(3, axis=-1)
    return dataclasses.replace(source, pixels=pixels, alpha=alpha)


def _as_float(restored: np.ndarray, finished: Photo) -> np.ndarray:
    """The unrounded values with the channels of the finished photo."""
    values = (restored @ _LUMA)[..., None] if finished.grey else restored
    if finished.alpha is not None:
        alpha = finished.alpha[..., None] / np.iinfo(finished.alpha.dtype).max
        values = np.concatenate([values, alpha], axis=-1)
    return values.astype(np.float32)
