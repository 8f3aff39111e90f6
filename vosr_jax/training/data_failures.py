"""Share the data's failure on one process with all processes, at the same step.

A process whose data fail goes on with empty batches that carry a flag. The step sums the flags of
all processes and skips the update. One step later all processes read the sum, save the state from
before together, and end with the same message. Counts of bad records are summed in the same way,
so the limit holds for the whole job.

Flags and counts are a batch's notes, an int32 array [notes_length(sources)]: the entries below,
then the number of replaced samples of every source, then zeros.
"""

import dataclasses
import json
import logging
import socket
from collections import deque

import jax
import numpy as np

from vosr_jax.data.bad_records import BadRecordLog, Report
from vosr_jax.data.pipeline import Batches
from vosr_jax.data.samples import BadRecord
from vosr_jax.errors import UserError
from vosr_jax.training.processes import SharedError, store

# 1 from a process without a batch; all processes then skip the update.
FAILED = 0
# Rows made, and rows whose image had to be enlarged.
SAMPLES, ENLARGED = 1, 2
# Bad records that this process names for the first time.
NAMED = 3
FIRST_SOURCE = 4
# Entries for sources, so that a step's program is the same for all usual numbers of sources.
_SOURCES = 16
_LOG = logging.getLogger(__name__)
_FAILURE, _BAD = "vosr/failure", "vosr/bad/"
_MILLISECONDS = 20_000


def notes_length(sources: int) -> int:
    """Entries of the notes for a number of sources."""
    return FIRST_SOURCE + max(sources, _SOURCES)


def notes_of(report: Report, named: int, sources: tuple[str, ...]) -> np.ndarray:
    """The notes of a batch.

    Args:
      report: of the batch.
      named: number of bad records that are named for the first time.
      sources: their names, in order.
    """
    notes = np.zeros(notes_length(len(sources)), np.int32)
    notes[[SAMPLES, ENLARGED, NAMED]] = report.samples, report.enlarged, named
    for name, count in report.replaced().items():
        notes[FIRST_SOURCE + sources.index(name)] += count
    return notes


def failure(sources: tuple[str, ...]) -> np.ndarray:
    """The notes of a process without a batch."""
    notes = np.zeros(notes_length(len(sources)), np.int32)
    notes[FAILED] = 1
    return notes


class Board:
    """Message board of a job's processes; with one process, a local list."""

    def __init__(self):
        self._store = store()
        self._failure: str | None = None
        self._bad: deque[BadRecord] = deque()
        self._sent = 0

    def fail(self, sentence: str) -> None:
        """Post why this process cannot go on; the job's first message holds for all."""
        if self._store is None:
            self._failure = sentence
            return
        try:
            self._store.key_value_set(_FAILURE, f"{_this_process()}: {sentence}")
        # Another process was first.
        except jax.errors.JaxRuntimeError:
            pass

    def failure(self) -> str:
        """The job's first failure message."""
        if self._store is None:
            return self._failure or "the data have failed"
        try:
            return self._store.blocking_key_value_get(_FAILURE, _MILLISECONDS)
        except jax.errors.JaxRuntimeError as error:
            return f"another process has failed, and does not say why ({error})"

    def name(self, records: list[BadRecord]) -> None:
        """Post bad records for process 0."""
        if self._store is None or jax.process_index() == 0:
            self._bad.extend(records)
            return
        self._sent += 1
        text = json.dumps([dataclasses.asdict(record) for record in records])
        self._store.key_value_set(f"{_BAD}{jax.process_index()}/{self._sent}", text)

    def named(self) -> list[BadRecord]:
        """Bad records posted since the last call; for process 0 only."""
        found = [self._bad.popleft() for _ in range(len(self._bad))]
        if self._store is not None:
            for key, text in self._store.key_value_dir_get(_BAD):
                found += [BadRecord(**record) for record in json.loads(text)]
                self._store.key_value_delete(key)
        return found


class Feed:
    """Endless batches with notes; once the data fail, empty batches with a flag.

    Args:
      data: the source of batches.
      board: where bad records and a failure are posted.
      rows: of this process's batch.
      side: of its images, pixels.
    """

    def __init__(self, data: Batches, board: Board, rows: int, side: int):
        self._data, self._board = data, board
        self._shape = (rows, side, side, 3)
        self._sources = source_names(data)
        self._failed = False
        self._known: set[str] = set()

    def __iter__(self) -> "Feed":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        """hr, lq, index and replaced as `Batches` gives them, and notes [K] int32."""
        if not self._failed:
            try:
                batch, report = self._data.take()
                if report.lost is not None:
                    raise self._data.log.lost(report.lost)
                return batch | {"notes": self._notes(report)}
            # Sources, Grain and workers raise many kinds; no process may fall out of step.
            except Exception as error:
                self.fail(error)
        return self._empty()

    def fail(self, error: Exception) -> None:
        """Post the reason and give only empty batches from now on."""
        self._failed = True
        text = str(error).strip().splitlines() or [""]
        sentence = text[0] if isinstance(error, UserError) else _unforeseen(error, text[-1])
        _LOG.info("the data have failed", exc_info=error)
        self._board.fail(sentence)

    def _notes(self, report: Report) -> np.ndarray:
        named = [bad for row in report.bad for bad in row if bad.record not in self._known]
        named = list({bad.record: bad for bad in named}.values())
        if named:
            self._known |= {bad.record for bad in named}
            self._board.name(named)
        return notes_of(report, len(named), self._sources)

    def _empty(self) -> dict[str, np.ndarray]:
        rows = self._shape[0]
        return {
            "hr": np.zeros(self._shape, np.uint8),
            "lq": np.zeros(self._shape, np.uint8),
            "index": np.zeros(rows, np.int64),
            "replaced": np.zeros(rows, bool),
            "notes": failure(self._sources),
        }


class Judge:
    """Check the notes summed over all processes, which are the same on every process.

    Args:
      data: its log keeps the counts.
      board: holds failure messages and bad records.
    """

    def __init__(self, data: Batches, board: Board):
        self._log: BadRecordLog = data.log
        self._board = board
        self._sources = source_names(data)

    def __call__(self, notes: np.ndarray) -> None:
        """Count and check a step's notes.

        Args:
          notes: [K] int32, summed over all processes.

        Raises:
          SharedError: a process has no data, or too many records are bad.
        """
        if notes[FAILED]:
            raise SharedError(self._board.failure())
        counts = notes[FIRST_SOURCE : FIRST_SOURCE + len(self._sources)]
        replaced = dict(zip(self._sources, map(int, counts), strict=True))
        self._log.count(int(notes[SAMPLES]), int(notes[ENLARGED]), replaced)
        if notes[NAMED] and jax.process_index() == 0:
            for bad in self._board.named():
                self._log.name(bad)
        try:
            self._log.check()
        except UserError as error:
            raise SharedError(str(error)) from error


def source_names(data: Batches) -> tuple[str, ...]:
    """Names of the sources, each once."""
    return tuple(dict.fromkeys(source.name for source in data.sources))


def _this_process() -> str:
    return f"process {jax.process_index()} ({socket.gethostname()})"


def _unforeseen(error: Exception, text: str) -> str:
    return f"the data pipeline failed with {type(error).__name__} ({text[:300]})"
