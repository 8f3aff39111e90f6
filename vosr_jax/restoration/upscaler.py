"""The upscaler: restores and enlarges an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vosr_jax.compilation_cache import use_compilation_cache
from vosr_jax.errors import UserError
from vosr_jax.platforms import check_fork
from vosr_jax.restoration.inputs import Picture, as_plain
from vosr_jax.restoration.presets import PRESETS, preset_settings
from vosr_jax.restoration.settings import Shapes, UpscalerSettings, divide, sampler_settings

if TYPE_CHECKING:  # this file is imported without JAX
    import jax

    from vosr_jax.diffusion.sampler import SamplerSettings
    from vosr_jax.restoration.model import RestorationModel
    from vosr_jax.weights.resolve import Found


class Upscaler:
    """Restore photos with one model.

    Attributes:
      model: the networks and their own settings.
      device: the device that runs it; None is JAX's default.
    """

    def __init__(self, model: RestorationModel, device: jax.Device | None = None):
        check_fork()
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
        check_fork()
        # Loads JAX.
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
        # Loads JAX.
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
            for this image's size (see `restoration.settings`).
          strength: 0 to 2, how much of the change from the enlarged image is applied.
          tile_passes: 2 averages two grids of tiles, one shifted by half a step. Neighbouring
            tiles then agree better; it takes nearly twice the time.

        Returns:
          The image with the source's kind (grey, transparency, colour profile), or an array.

        Raises:
          UserError: a setting or a file cannot be used.
        """
        settings = UpscalerSettings(
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
        draw = noise, posterior_noise
        return self._restore([image], [seed], settings, sampler, draw, progress=progress)[0]

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
            finished tiles in the enlarged image (see `restore.Preview`).
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
        sampler, rest = divide(settings)
        unknown = rest.keys() - UpscalerSettings.names()
        if unknown:
            raise TypeError(f"restore_batch got the unknown argument {', '.join(sorted(unknown))}")
        given = UpscalerSettings(**rest)
        return self._restore(images, seeds, given, sampler, progress=progress, preview=preview)

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
        sampler, rest = divide(settings)
        found: list[list[float]] = []
        given = UpscalerSettings.of(rest)
        self._restore([image], [seed], given, sampler, disagreements=found)
        return found[0]

    def _restore(
        self,
        images: Sequence[Picture],
        seeds: Sequence[int],
        settings: UpscalerSettings,
        sampler: dict[str, Any],
        draw: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
        **watching: Any,
    ) -> list[Any]:
        # Loads JAX.
        from vosr_jax.restoration.photos import restore_photos

        check_fork()
        draws, device = [draw] * len(images), self.device
        return restore_photos(
            self.model, images, seeds, draws, settings, sampler, device=device, **watching
        )

    def check(self, **settings: Any) -> None:
        """Raise the UserError that a call with these settings would raise for any image.

        Args:
          settings: keyword arguments of `__call__` that do not belong to one image.
        """
        sampler, given = divide(settings)
        as_plain(UpscalerSettings(**given)).check()
        self.sampler(**sampler)

    def tile_sizes(
        self,
        size: tuple[int, int],
        tile_size: int | Literal["auto"] = "auto",
        vae_tile_size: int | None = None,
        shapes: str = "shared",
    ) -> tuple[int, int]:
        """Sides of the denoiser's and the autoencoder's tiles for a result of (width, height)."""
        # Loads JAX.
        from vosr_jax.restoration.memory import tile_sizes

        return tile_sizes(self.model, size, tile_size, vae_tile_size, shapes, self.device)

    def sampler(self, **given: Any) -> SamplerSettings:
        """The checkpoint's sampler settings, replaced by the given values that are not None.

        Args:
          given: steps, guidance_scale, weak_strength, schedule, guidance_interval.

        Raises:
          UserError: a value cannot be used, or guidance is given for a one-step model.
        """
        return sampler_settings(self.model, given)
