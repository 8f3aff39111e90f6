"""The nodes: load a model, upscale with it, compare before and after.

vosr_jax and ComfyUI's own modules are imported when a node runs. So ComfyUI starts as fast as
without this pack, and a node can say what is missing.
"""

import os
import sys
from functools import partial
from typing import Any

from .pictures import of_images, side_by_side, split, to_images
from .watching import Watch

# JAX would reserve three quarters of a GPU's memory at its first use, beside torch's models in the
# same process. JAX reads this when it starts its GPU, so the user's own value wins.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

_OWN = "the model's own"
_BY_GUIDANCE = "by guidance_scale"
# Pictures and megapixels of results that are restored together: their tiles share network calls,
# and all their latents are held.
_BATCH = 8
_BATCH_MEGAPIXELS = 16.0


class LoadModel:
    """Loads a model once; ComfyUI keeps it as long as the inputs stay."""

    CATEGORY = "image/upscaling/vosr"
    DESCRIPTION = "Loads a VOSR model by name, hub id or folder."
    RETURN_TYPES = ("VOSR_MODEL",)
    RETURN_NAMES = ("vosr_model",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The widgets."""
        name = "nano-onestep, nano, 2.0, 0.5b and the like, a hub id, or a folder on this machine"
        precision = "of the denoiser; auto is what suits the device, for the autoencoder too"
        formats = ["auto", "float32", "float16", "mixed", "bfloat16"]
        return {
            "required": {
                "model": ("STRING", {"default": "nano-onestep", "tooltip": name}),
                "precision": (formats, {"default": "auto", "tooltip": precision}),
            }
        }

    def load(self, model: str, precision: str) -> tuple[Any]:
        """The upscaler of a model.

        Raises:
          UserError: no such model, or its files are damaged.
          RuntimeError: vosr_jax is not installed.
        """
        autoencoder = "auto" if precision == "auto" else "float32"
        return (_upscaler().from_pretrained(model.strip(), precision, autoencoder),)


class Upscale:
    """Restores and enlarges every picture of a batch."""

    CATEGORY = "image/upscaling/vosr"
    DESCRIPTION = "Restores and enlarges pictures. A fourth channel is enlarged with them."
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The sockets and widgets."""
        scale = "each side becomes round(scale * side)"
        preset = "faithful keeps to the picture, creative invents more"
        guidance = f"taken where preset is '{_BY_GUIDANCE}'; below 1 invents more"
        steps = "0 is the model's own"
        seed = "of the noise, the same for every picture of the batch"
        fix = "how the source's colours are kept"
        tile = "side of the denoiser's tiles in pixels of the result; each size is compiled once"
        presets = [_OWN, "faithful", "balanced", "creative", _BY_GUIDANCE]
        sizes = ["auto", "128", "256", "384", "512", "768", "1024"]
        return {
            "required": {
                "vosr_model": ("VOSR_MODEL",),
                "image": ("IMAGE",),
                "scale": (
                    "FLOAT",
                    {"default": 4.0, "min": 1.0, "max": 8.0, "step": 0.25, "tooltip": scale},
                ),
                "preset": (presets, {"default": _OWN, "tooltip": preset}),
                "guidance_scale": (
                    "FLOAT",
                    {"default": 0.5, "min": -10.0, "max": 10.0, "step": 0.1, "tooltip": guidance},
                ),
                "steps": ("INT", {"default": 0, "min": 0, "max": 200, "tooltip": steps}),
                "seed": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 2**32 - 1,
                        "tooltip": seed,
                        # ComfyUI would draw another after every run, and a picture that is
                        # upscaled again should come out the same.
                        "control_after_generate": False,
                    },
                ),
                "colour_fix": (
                    [_OWN, "wavelet", "adain", "none"],
                    {"default": _OWN, "tooltip": fix},
                ),
                "tile_size": (sizes, {"default": "auto", "tooltip": tile}),
            }
        }

    def upscale(
        self,
        vosr_model: Any,
        image: Any,
        scale: float,
        preset: str,
        guidance_scale: float,
        steps: int,
        seed: int,
        colour_fix: str,
        tile_size: str,
    ) -> tuple[Any]:
        """The pictures, restored and enlarged, of 8 bits a channel as SaveImage writes them.

        Args:
          vosr_model: of LoadModel.
          image: [B, H, W, C] float tensor, C 3 or 4; values beyond 0 to 1 are clipped.
          scale, preset, guidance_scale, steps, seed, colour_fix, tile_size: of `Upscaler`.

        Returns:
          [B, round(scale H), round(scale W), C] float tensor in 0 to 1.

        Raises:
          UserError: a setting that the model refuses.
        """
        settings: dict[str, Any] = {"scale": scale, "steps": steps or None}
        if preset == _BY_GUIDANCE:
            settings["guidance_scale"] = guidance_scale
        elif preset != _OWN:
            settings |= vosr_model.preset(preset)
        settings["colour_fix"] = None if colour_fix == _OWN else colour_fix
        settings["tile_size"] = tile_size if tile_size == "auto" else int(tile_size)
        vosr_model.check(**settings)
        pictures = of_images(image)
        together = _together(pictures[0].shape, scale)
        watch, restored = Watch(len(pictures)), []
        for first in range(0, len(pictures), together):
            chunk = pictures[first : first + together]
            restored += vosr_model.restore_batch(
                chunk,
                seeds=seed,
                progress=partial(watch.progress, pictures=len(chunk)),
                preview=watch.preview,
                **settings,
            )
            watch.finished(len(chunk))
        return (to_images(restored),)


class Compare:
    """Before and after in one picture."""

    CATEGORY = "image/upscaling/vosr"
    DESCRIPTION = "Before, enlarged bicubically to the size of after, and after."
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "compare"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The sockets and widgets."""
        position = "where a split picture changes, as a share of its width"
        return {
            "required": {
                "before": ("IMAGE",),
                "after": ("IMAGE",),
                "layout": (["side by side", "split"], {"default": "side by side"}),
                "position": (
                    "FLOAT",
                    {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.05, "tooltip": position},
                ),
            }
        }

    def compare(self, before: Any, after: Any, layout: str, position: float) -> tuple[Any]:
        """One picture a pair, without a fourth channel.

        Args:
          before: [1 or B, h, w, C]; a single one is compared with every `after`.
          after: [B, H, W, C].
          layout: "side by side" or "split".
          position: 0 to 1, of the split.

        Returns:
          [B, H, W or more, 3].

        Raises:
          ValueError: the batches differ.
        """
        befores, afters = of_images(before), of_images(after)
        if len(befores) == 1:
            befores *= len(afters)
        if len(befores) != len(afters):
            raise ValueError(
                f"before has {len(befores)} pictures and after {len(afters)}; give as many of "
                "both, or one before"
            )
        pairs = zip(befores, afters, strict=True)
        if layout == "split":
            return (to_images([split(*pair, position) for pair in pairs]),)
        return (to_images([side_by_side(*pair) for pair in pairs]),)


def _upscaler() -> Any:
    try:
        from vosr_jax import Upscaler
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"{error.name} is missing in ComfyUI's Python ({sys.executable}); install vosr_jax "
            "there, as the README of this node pack says"
        ) from error
    return Upscaler


def _together(shape: tuple[int, ...], scale: float) -> int:
    megapixels = shape[0] * shape[1] * scale**2 / 1e6
    return max(1, min(_BATCH, int(_BATCH_MEGAPIXELS / megapixels)))


NODE_CLASS_MAPPINGS = {
    "VosrLoadModel": LoadModel,
    "VosrUpscale": Upscale,
    "VosrCompare": Compare,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "VosrLoadModel": "Load VOSR Model",
    "VosrUpscale": "Upscale with VOSR",
    "VosrCompare": "Compare Before and After (VOSR)",
}
