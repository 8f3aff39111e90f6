"""Processes that share out a stretch of time; what one does wrong costs no other.

A part is a sequence of stages, a stage a few jobs that may run side by side, a job one process.
A job writes {"machine": ..., "figures": {name: figures}} to its own file as it goes. What lies
there is gathered into OUT/PART.json while it runs, so that a job that hangs or is killed loses
only what it had not finished.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vosr_jax.files import write_json

_ROOT = Path(__file__).parents[2]
_GRACE = 5.0
_TICK = 0.1


@dataclasses.dataclass(frozen=True)
class Job:
    """One process.

    Attributes:
      name: under which an error of the process itself is kept.
      command: "{file}" stands for the job's file and "{seconds}" for what it has.
      share: of its part's seconds at most.
      environment: beside this process's own.
    """

    name: str
    command: tuple[str, ...]
    share: float = 1.0
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Part:
    """Stages one after another.

    Attributes:
      name: of its JSON file.
      share: of all seconds; the last part gets whatever is left.
      stages: the jobs of a stage run side by side.
    """

    name: str
    share: float
    stages: tuple[tuple[Job, ...], ...]


class _Running:
    """A job's process, in a group of its own so that its children end with it."""

    def __init__(self, job: Job, file: Path, seconds: float):
        self.job, self.seconds = job, seconds
        self.log = file.with_suffix(".log")
        self.end = time.monotonic() + seconds
        given = {"{file}": str(file), "{seconds}": f"{seconds:.0f}"}
        filled = [given.get(argument, argument) for argument in job.command]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                filled,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=_ROOT,
                env=os.environ | job.environment,
                start_new_session=True,
            )

    def outcome(self) -> str | None:
        """None while it runs, "" if it went well, otherwise what was wrong."""
        code = self._process.poll()
        if code is None:
            if time.monotonic() < self.end:
                return None
            self.stop()
            return f"over its {self.seconds:.0f} seconds"
        # A worker process may outlive the job that started it.
        self._signal(signal.SIGKILL)
        if code == 0:
            return ""
        said = self.log.read_text(errors="replace").strip().splitlines()
        return f"ended with code {code}: {said[-1][:300] if said else 'it said nothing'}"

    def stop(self) -> None:
        """Ask it to end, then end it with its children."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


class _Report:
    """OUT/PART.json, from the files of a part's jobs."""

    def __init__(self, out: Path, part: Part, files: Path, seconds: float, facts: dict[str, Any]):
        self._file, self._logs = out / f"{part.name}.json", out / "run.log"
        self._folder = files / part.name
        self._folder.mkdir(parents=True, exist_ok=True)
        self._errors: dict[str, str] = {}
        self._begun = time.monotonic()
        self._content = {"part": part.name, "budget_seconds": round(seconds, 1), **facts}
        self._jobs = [job for stage in part.stages for job in stage]
        self._written: Any = None
        self.gather()

    def file_of(self, job: Job) -> Path:
        """Where a job writes its figures."""
        return self._folder / f"{self._jobs.index(job)}.json"

    def gather(self) -> None:
        """Write what the jobs have by now, if it is news."""
        machine: dict[str, Any] = {}
        figures: dict[str, Any] = {}
        for job in self._jobs:
            with contextlib.suppress(OSError, ValueError):
                found = json.loads(self.file_of(job).read_text())
                machine = machine or found["machine"]
                figures |= found["figures"]
            if job.name in self._errors:
                figures[job.name] = {"error": self._errors[job.name]}
        if (machine, figures) != self._written:
            self._written = machine, figures
            spent = round(time.monotonic() - self._begun, 1)
            content = self._content | {"seconds": spent, "machine": machine, "figures": figures}
            write_json(self._file, content)

    def close(self, running: _Running, outcome: str) -> None:
        """Keep how a job ended, and what it said."""
        log = running.log.read_bytes()[-200_000:]
        with self._logs.open("ab") as file:
            file.write(f"== {running.job.name}: {outcome or 'done'}\n".encode() + log + b"\n")
        self.refuse(running.job, outcome)

    def refuse(self, job: Job, outcome: str) -> None:
        """Keep why a job has no more figures; nothing if it has them all."""
        if outcome:
            self._errors[job.name] = outcome
        print(f"{job.name}: {outcome or 'done'}", flush=True)
        self.gather()


def run_part(part: Part, report: _Report, seconds: float, at_once: int) -> None:
    """Run a part's stages within its seconds."""
    end = time.monotonic() + seconds
    for stage in part.stages:
        waiting, running = list(stage), list[_Running]()
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    job, left = waiting.pop(0), end - time.monotonic()
                    if left < 1:
                        report.refuse(job, "no time was left for it")
                        continue
                    try:
                        given = min(left, job.share * seconds)
                        running.append(_Running(job, report.file_of(job), given))
                    except OSError as error:
                        report.refuse(job, f"cannot be started: {error}")
                for one in list(running):
                    outcome = one.outcome()
                    if outcome is not None:
                        running.remove(one)
                        report.close(one, outcome)
                report.gather()
                time.sleep(_TICK)
        finally:
            for one in running:
                one.stop()


def run_parts(
    parts: list[Part],
    out: Path,
    files: Path,
    seconds: float,
    *,
    at_once: int = 1,
    facts: dict[str, Any] | None = None,
) -> None:
    """Run parts in their order, every one within its share of the seconds.

    Args:
      parts: the last one gets all that is left.
      out: a folder, for PART.json of every part and run.log.
      files: a folder for the jobs' own files.
      seconds: for all of them.
      at_once: jobs of a stage that run side by side.
      facts: written into every PART.json.
    """
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    for number, part in enumerate(parts):
        left = max(end - time.monotonic(), 0.0)
        budget = left if number == len(parts) - 1 else min(part.share * seconds, left)
        print(f"-- {part.name}: {budget:.0f} seconds", flush=True)
        run_part(part, _Report(out, part, files, budget, facts or {}), budget, at_once)
