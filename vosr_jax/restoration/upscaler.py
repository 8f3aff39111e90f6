"""The upscaler: restores and enlarges an image."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from vosr_jax.errors import UserError
from vosr_jax.files.levels import to_uint8
from vosr_jax.files.photo import Photo
from vosr_jax.restoration import colour, forks, transparency
from vosr_jax.restoration.inputs import as_number, as_photo, as_seed, as_tile_sizes
from vosr_jax.restoration.presets import PRESETS, preset_settings
from vosr_jax.restoration.settings import (
    check_passes,
    check_posterior,
    check_settings,
    sampler_settings,
    usable_overlap,
)
from vosr_jax.restoration.shapes import enlarged, enlarged_size

if TYPE_CHECKING:
    import jax

    from vosr_jax.diffusion.sampler import SamplerSettings
    from vosr_jax.restoration.model import RestorationModel
    from vosr_jax.restoration.shapes import Shapes
    from vosr_jax.weights.resolve import Found

_LUMA = np.array([0.299, 0.587, 0.114])
_SAMPLER = ("steps", "guidance_scale", "weak_strength", "schedule", "guidance_interval")
_SETTINGS: dict[str, Any] = {
    "scale": 4,
    "tile_size": 512,
    "tile_overlap": 64,
    "vae_tile_size": None,
    "colour_fix": None,
    "output": "pil",
    "posterior": None,
    "shapes": "shared",
    "strength": 1.0,
    "tile_passes": 1,
}

Picture = Image.Image | Photo | np.ndarray | str | os.PathLike | bytes | IO[bytes]


class Upscaler:
    """Restore photos with one model.

    Attributes:
      model: the networks and their own settings.
      device: the device that runs it; None is JAX's default.
    """

    def __init__(self, model: RestorationModel, device: jax.Device | None = None):
        forks.check()
        self.model = model
        self.device = device

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: Found | str | Path = "nano-onestep",
        precision: str = "float32",
        autoencoder_precision: str = "float32",
        *,
        adapter: str | Path | None = None,
    ) -> Upscaler:
        """Load a model.

        Args:
          name_or_path: "nano" or "nano-onestep" (shipped with the package), a folder in the
            official layout, one of our exports, a workdir of train.py (its newest checkpoint's
            averaged weights), a model on the hub (docs/weights.md), or a result of
            `weights.resolve`.
          precision: of the denoiser: "float32", "float16", "mixed", "bfloat16" or "auto", the best
            for the device (docs/sampling.md).
          autoencoder_precision: of the autoencoder's products: "float32", "float16", "bfloat16" or
            "auto".
          adapter: folder of an adapter to add to the model (docs/train_on.md).

        Raises:
          UserError: no such model or precision, its files are damaged, or the adapter belongs to
            another model.
        """
        forks.check()
        from vosr_jax.compilation_cache import use_compilation_cache
        from vosr_jax.restoration.loading import load_model

        use_compilation_cache()
        return cls(load_model(name_or_path, precision, autoencoder_precision, adapter))

    def __getstate__(self) -> None:
        """Refuse to be pickled, which a pool of processes would try."""
        raise UserError(
            "an upscaler cannot be sent to another process; load the model in each, started by "
            "multiprocessing.get_context('spawn')"
        )

    def on(self, device: jax.Device) -> Upscaler:
        """The same upscaler with its networks copied to a device."""
        from vosr_jax.restoration.model import on_device

        return Upscaler(on_device(self.model, device), device)

    def preset(self, name: str) -> dict[str, float]:
        """Settings by name, "faithful", "balanced" or "creative", as keyword arguments.

        They set the guidance, or the strength of a model that cannot be guided.

        Raises:
          UserError: no such preset.
        """
        if name not in PRESETS:
            raise UserError(f"preset '{name}' is unknown; choose {', '.join(PRESETS)}")
        return preset_settings(name, self.model)

    def __call__(
        self,
        image: Picture,
        scale: float = 4,
        steps: int | None = None,
        guidance_scale: float | None = None,
        weak_strength: float | None = None,
        tile_size: int | Literal["auto"] = 512,
        tile_overlap: int = 64,
        vae_tile_size: int | None = None,
        colour_fix: Literal["adain", "wavelet", "none"] | None = None,
        seed: int = 0,
        noise: np.ndarray | None = None,
        posterior_noise: np.ndarray | None = None,
        output: Literal["pil", "numpy", "photo"] = "pil",
        progress: Callable[[float], None] | None = None,
        *,
        schedule: Literal["linear", "cosine"] | None = None,
        guidance_interval: tuple[float, float] | None = None,
        posterior: Literal["mode", "sample"] | None = None,
        shapes: Shapes = "shared",
        strength: float = 1.0,
        tile_passes: Literal[1, 2] = 1,
    ) -> Any:
        """Restore one image. None for a setting means the checkpoint's own value.

        Args:
          image: a PIL image of any mode, a file's path or bytes, an open file, a `Photo`, or an
            array of NumPy, JAX or PyTorch, [H, W] or [H, W, C], uint8, uint16 or float in [0, 1].
          scale: 1 to 8, fractions allowed; each side becomes round(scale * side).
          steps: of the sampler; a one-step model takes any number too.
          guidance_scale: below 1 moves towards the weak condition (more invention), above 1
            away from it; 1 is the plain model.
          weak_strength: how much the guidance's weak branch sees of the image.
          tile_size: side of the denoiser's tiles in pixels of the result; 0 means no tiles,
            "auto" means 512, or less if the device's free memory is too small for that.
          tile_overlap: in pixels; half a tile if it is a tile or more. Tiles must lie at least
            an eighth of their side apart.
          vae_tile_size: side of the autoencoder's tiles, which do not change the result; 0 means
            the whole image at once, None the best for the device and `shapes`.
          colour_fix: how the source's colours are kept.
          seed: of the noise, 0 to 2^32 - 1; the noise does not depend on other images.
          noise, posterior_noise: the draws themselves, [1, C, h, w].
          output: "pil" for an 8-bit image, "numpy" for float32 [H, W, C] in [0, 1], or "photo"
            for a `Photo` with the source's depth and metadata, which `write_photo` writes.
          progress: called with the finished share, 0 to 1.
          schedule: of the sampler's times.
          guidance_interval: (t_start, t_end) within which guidance acts.
          posterior: of the image's latent: its mode, or a draw by the seed or `posterior_noise`.
          shapes: "shared" for compiled programs that serve all sizes, or "exact" for programs
            for this image's size (see `restoration.shapes`).
          strength: 0 to 2, how much of the change from the enlarged image is applied.
          tile_passes: 2 averages two grids of tiles, one shifted by half a step. Neighbouring
            tiles then agree better; it takes nearly twice the time.

        Returns:
          The image with the source's kind (grey, transparency, colour profile), or an array.

        Raises:
          UserError: a setting or a file cannot be used.
        """
        settings = dict(
            scale=scale,
            tile_size=tile_size,
            tile_overlap=tile_overlap,
            vae_tile_size=vae_tile_size,
            colour_fix=colour_fix,
            output=output,
            posterior=posterior,
            shapes=shapes,
            strength=strength,
            tile_passes=tile_passes,
        )
        sampler = dict(
            steps=steps,
            guidance_scale=guidance_scale,
            weak_strength=weak_strength,
            schedule=schedule,
            guidance_interval=guidance_interval,
        )
        draws = [(noise, posterior_noise)]
        return self._restore([image], [seed], draws, settings, sampler, progress)[0]

    def restore_batch(
        self,
        images: Sequence[Picture],
        *,
        seeds: int | Sequence[int] = 0,
        progress: Callable[[float], None] | None = None,
        preview: Callable[[int, np.ndarray], None] | None = None,
        **settings: Any,
    ) -> list[Any]:
        """Restore several images of any sizes; their tiles share network calls.

        The pixels equal those of one `__call__` per image. All latents are held in memory together.

        Args:
          images: as in `__call__`.
          seeds: one for all, as if each were restored alone with it, or one per image.
          progress: called with the finished share, 0 to 1.
          preview: called from time to time with an image's index and its preview, uint8 [H, W, 3]:
            finished tiles in the enlarged image (see `restoration.preview`).
          settings: further keyword arguments of `__call__` except noise and posterior_noise.

        Returns:
          The result of `__call__` for each image.

        Raises:
          UserError: as in `__call__`.
        """
        images = list(images)
        if not images:
            return []
        seeds = [seeds] * len(images) if isinstance(seeds, int) else list(seeds)
        if len(seeds) != len(images):
            raise UserError(f"{len(seeds)} seeds were given for {len(images)} pictures")
        sampler = {name: settings.pop(name) for name in _SAMPLER if name in settings}
        unknown = settings.keys() - _SETTINGS.keys()
        if unknown:
            raise TypeError(f"restore_batch got the unknown argument {', '.join(sorted(unknown))}")
        draws: list[tuple] = [(None, None)] * len(images)
        given = _SETTINGS | settings
        return self._restore(images, seeds, draws, given, sampler, progress, preview=preview)

    def tile_disagreement(self, image: Picture, *, seed: int = 0, **settings: Any) -> list[float]:
        """Measure how much overlapping tiles differ at each step of restoring an image.

        Args:
          image, seed: as in `__call__`.
          settings: further keyword arguments of `__call__` except noise and posterior_noise.

        Returns:
          One value per step: the tiles' deviation from their weighted mean where several tiles
          overlap, divided by the root mean square of the velocity; 0 for an image in one tile.

        Raises:
          UserError: as in `__call__`.
        """
        sampler = {name: settings.pop(name) for name in _SAMPLER if name in settings}
        found: list[list[float]] = []
        draws = [(None, None)]
        self._restore([image], [seed], draws, _SETTINGS | settings, sampler, None, found)
        return found[0]

    def _restore(
        self, images, seeds, draws, settings, sampler, progress, disagreements=None, preview=None
    ) -> list[Any]:
        """Restore the grey or colour channels and the transparency of every image."""
        import jax

        from vosr_jax.restoration.noise import latent_draws
        from vosr_jax.restoration.restore import Enlarged, TilePlan, restore

        forks.check()
        scale = as_number(settings["scale"], "scale", "1 to 8")
        strength = as_number(settings["strength"], "strength", "0 to 2")
        tile_size, tile_overlap, vae_tile_size = as_tile_sizes(
            settings["tile_size"], settings["tile_overlap"], settings["vae_tile_size"]
        )
        colour_fix, output, shapes = (settings[k] for k in ("colour_fix", "output", "shapes"))
        photos = [as_photo(image) for image in images]
        check_settings(
            scale, tile_size, tile_overlap, vae_tile_size, colour_fix, output, shapes, strength
        )
        check_posterior(settings["posterior"])
        passes = check_passes(settings["tile_passes"])
        chosen = self.sampler(**sampler)
        pictures: list[Enlarged] = []
        with jax.default_device(self.device):
            for index, (photo, seed, draw) in enumerate(zip(photos, seeds, draws, strict=True)):
                noise, posterior_noise = draw
                size = enlarged_size(photo.size, scale)
                tiles = self.tile_sizes(size, tile_size, vae_tile_size, shapes)
                overlap = usable_overlap(tiles[0], tile_overlap)
                plan = TilePlan(tiles[0], overlap, tiles[1], shapes, passes)
                computed = plan.computed(size[::-1], self.model)
                drawn = latent_draws(
                    self.model,
                    computed,
                    as_seed(seed),
                    noise,
                    posterior_noise,
                    posterior=settings["posterior"],
                )
                shows = None if preview is None else partial(preview, index)
                for source in _sources(photo):
                    lq = enlarged(source, scale)
                    pictures.append(Enlarged(lq, plan, drawn[1], drawn[0], shows))
                    # The transparency comes next and has no preview.
                    shows = None
            made = restore(self.model, pictures, chosen, progress, disagreements)
        restored = [
            # At strength 1 the values pass through unchanged, to the bit.
            values if strength == 1 else picture.lq + strength * (values - picture.lq)
            for picture, values in zip(pictures, made, strict=True)
        ]
        results = []
        for photo in photos:
            values, alpha = restored.pop(0), None
            if photo.alpha is not None:
                alpha = transparency.within_source(restored.pop(0), photo.alpha)
            results.append(self._result(values, alpha, photo, colour_fix, output, scale))
        return results

    def _result(self, picture: np.ndarray, alpha, photo: Photo, colour_fix, output, scale) -> Any:
        if self.model.truncate and photo.bits == 8:
            picture = to_uint8(picture, truncate=True) / np.float32(255)
        kind = colour_fix or self.model.colour_fix
        picture = colour.fix_colour(kind, picture, enlarged(photo.pixels, scale))
        finished = _finished(picture, photo, alpha, self.model.truncate)
        if output == "photo":
            return finished
        return finished.image if output == "pil" else _as_float(picture, finished)

    def check(
        self,
        *,
        scale: float = 4,
        tile_size: int | Literal["auto"] = 512,
        tile_overlap: int = 64,
        vae_tile_size: int | None = None,
        colour_fix: str | None = None,
        posterior: str | None = None,
        shapes: str = "shared",
        strength: float = 1.0,
        tile_passes: int = 1,
        **sampler: Any,
    ) -> None:
        """Raise the UserError that a call with these settings would raise for any image."""
        scale = as_number(scale, "scale", "1 to 8")
        strength = as_number(strength, "strength", "0 to 2")
        tile_size, tile_overlap, vae_tile_size = as_tile_sizes(
            tile_size, tile_overlap, vae_tile_size
        )
        check_settings(
            scale, tile_size, tile_overlap, vae_tile_size, colour_fix, "pil", shapes, strength
        )
        check_posterior(posterior)
        check_passes(tile_passes)
        self.sampler(**sampler)

    def tile_sizes(
        self,
        size: tuple[int, int],
        tile_size: int | Literal["auto"] = "auto",
        vae_tile_size: int | None = None,
        shapes: str = "shared",
    ) -> tuple[int, int]:
        """Sides of the denoiser's and the autoencoder's tiles for a result of (width, height)."""
        if tile_size != "auto" and vae_tile_size is not None:
            return tile_size, vae_tile_size
        from vosr_jax.restoration.memory import plan_tile_sizes

        denoiser, autoencoder = plan_tile_sizes(
            self.model, size[::-1], shapes=shapes, device=self.device
        )
        if tile_size != "auto":
            denoiser = tile_size
        return denoiser, autoencoder if vae_tile_size is None else vae_tile_size

    def sampler(self, **given: Any) -> SamplerSettings:
        """The checkpoint's sampler settings, replaced by the given values that are not None.

        Args:
          given: steps, guidance_scale, weak_strength, schedule, guidance_interval.

        Raises:
          UserError: a value cannot be used, or guidance is given for a one-step model.
        """
        return sampler_settings(self.model, given)


def _sources(photo: Photo) -> list[np.ndarray]:
    """The images to restore of a photo: its pixels, and its transparency if it has any."""
    if photo.alpha is None:
        return [photo.pixels]
    return [photo.pixels, transparency.as_pixels(photo.alpha)]


def _finished(
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
