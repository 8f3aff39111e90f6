"""Order of a process's samples: its rows of one global batch after another."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vosr_jax.errors import UserError

# Grain's endless sequences have the largest possible length; a batch of one sample overflows it.
_ENDLESS = 1 << 62


class RowsOfBatches(Sequence):
    """(index, place) of the samples that a process loads, in loading order.

    Args:
      places: the endless sequence of places; element k belongs to sample k.
      samples_seen: number of samples in earlier batches.
      batch_size: rows per global batch.
      rows: [R] int64, the rows of every global batch that the process loads.
    """

    def __init__(self, places: Any, samples_seen: int, batch_size: int, rows: np.ndarray):
        self._places = places
        self._seen, self._batch_size = samples_seen, batch_size
        self._rows = np.asarray(rows, np.int64)

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, position):
        batch, row = divmod(int(position), len(self._rows))
        index = self._seen + batch * self._batch_size + int(self._rows[row])
        return index, self._places[index]


def checked_rows(rows: Sequence[int] | np.ndarray | None, batch_size: int) -> np.ndarray:
    """Check the rows and return them as int64; None means all rows of the batch.

    Raises:
      UserError: the batch has no rows.
      ValueError: there are no rows, one is outside the batch, or one is repeated.
    """
    if batch_size < 1:
        raise UserError(f"train.batch_size is {batch_size}; it must be at least 1")
    if rows is None:
        return np.arange(batch_size, dtype=np.int64)
    rows = np.asarray(rows, np.int64)
    distinct = len(np.unique(rows)) == len(rows) > 0
    if rows.ndim != 1 or not distinct or rows.min() < 0 or rows.max() >= batch_size:
        raise ValueError(f"rows {rows} are no rows of a batch of {batch_size}")
    return rows
