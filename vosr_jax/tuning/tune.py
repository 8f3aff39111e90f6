"""`vosr train-on`: from a folder of photos to before-after.png, in the order of events."""

import dataclasses
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vosr_jax.config import Config
from vosr_jax.errors import UserError
from vosr_jax.files import make_folder, write_text
from vosr_jax.models.lightning_dit.network import LightningDiT
from vosr_jax.parameters.lazy import sha256_of
from vosr_jax.restoration.loading import from_config
from vosr_jax.training.loop import train
from vosr_jax.training.setup import Run
from vosr_jax.tuning.evaluator import Evaluator, Outcome, Verdict
from vosr_jax.tuning.photographs import divide, look
from vosr_jax.tuning.settings import (
    Record,
    Wishes,
    judged_side,
    read_record,
    require_same,
    tuning_config,
)
from vosr_jax.weights.adapter import Adapter, adapter_of_run, merged, write_adapter
from vosr_jax.weights.convert import write_export
from vosr_jax.weights.official_reader import read_args, with_parts
from vosr_jax.weights.opening import OpenDenoiser, open_denoiser
from vosr_jax.weights.package import read_package
from vosr_jax.weights.resolve import Found, lasting_name, resolve
from vosr_jax.weights.saved_run import load_run

_SHOWN_AT = (1 / 3, 2 / 3)
_EVERY_SECONDS = 10.0
# Time for writing the results, in addition to the time of an evaluation.
_CLOSING_SECONDS = 10.0
Tell = Callable[[str], None]


def train_on(folder: str | Path, out: str | Path, wishes: Wishes, tell: Tell = print) -> Outcome:
    """Fine-tune a model on a folder of photos, and compare it with its base.

    Args:
      folder: of photos.
      out: gets run/, adapter/ (unless all weights are trained), model/, samples/ and
        before-after.png; if it holds the same run already, that run resumes.
      wishes: what to train, and how long.
      tell: prints a line.

    Raises:
      UserError: base, photos or the output folder cannot be used.
    """
    began, out = time.monotonic(), Path(out).expanduser()
    if "," in str(out.resolve()):
        raise UserError(f"-o {out}: the path may hold no comma; choose another folder")
    before = read_record(out)
    wishes = dataclasses.replace(wishes, model=lasting_name(wishes.model))
    found = resolve(wishes.model)
    base = open_denoiser(found)
    config = base.config
    if found.kind == "release":
        config = with_parts(config, *read_args(found.path))
    model = from_config(config, base.network.network(), base.name)
    # Everything that can be refused is refused before the first file is written.
    listed = out.resolve() / "photographs.txt"
    tuned = tuning_config(config, wishes, f"list:{listed}")
    record = _record(folder, out, wishes, before, base, judged_side(config), tell)
    photographs = Path(record.folder)
    write_text(listed, "".join(f"{photographs / name}\n" for name in record.training))
    tell(f"the base restores held-out crops of {len(record.held_out)} photographs")
    judging = time.monotonic()
    judge = Evaluator(
        [photographs / name for name in record.held_out],
        model,
        judged_side(config),
        config.data.scale,
        config.data.degradation,
    )
    closing = time.monotonic() - judging + _CLOSING_SECONDS
    try:
        finished = _trained(tuned, out, wishes, record, base, judge, (began, closing), tell)
    finally:
        record.seconds += time.monotonic() - began
        record.write(out)
    run = load_run(out / "run")
    if not finished:
        tell(f"stopped at step {run.step}; the same command goes on from there")
        return Outcome(run.step, None)
    denoiser = open_denoiser(Found("workdir", out / "run")).network.network()
    verdict = judge.compare(denoiser, out / "before-after.png")
    _write_models(out, wishes.rank)
    return Outcome(run.step, verdict)


def _record(
    folder: str | Path,
    out: Path,
    wishes: Wishes,
    before: Record | None,
    base: OpenDenoiser,
    side: int,
    tell: Tell,
) -> Record:
    """The output folder's record, or a new one after a check of the photos."""
    place = Path(folder).expanduser().resolve()
    asked: dict[str, Any] = {
        "model": wishes.model,
        "sha256": sha256_of(base.network.parameters),
        "rank": wishes.rank,
        "folder": str(place),
    }
    if before is not None:
        require_same(before, asked, out)
        missing = [n for n in (*before.training, *before.held_out) if not (place / n).is_file()]
        if missing:
            raise UserError(
                f"{place / missing[0]}, which -o {out} began with, is gone; put it back"
            )
        count = len(before.training)
        tell(f"goes on with the {count} photographs that it began with")
        return before
    training, held_out = divide(look(folder, side, tell))
    tell(f"{len(training)} are trained on; {len(held_out)} are held out to judge the result by")
    names = ([str(file.relative_to(place)) for file in files] for files in (training, held_out))
    record = Record(**asked, training=next(names), held_out=next(names))
    make_folder(out)
    record.write(out)
    return record


def _trained(
    config: Config,
    out: Path,
    wishes: Wishes,
    record: Record,
    base: OpenDenoiser,
    judge: Evaluator,
    clock: tuple[float, float],
    tell: Tell,
) -> bool:
    """Train until steps or time are up; return whether they are.

    Args:
      clock: start of the command, by time.monotonic(), and the seconds that its end takes.
    """
    began, closing = clock
    left = 60 * wishes.minutes - record.seconds
    if not wishes.steps and record.seconds and left < 2 * closing:
        tell(f"the {wishes.minutes:g} minutes of this run are over; give more --minutes to go on")
        return True
    until = None if wishes.steps else began + left - closing

    def show(run: Run) -> None:
        file = out / "samples" / f"{run.step}.png"
        verdict = judge.compare(_denoiser(run, base), file)
        tell(f"step {run.step}: {_compared(verdict)}; see {file}")

    watch = Watch(wishes.steps, until, _SHOWN_AT, show, tell)
    run = train(config, out / "run", watch=watch)
    return watch.finished or run.step >= config.train.total_steps


def _denoiser(run: Run, base: OpenDenoiser) -> LightningDiT:
    """The current EMA network, in the base's structure."""
    ema = {name: np.asarray(value) for name, value in jax.device_get(run.state.ema).items()}
    model = run.config.model
    if not model.lora_rank:
        return base.network.blueprint.merge(jax.device_put(ema))
    adapter = Adapter("adapter", run.base or {}, model.lora_rank, model.lora_alpha, ema)
    return merged(base.network, adapter).network()


def _write_models(out: Path, rank: int) -> None:
    """Write the results; each replaces an earlier command's as a whole."""
    package = read_package(Found("workdir", out / "run"))
    package = dataclasses.replace(package, name=out.resolve().name)

    def replaced(name: str, write: Callable[[Path], object]) -> None:
        draft, old = out / f".{name}.new", out / f".{name}.old"
        for folder in (draft, old):
            shutil.rmtree(folder, ignore_errors=True)
        write(draft)
        if (out / name).exists():
            (out / name).rename(old)
        draft.rename(out / name)
        shutil.rmtree(old, ignore_errors=True)

    if rank:
        adapter = adapter_of_run(load_run(out / "run"), str(out))
        replaced("adapter", lambda folder: write_adapter(adapter, folder))
    replaced("model", lambda folder: write_export(package, folder, dtype="float32"))


def _compared(verdict: Verdict) -> str:
    return f"LPIPS {verdict.ours:.4f}, the base {verdict.base:.4f}"


class Watch:
    """Called by the train loop after every step.

    Args:
      steps: number of steps at which training ends; 0: only the clock ends it.
      until: `time.monotonic()` at which training ends; None: only the steps end it.
      shows: shares of the training at which `show` is called.
      show: evaluates and draws the run.
      tell: prints a line.

    Attributes:
      finished: whether steps or time are up.
    """

    def __init__(
        self,
        steps: int,
        until: float | None,
        shows: tuple[float, ...],
        show: Callable[[Run], None],
        tell: Callable[[str], None],
    ):
        self._steps, self._until = steps, until
        self._shows, self._show, self._tell = list(shows), show, tell
        self._began = self._told = time.monotonic()
        self.finished = False

    def __call__(self, run: Run, step: int, metrics: dict[str, Any]) -> bool:
        """Report progress and show samples if due; return whether to stop after this step."""
        way = self._way(step)
        now = time.monotonic()
        if now - self._told > _EVERY_SECONDS or way >= 1 or step == run.first[0] + 1:
            # Reading the loss waits for the step and idles the device, so do it rarely.
            self._tell(f"step {step}: loss {float(metrics['loss']):.4f}, {self._left(way)}")
            self._told = now
        if self._shows and way >= self._shows[0]:
            while self._shows and way >= self._shows[0]:
                self._shows.pop(0)
            self._show(run)
        self.finished = way >= 1
        return self.finished

    def _way(self, step: int) -> float:
        """The share of the training that is done."""
        if self._steps:
            return step / self._steps
        assert self._until is not None
        return (time.monotonic() - self._began) / max(self._until - self._began, 1e-3)

    def _left(self, way: float) -> str:
        if self._steps:
            return f"{min(way, 1):.0%} of {self._steps} steps"
        left = max((self._until or 0.0) - time.monotonic(), 0.0)
        return f"{int(left // 60)}:{int(left % 60):02} left"
