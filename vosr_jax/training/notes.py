"""Notes of a batch: a process's counts, which the step sums over all processes.

An int32 array [FIRST_SOURCE + sources]: the entries below, then the number of replaced samples of
every source.
"""

import numpy as np

from vosr_jax.data.bad_records import Report

# 1 from a process without a batch; all processes then skip the update.
FAILED = 0
# Rows made, and rows whose image had to be enlarged.
SAMPLES, ENLARGED = 1, 2
# Bad records that this process names for the first time.
NAMED = 3
FIRST_SOURCE = 4


def notes_of(report: Report, named: int, sources: tuple[str, ...]) -> np.ndarray:
    """The notes of a batch.

    Args:
      report: of the batch.
      named: number of bad records that are named for the first time.
      sources: their names, in order.
    """
    notes = np.zeros(FIRST_SOURCE + len(sources), np.int32)
    notes[[SAMPLES, ENLARGED, NAMED]] = report.samples, report.enlarged, named
    for name, count in report.replaced().items():
        notes[FIRST_SOURCE + sources.index(name)] += count
    return notes


def failure(sources: tuple[str, ...]) -> np.ndarray:
    """The notes of a process without a batch."""
    notes = np.zeros(FIRST_SOURCE + len(sources), np.int32)
    notes[FAILED] = 1
    return notes
