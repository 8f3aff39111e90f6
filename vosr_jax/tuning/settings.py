"""What a fine-tuning run is asked for: its config, and the record in its output folder.

The config is the model's own, made gentler for few images and little time. The record lets only
the same command resume.
"""

import dataclasses
from pathlib import Path
from typing import Any

from vosr_jax.config import Config, validate
from vosr_jax.errors import UserError
from vosr_jax.files import read_json_object, write_json

# Width up to which a model counts as small and is trained on small crops.
_SMALL_WIDTH = 512
_FOREVER = 1_000_000
# Mean of the logit from which on nearly all timesteps are 1, as in configs/nano_direct.py.
_NEAR_NOISE = 4.0
# File of the record.
NAME = "train-on.json"


@dataclasses.dataclass(frozen=True)
class Wishes:
    """The user's options.

    Attributes:
      model: name or path of the base.
      rank: of the adapters; 0 trains all weights.
      minutes: for the whole command.
      steps: of training, in place of the minutes; 0: as many as the time allows.
    """

    model: str = "nano-onestep"
    rank: int = 16
    minutes: float = 5.0
    steps: int = 0


def judged_side(base: Config) -> int:
    """Side of the held-out crops in pixels; a photo must be at least as large."""
    return max(base.data.crop_size, 256)


def tuning_config(base: Config, wishes: Wishes, sources: str) -> Config:
    """Make the config that fine-tunes a base.

    Objective, degradation, guidance and sampling are the base's own. The rest suits a short run:
    AdamW at a constant rate, whose EMA is good whenever the run stops.

    Args:
      base: the model's own config, with paths of its frozen networks.
      wishes: what to train and how long.
      sources: value of data.sources.

    Raises:
      UserError: the base's settings do not say how it was trained.
    """
    _require_trainable(base, wishes.model)
    replace, small = dataclasses.replace, base.model.width <= _SMALL_WIDTH
    crop = base.data.crop_size
    if small and not base.model.rescale_positions:  # else positions would change meaning
        crop = min(crop, 64)
    rows = 8 if small else 4
    objective = base.objective
    config = replace(
        base,
        seed=1,
        model=replace(
            base.model,
            lora_rank=wishes.rank,
            lora_alpha=float(wishes.rank or 1),
            remat="none" if small else "full",
        ),
        objective=replace(
            objective,
            adversarial_weight=0.0,
            perceptual_rows=min(objective.perceptual_rows, rows),
            perceptual_crop=min(objective.perceptual_crop, crop),
        ),
        data=replace(
            base.data,
            sources=sources,
            crop_size=crop,
            flip=True,
            workers=1,
            max_bad_fraction=0.5,
        ),
        optimizer=type(base.optimizer)(
            name="adamw",
            learning_rate=_rate(small, wishes.rank),
            beta2=0.99,
            weight_decay=0.0,
        ),
        ema=replace(base.ema, decay=0.99, ramp=True),
        mesh=type(base.mesh)(),
        train=replace(
            type(base.train)(),
            total_steps=wishes.steps or _FOREVER,
            batch_size=rows,
            log_every=0,
            checkpoint_every=100,
            keep_checkpoints=1,
            sample_every=0,
            eval_every=0,
            init_from=wishes.model,
        ),
        eval=type(base.eval)(),
        teacher=None,
    )
    return validate(dataclasses.asdict(config))


def _require_trainable(base: Config, model: str) -> None:
    """Refuse a one-step model with a multi-step objective: it would unlearn one-step sampling."""
    o = base.objective
    near_noise = o.time_distribution == "lognorm" and o.time_mu >= _NEAR_NOISE
    if base.distils or base.sampling.steps > 1 or near_noise:
        return
    raise UserError(
        f"-m {model} makes its pictures in one step, and its settings do not say how that was "
        "trained; train on nano-onestep, a multi-step model or one that takes the interval's end"
    )


def _rate(small: bool, rank: int) -> float:
    """The learning rate; adapters tolerate a larger one than the weights themselves."""
    if rank:
        return 1e-3 if small else 1e-4
    return 1e-4 if small else 1e-5


@dataclasses.dataclass
class Record:
    """An output folder's content.

    Attributes:
      model: the base, as it was named.
      sha256: of the base's values.
      rank: of the adapters; 0: all weights are trained.
      folder: of the photos.
      training, held_out: files, relative to it.
      seconds: spent by commands on training and evaluation so far.
    """

    model: str
    sha256: str
    rank: int
    folder: str
    training: list[str]
    held_out: list[str]
    seconds: float = 0.0

    def write(self, out: Path) -> None:
        """Write the record into its folder."""
        write_json(out / NAME, dataclasses.asdict(self))


def read_record(out: Path) -> Record | None:
    """The record of an output folder; None if the folder is new or empty.

    Raises:
      UserError: it holds something else, or the record is damaged.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"-o {out} is a file; name a new folder")
    if not out.exists() or not any(out.iterdir()):
        return None
    if not (out / NAME).is_file():
        raise UserError(
            f"-o {out} is not empty and no folder of vosr train-on; choose a new folder"
        )
    values = read_json_object(out / NAME)
    try:
        return Record(**values)
    except TypeError as error:
        raise UserError(f"{out / NAME} is damaged ({error}); choose a new folder") from error


def require_same(record: Record, asked: dict[str, Any], out: Path) -> None:
    """Refuse to resume with another base, rank or folder.

    Args:
      record: of the output folder.
      asked: some of its fields, as this command has them.
      out: the folder.

    Raises:
      UserError: one differs; the message names it.
    """
    called = {"model": "-m", "rank": "--rank", "folder": "the photographs of"}
    for key, name in called.items():
        before, now = getattr(record, key), asked[key]
        if before == now:
            continue
        if key == "rank":
            before, now = (value or "--full" for value in (before, now))
        raise UserError(
            f"-o {out} holds another run ({name} {before}, not {now}); give the same to go on, or "
            "choose a new folder"
        )
    if record.sha256 != asked["sha256"]:
        raise UserError(
            f"-o {out} was begun with another {record.model}, whose weights have changed since; "
            "choose a new folder"
        )
