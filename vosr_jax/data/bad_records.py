"""Keeping account of records that could not be read."""

import collections
import json
import logging
import os

from vosr_jax.data.samples import BadRecord
from vosr_jax.errors import UserError

_LOG = logging.getLogger(__name__)

# Below so many samples a share says nothing; the limit is then that share of this number.
_FEWEST_SAMPLES = 400


class BadRecordLog:
    """Counts replaced samples, names every bad record once, and says when it is too much.

    Args:
      path: a JSON-lines file to add each bad record to once, also across restarts; None: no
        file.
      max_fraction: share of replaced samples above which `check` raises.
    """

    def __init__(self, path: str | os.PathLike | None, max_fraction: float):
        self.samples = 0
        self.replaced = 0
        self.enlarged = 0
        self._path = path
        self._max_fraction = max_fraction
        self._per_source: collections.Counter[str] = collections.Counter()
        self._known = self._listed()

    def _listed(self) -> set[str]:
        if self._path is None or not os.path.exists(self._path):
            return set()
        known = set()
        with open(self._path) as lines:
            for line in lines:
                try:
                    known.add(json.loads(line)["record"])
                except (ValueError, KeyError, TypeError):
                    # A line cut short by a killed run: that record is simply listed again.
                    continue
        return known

    def add(self, samples: int, enlarged: int, rows: list[list[BadRecord]]) -> None:
        """Account for a batch.

        Args:
          samples: its size.
          enlarged: how many pictures were smaller than the crop.
          rows: for each replaced sample the records that failed.
        """
        if enlarged and not self.enlarged:
            _LOG.warning("pictures smaller than data.crop_size are enlarged to it and counted")
        self.samples += samples
        self.enlarged += enlarged
        self.replaced += len(rows)
        for row in rows:
            self._per_source[row[0].source] += 1
            for bad in row:
                self._name_once(bad)

    def counts(self) -> dict[str, int]:
        """Replaced and enlarged samples so far."""
        return {"replaced": self.replaced, "enlarged": self.enlarged}

    def _name_once(self, bad: BadRecord) -> None:
        if bad.record in self._known:
            return
        self._known.add(bad.record)
        _LOG.warning("unreadable, replaced by another: %s (%s)", bad.record, bad.reason)
        if self._path is not None:
            line = {"source": bad.source, "record": bad.record, "reason": bad.reason}
            with open(self._path, "a") as file:
                file.write(json.dumps(line) + "\n")

    def check(self) -> None:
        """Raise UserError if too many samples had to be replaced."""
        if self.replaced <= self._max_fraction * max(self.samples, _FEWEST_SAMPLES):
            return
        source, count = self._per_source.most_common(1)[0]
        where = f"; they are listed in {self._path}" if self._path is not None else ""
        raise UserError(
            f"{self.replaced} of {self.samples} samples could not be read, more than "
            f"data.max_bad_fraction={self._max_fraction} allows; most of them ({count}) lie in "
            f"{source}{where}: repair or remove them, or allow more"
        )

    def lost(self, source: str) -> UserError:
        """The error for a source of which nothing can be read."""
        return UserError(
            f"data.sources: no picture of {source} can be read any more; check that the folder is "
            "still there and holds whole files"
        )
