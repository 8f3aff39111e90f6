"""One evaluation, as eval.py makes it: which model, which samplers, what is written."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vosr_jax.data.validation import Pair
from vosr_jax.evaluation.benchmark import Restorer, bicubic, evaluate
from vosr_jax.evaluation.pairs import pairs_from_config
from vosr_jax.evaluation.report import write_results, write_side_by_side
from vosr_jax.restoration.picture import make_folder

if TYPE_CHECKING:
    from vosr_jax.config import Config
    from vosr_jax.restoration.upscaler import Upscaler


def run_evaluation(config: "Config", workdir: Path) -> str:
    """Evaluate a model with every sampler of the config and write workdir/eval.

    Args:
      config: its `eval` section says what to evaluate; `eval.steps` and `eval.guidance_scales`
        are tried in all combinations, empty ones mean the model's own value.
      workdir: of a training run, or any folder.

    Returns:
      The table of figures.

    Raises:
      UserError: the model or the pictures cannot be read, or the folder not written.
    """
    folder = workdir / "eval"
    make_folder(folder)
    pairs = pairs_from_config(config)
    from vosr_jax.restoration.upscaler import Upscaler

    model = choose_model(config, workdir)
    upscaler = Upscaler.from_pretrained(model)
    print(f"{model}: {len(pairs)} pictures", flush=True)
    runs = {"bicubic": evaluate(bicubic, pairs)}
    own = upscaler.model.sampler
    steps = config.eval.steps or (own.steps,)
    scales = config.eval.guidance_scales or (own.guidance_scale,)
    for number, scale in itertools.product(steps, scales):
        name = _name(number, scale, own.r_input)
        pictures = folder / "side_by_side" / name.replace(" ", "_").replace(",", "")

        def keep(pair: Pair, restored: np.ndarray, pictures=pictures) -> None:
            write_side_by_side(pictures, pair, restored)

        restore = restorer(upscaler, number, None if own.r_input else scale, config.eval.tile_size)
        runs[name] = evaluate(restore, pairs, samples=config.eval.samples, keep=keep)
    about = {"model": str(model), "config": config.to_dict()}
    return write_results(folder, runs, about)


def restorer(
    upscaler: "Upscaler", steps: int, guidance_scale: float | None, tile_size: int
) -> Restorer:
    """An upscaler with fixed settings as `evaluate` calls it."""

    def restore(pair: Pair, seed: int) -> np.ndarray:
        scale = pair.hr.shape[0] / pair.lr.shape[0]
        result = upscaler(
            pair.lr,
            scale=scale,
            steps=steps,
            guidance_scale=guidance_scale,
            tile_size=tile_size,
            seed=seed,
        )
        return np.asarray(result)

    return restore


def choose_model(config: "Config", workdir: Path) -> str:
    """`eval.model`, else the workdir if it has a checkpoint, else the shipped model of its kind."""
    if config.eval.model is not None:
        return config.eval.model
    checkpoints = workdir / "checkpoints"
    if checkpoints.is_dir() and any(entry.name.isdigit() for entry in checkpoints.iterdir()):
        return str(workdir)
    return "nano-onestep" if config.model.r_embedding else "nano"


def _name(steps: int, guidance_scale: float, r_input: bool) -> str:
    count = f"{steps} step" + ("s" if steps > 1 else "")
    return count if r_input else f"{count}, guidance {guidance_scale:g}"
