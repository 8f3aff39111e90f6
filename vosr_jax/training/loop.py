"""The training loop: one page, read from top to bottom."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vosr_jax.config import Config
from vosr_jax.console import keep_log, say
from vosr_jax.data.pipeline import Batches, batches
from vosr_jax.diffusion.noise import index_words
from vosr_jax.errors import UserError
from vosr_jax.files.mirror import Mirror
from vosr_jax.training.build import jit_train_step
from vosr_jax.training.checkpoints import Checkpoints
from vosr_jax.training.data_failures import Board, Feed, Judge
from vosr_jax.training.executable import compiled_step
from vosr_jax.training.guard import UpdateGuard
from vosr_jax.training.placing import Prefetch, process_rows, put_batch, put_notes
from vosr_jax.training.preview import Preview
from vosr_jax.training.processes import (
    SharedError,
    StopRequest,
    compiled_together,
    errors_of_one,
)
from vosr_jax.training.setup import Run, pipeline_settings, start_run
from vosr_jax.training.telemetry import LossByTime, RunLog, report_start
from vosr_jax.training.timing import Goodput, Profile, Rates
from vosr_jax.training.watchdog import Watchdog
from vosr_jax.training.workdir import Workdir, open_workdir

# Called after every step with the run, the step and its metrics; true ends the training there.
Watch = Callable[[Run, int, dict[str, Any]], bool]


def train(
    config: Config,
    workdir: str | Path,
    *,
    allow_config_changes: bool = False,
    watch: Watch | None = None,
) -> Run:
    """Train until `train.total_steps`, or until SIGTERM or Ctrl-C; resume a workdir's run.

    Args:
      config: the validated experiment.
      workdir: folder of the run, or its address in a bucket.
      allow_config_changes: resume even if config.json there differs.
      watch: is called after every step and may end the training early, see `Watch`.

    Returns:
      The run at its last step, which is saved.

    Raises:
      UserError: workdir, data or weights can't be used.
    """
    # Every process mirrors its own traces; process 0 mirrors everything else.
    only = ("plugins/",) if jax.process_index() else ()
    with (
        errors_of_one(),
        open_workdir(workdir, config, allow_changes=allow_config_changes) as place,
        Mirror(place.path, tell=say, only=only) as mirror,
        _log_kept(mirror.folder),
    ):
        return _train(place, mirror, watch)


def _log_kept(folder: Path) -> contextlib.AbstractContextManager:
    return keep_log(folder) if jax.process_index() == 0 else contextlib.nullcontext()


def _train(place: Workdir, mirror: Mirror, watch: Watch | None) -> Run:
    config, folder, t = place.config, mirror.folder, place.config.train
    checkpoints = Checkpoints(
        place.path,
        keep=t.keep_checkpoints,
        keep_every=t.keep_every,
        keep_best=t.keep_best,
        config=config.to_dict(),
    )
    stop = StopRequest(checkpoints.newest_finished)
    try:
        with errors_of_one():
            run = start_run(config, checkpoints)
            goodput = Goodput(folder, run.step)
            try:
                if run.step < t.total_steps:
                    _steps(run, place, mirror, checkpoints, stop, goodput, watch)
                else:
                    at = f"already at step {run.step} of {t.total_steps}"
                    say(f"{at}; raise train.total_steps to go on")
            except UserError as error:
                # The error comes between two steps, for example from the data: save the state.
                # Saving needs all processes; after an error of one, earlier checkpoints serve.
                alone = jax.process_count() > 1 and not isinstance(error, SharedError)
                if run.step and not alone:
                    _save_last(run, checkpoints)
                raise
        _save_last(run, checkpoints)
    finally:
        try:
            checkpoints.close()
        finally:
            stop.restore()
    goodput.lap("save")
    goodput.write()
    if stop.seen and run.step < config.train.total_steps:
        say(f"stopped at step {run.step} and saved; run the same command to go on")
    return run


def _steps(
    run: Run,
    place: Workdir,
    mirror: Mirror,
    checkpoints: Checkpoints,
    stop: StopRequest,
    goodput: Goodput,
    watch: Watch | None,
) -> None:
    config, t, folder = run.config, run.config.train, mirror.folder
    first = run.step
    log = RunLog(folder, t.total_steps, config.to_dict())
    preview, profile = Preview(config, folder), Profile(folder, t.profile_steps)
    step_fn = jit_train_step(run.train_step, run.abstract_state, run.mesh)
    data, board, feed = _data(run, folder)
    place.keep_config()
    report_start(run, folder, data.sources)
    log.start(first)
    guard = UpdateGuard(folder, t.max_skipped, Judge(data, board))
    rates, by_time = Rates(config, run.mesh), LossByTime()
    placed = Prefetch(feed, lambda batch: device_batch(batch, run))
    goodput.lap("start")
    with data, placed, Watchdog(t.hang_seconds) as watchdog, profile as trace, log:
        watchdog.begin("the first step with its compilation")
        for step in range(first + 1, t.total_steps + 1):
            batch = next(placed)
            rates.waited(goodput.lap("data"))
            if step == first + 1:
                step_fn = compiled_together(compiled_step, step_fn, run, batch)
            with trace.step(step):
                run.state, metrics = step_fn(run.state, run.weights, batch)
            guard.see(step, metrics)
            by_time.see(metrics)
            rates.stepped(goodput.lap("compile" if step == first + 1 else "train", step))
            watchdog.see(step)
            trace.after(step, run.state)
            if any(_due(step, n) for n in (t.sample_every, t.eval_every, t.checkpoint_every)):
                # These wait for the step anyway, and must not begin if it has failed.
                guard.finish()
                rates.stepped(goodput.lap("train", step), steps=0)
            if _due(step, t.log_every) or (t.log_every and step in (first + 1, t.total_steps)):
                guard.finish()
                values = _scalars(metrics)
                rates.stepped(goodput.lap("train", step), steps=0)
                values |= {"samples_seen": run.samples_seen(step), "goodput": goodput.share}
                log.report(step, values | by_time.take() | rates.take() | data.log.counts())
                goodput.write()
            if _due(step, t.sample_every) or _due(step, t.eval_every):
                with watchdog.phase("the preview"):
                    _show(run, preview, log, checkpoints, step)
                goodput.lap("look")
            if _due(step, t.checkpoint_every):
                with watchdog.phase("saving"):
                    _save(run, checkpoints)
                mirror.push()
                goodput.lap("save")
            if stop.at(step) or (watch is not None and watch(run, step, metrics)):
                break
        guard.finish()
        goodput.lap("train", run.step)


def _scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """The metrics of one number each, once the step is done."""
    return {k: float(v) for k, v in jax.device_get(metrics).items() if v.ndim == 0}


def _data(run: Run, folder: Path) -> tuple[Batches, Board, Feed]:
    """This process's rows of every batch from the run's step on."""
    config = run.config
    rows = process_rows(run.mesh, config.train.batch_size, jax.process_index())
    data = batches(
        pipeline_settings(config),
        samples_seen=run.samples_seen(run.step),
        rows=rows,
        bad_records_path=folder / "bad_records.jsonl",
    )
    board = Board()
    return data, board, Feed(data, board, len(rows), config.data.crop_size)


def _save(run: Run, checkpoints: Checkpoints) -> None:
    seen = run.samples_seen(run.step)
    checkpoints.save(run.state, samples_seen=seen, teacher=run.teacher, base=run.base)


def _save_last(run: Run, checkpoints: Checkpoints) -> None:
    """Save and wait for it; a bucket that hangs here would otherwise keep the job for ever."""
    with Watchdog(run.config.train.hang_seconds) as watchdog, watchdog.phase("the last save"):
        _save(run, checkpoints)
        checkpoints.close()


def _show(run: Run, preview: Preview, log: RunLog, checkpoints: Checkpoints, step: int) -> None:
    """Save samples and evaluate, if due."""
    if _due(step, run.config.train.sample_every):
        preview.save_samples(run, step)
    if _due(step, run.config.train.eval_every):
        figures = preview.evaluate(run)
        checkpoints.judge(step, figures)
        log.write(step, figures)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def device_batch(batch: dict[str, np.ndarray], run: Run) -> dict[str, jax.Array]:
    """Put this process's uint8 images, sample indices and notes on its devices."""
    rows = {"hr": batch["hr"], "lq": batch["lq"], "index": index_words(batch["index"])}
    placed = put_batch(rows, run.mesh)
    if "notes" in batch:
        placed["notes"] = put_notes(batch["notes"], run.mesh)
    return placed
