"""The training loop: one page, read from top to bottom."""

import signal
from pathlib import Path

import jax
import numpy as np

from vosr_jax.config import Config
from vosr_jax.data.pipeline import batches
from vosr_jax.diffusion.randomness import index_words
from vosr_jax.errors import UserError
from vosr_jax.training.checkpoints import Checkpoints, open_workdir
from vosr_jax.training.goodput import Goodput
from vosr_jax.training.guard import UpdateGuard
from vosr_jax.training.log import RunLog, say
from vosr_jax.training.prefetch import Prefetch
from vosr_jax.training.preview import Preview
from vosr_jax.training.profile import Profile
from vosr_jax.training.rates import Rates
from vosr_jax.training.run import Run, pipeline_settings, start_run
from vosr_jax.training.sharding import batch_shard, put_batch
from vosr_jax.training.step import compile_step
from vosr_jax.training.watchdog import Watchdog


class StopRequest:
    """Notes SIGTERM, so that the loop saves and leaves at the end of a step.

    One of several processes may be told alone; all of them then agree on a step.
    """

    def __init__(self):
        self._noted = self.seen = False
        self._alone = jax.process_count() == 1
        if self._alone:
            self._before = signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_) -> None:
        self._noted = True

    def at(self, step: int) -> bool:
        """Whether to leave after this step."""
        if self._alone:
            self.seen = self._noted
        else:
            from jax.experimental import multihost_utils

            self.seen = multihost_utils.reached_preemption_sync_point(step)
        return self.seen

    def restore(self) -> None:
        """Give the signal back to whom it belonged."""
        if self._alone:
            signal.signal(signal.SIGTERM, self._before)


def train(config: Config, workdir: str | Path, *, allow_config_changes: bool = False) -> Run:
    """Train until `train.total_steps`, or until SIGTERM; resume where the workdir stands.

    Args:
      config: the validated experiment.
      workdir: folder of the run.
      allow_config_changes: go on although config.json there differs.

    Returns:
      The run at its last step, which is saved.

    Raises:
      UserError: workdir, data or weights can't be used.
    """
    folder = open_workdir(workdir, config.to_dict(), allow_changes=allow_config_changes)
    t = config.train
    checkpoints = Checkpoints(
        folder, keep=t.keep_checkpoints, keep_every=t.keep_every, keep_best=t.keep_best
    )
    stop = StopRequest()
    try:
        run = start_run(config, checkpoints)
        goodput = Goodput(folder, run.step)
        try:
            _steps(run, folder, checkpoints, stop, goodput)
        except UserError:
            # It comes between two steps, say from the data: what was trained is not lost.
            if run.step:
                _save(run, checkpoints)
            raise
        _save(run, checkpoints)
    finally:
        checkpoints.close()
        stop.restore()
    goodput.lap("save")
    goodput.write()
    if stop.seen and run.step < config.train.total_steps:
        say(f"stopped at step {run.step} and saved; run the same command to go on")
    return run


def _steps(
    run: Run, folder: Path, checkpoints: Checkpoints, stop: StopRequest, goodput: Goodput
) -> None:
    config, t = run.config, run.config.train
    first = run.step
    if first >= t.total_steps:
        say(f"already at step {first} of {t.total_steps}; raise train.total_steps to go on")
        return
    log = RunLog(folder, t.total_steps)
    preview = Preview(config, folder)
    step_fn = compile_step(run.method, run.abstract_state, run.mesh)
    shard, shards = batch_shard(run.mesh)
    data = batches(
        pipeline_settings(config),
        samples_seen=first * t.batch_size,
        shard=shard,
        shards=shards,
        bad_records_path=folder / "bad_records.jsonl",
    )
    log.start(first)
    guard = UpdateGuard(folder, t.batch_size, t.max_skipped)
    rates = Rates(config, run.mesh)
    placed = Prefetch(data, lambda batch: device_batch(batch, run), data.log.counts)
    goodput.lap("start")
    with (
        data,
        placed,
        Watchdog(t.hang_seconds) as watchdog,
        Profile(folder, t.profile_steps) as trace,
    ):
        for step in range(first + 1, t.total_steps + 1):
            batch = next(placed)
            rates.waited(goodput.lap("data"))
            trace.before(step)
            run.state, metrics = step_fn(run.state, run.weights, batch)
            guard.see(step, metrics)
            rates.stepped(goodput.lap("compile" if step == first + 1 else "train", step))
            watchdog.see(step)
            trace.after(step, run.state)
            at_an_end = step in (first + 1, t.total_steps)
            if _due(step, t.log_every) or (at_an_end and t.log_every):
                values = {k: float(v) for k, v in metrics.items() if v.ndim == 0}
                rates.stepped(goodput.lap("train", step), steps=0)
                values |= {"samples_seen": step * t.batch_size, "goodput": goodput.share}
                values |= rates.take() | (placed.counted or {})
                log.write(step, values)
                log.progress(step, values)
                goodput.write()
            if _due(step, t.sample_every) or _due(step, t.eval_every):
                _show(run, preview, log, checkpoints, step)
                goodput.lap("look")
            if _due(step, t.checkpoint_every):
                _save(run, checkpoints)
                goodput.lap("save")
            if stop.at(step):
                break
        guard.finish()
        goodput.lap("train", run.step)
    log.close()


def _save(run: Run, checkpoints: Checkpoints) -> None:
    seen = run.step * run.config.train.batch_size
    checkpoints.save(run.state, samples_seen=seen, teacher=run.teacher)


def _show(run: Run, preview: Preview, log: RunLog, checkpoints: Checkpoints, step: int) -> None:
    """Sample pictures and validation where they are due."""
    if _due(step, run.config.train.sample_every):
        preview.save_samples(run, step)
    if _due(step, run.config.train.eval_every):
        checkpoints.judged = preview.evaluate(run)
        log.write(step, checkpoints.judged)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def device_batch(batch: dict[str, np.ndarray], run: Run) -> dict[str, jax.Array]:
    """This process's rows on its devices: uint8 pictures and the samples' indices."""
    rows = {"hr": batch["hr"], "lq": batch["lq"], "index": index_words(batch["index"])}
    return put_batch(rows, run.mesh)
