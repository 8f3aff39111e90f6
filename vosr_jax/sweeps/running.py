"""Run a sweep's trials: each in its own folder, once, by one process at a time.

A lock admits one process to each trial of a shared folder. On a disk this is a file lock, which
the system releases if its process dies. In a bucket it is a lease that its holder renews; it
expires after a minute of silence.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vosr_jax.errors import UserError
from vosr_jax.files import is_remote, to_path
from vosr_jax.files.mirror import Mirror
from vosr_jax.sweeps.trials import Trial, differences, write_record
from vosr_jax.training.run_lock import RunLock
from vosr_jax.weights.checkpoint_files import finished_steps

_INDEX_VARIABLES = ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX")
_ASK_AGAIN = 10.0
Tell = Callable[[str], None]


def finished(trial: Trial, workdir: str | os.PathLike) -> bool:
    """Whether a trial's last checkpoint exists and is this trial's."""
    there = trial.config.train.total_steps in finished_steps(to_path(workdir) / trial.name)
    return there and not differences(trial, workdir)


def array_index() -> int:
    """The index that Slurm's or Kubernetes' job array gives this process.

    Raises:
      UserError: there is none.
    """
    for name in _INDEX_VARIABLES:
        if name in os.environ:
            return int(os.environ[name])
    raise UserError(
        f"none of {', '.join(_INDEX_VARIABLES)} is set; give --index, or submit a job array"
    )


def chosen(trials: Sequence[Trial], index: int | None) -> list[Trial]:
    """All trials, or the one of an index.

    Raises:
      UserError: no trial has this index.
    """
    if index is None:
        return list(trials)
    if not 0 <= index < len(trials):
        raise UserError(f"--index {index}: the sweep has the trials 0 to {len(trials) - 1}")
    return [trials[index]]


def run_trials(
    trials: Sequence[Trial], workdir: str | os.PathLike, tell: Tell = print
) -> list[str]:
    """Run the unfinished trials one after another; several processes may share a folder.

    A trial that another process is running is waited for at the end. A failed trial does not stop
    the others. Neither does a trial whose folder was trained with another config; a message names
    the keys.

    Args:
      trials: in the order in which to run them.
      workdir: gets for every trial a train.py workdir, a log and a lock; a folder, or an address
        in a bucket.
      tell: takes one line of progress.

    Returns:
      Names of the trials that failed.

    Raises:
      UserError: train.py is missing, or the folder can't be written.
    """
    program = _program()
    if not program.is_file():
        raise UserError(f"{program} is not there; run sweeps in the source folder")
    with Mirror(workdir, only=tuple(f"{trial.name}.log" for trial in trials), tell=tell) as logs:
        return _run_each(trials, workdir, logs.folder, tell)


def _run_each(
    trials: Sequence[Trial], workdir: str | os.PathLike, logs: Path, tell: Tell
) -> list[str]:
    failed, later = [], []
    count = len(trials)
    for number, trial in enumerate(trials, 1):
        label = f"{number}/{count} {trial.name}"
        with held(workdir, trial.name, wait=False) as lock:
            if lock is None:
                tell(f"{label}: another process has it")
                later.append(trial)
            elif not _run(trial, workdir, logs, lock, label, tell):
                failed.append(trial.name)
    for trial in later:
        with held(workdir, trial.name, wait=True) as lock:
            assert lock is not None
            if not _run(trial, workdir, logs, lock, trial.name, tell):
                failed.append(trial.name)
    return failed


def _program() -> Path:
    """train.py beside the package's source; for an installed package, in the current folder."""
    beside = Path(__file__).parents[2] / "train.py"
    return beside if beside.is_file() else Path("train.py").absolute()


def _run(
    trial: Trial,
    workdir: str | os.PathLike,
    logs: Path,
    lock: list[int],
    label: str,
    tell: Tell,
) -> bool:
    """Train one trial to its end; return whether it got there."""
    log_file = logs / f"{trial.name}.log"
    if finished(trial, workdir):
        tell(f"{label}: finished before")
        return True
    differing = differences(trial, workdir)
    if differing:
        tell(
            f"{label}: not run, {to_path(workdir) / trial.name} was trained with another config "
            f"({', '.join(differing)}); give another --workdir"
        )
        return False
    tell(f"{label}: running")
    write_record(trial, workdir)
    folder = f"--workdir={to_path(workdir) / trial.name}"
    command = [sys.executable, str(_program()), *trial.arguments, folder]
    with log_file.open("a") as log:
        # The child keeps the lock: if this process is killed, no other starts the same trial.
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, pass_fds=lock)
        with _passing_on(process):
            code = process.wait()
    if finished(trial, workdir):
        return True
    tell(f"{label}: failed with exit code {code}: {_last_line(log_file)}")
    return False


@contextlib.contextmanager
def _passing_on(process: subprocess.Popen) -> Iterator[None]:
    """While a trial runs, let SIGTERM and Ctrl-C save the trial, then end the sweep."""
    asked: list[int] = []

    def stop(number: int, frame: object) -> None:
        asked.append(number)
        process.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise UserError(
            "the sweep was stopped; its trial has saved itself, the same command goes on"
        )


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it wrote nothing"


@contextlib.contextmanager
def held(workdir: str | os.PathLike, name: str, *, wait: bool) -> Iterator[list[int] | None]:
    """Hold a trial's lock.

    Args:
      workdir: of the sweep.
      name: of the trial.
      wait: whether to wait until it is free.

    Yields:
      None if another process has it; else file descriptors that keep the lock for a child.

    Raises:
      UserError: the folder cannot be written.
    """
    if is_remote(workdir):
        with _leased(workdir, name, wait=wait) as mine:
            yield [] if mine else None
        return
    try:
        Path(workdir).mkdir(parents=True, exist_ok=True)
        file = (Path(workdir) / f"{name}.lock").open("w")
    except OSError as error:
        raise UserError(f"{workdir} can't be written ({error.strerror}); choose another") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
            return
        yield [file.fileno()]


@contextlib.contextmanager
def _leased(workdir: str | os.PathLike, name: str, *, wait: bool) -> Iterator[bool]:
    while True:
        try:
            lock = RunLock(to_path(workdir) / "locks" / name)
        except UserError:
            if not wait:
                yield False
                return
            time.sleep(_ASK_AGAIN)
            continue
        break
    try:
        yield True
    finally:
        lock.release()
