"""Counts and a list of records that could not be read."""

import collections
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from vosr_jax.data.samples import BadRecord, Sample
from vosr_jax.errors import UserError
from vosr_jax.files.atomic import Attempts

_LOG = logging.getLogger(__name__)

# With fewer samples a share says little; the limit is then the share of this number.
_FEWEST_SAMPLES = 400


@dataclass(frozen=True)
class Report:
    """Events while a batch was made.

    Attributes:
      samples: number of samples in the batch.
      enlarged: number of images that were smaller than the crop.
      bad: for each replaced sample the records that failed, the intended one first.
      lost: name of a source with no readable record; its samples are black.
    """

    samples: int
    enlarged: int = 0
    bad: list[list[BadRecord]] = field(default_factory=list)
    lost: str | None = None

    def replaced(self) -> collections.Counter[str]:
        """Number of replaced samples per source name."""
        return collections.Counter(row[0].source for row in self.bad)

    @classmethod
    def from_notes(cls, samples: int, notes: np.ndarray) -> "Report":
        """Read the result of `notes_of` for a batch of so many samples."""
        content = json.loads(notes.tobytes())
        rows = [[BadRecord(**bad) for bad in row] for row in content["bad"]]
        return cls(samples, content["enlarged"], rows, next(iter(content["lost"]), None))


def notes_of(samples: Sequence[Sample]) -> np.ndarray:
    """Write a batch's report as JSON bytes, uint8, which pass from a worker to its parent."""
    notes = {
        "enlarged": sum(sample.enlarged for sample in samples),
        "bad": [[asdict(bad) for bad in sample.bad] for sample in samples if sample.bad],
        "lost": [sample.bad[0].source for sample in samples if sample.lost],
    }
    return np.frombuffer(json.dumps(notes).encode(), np.uint8)


class BadRecordLog:
    """Counts replaced samples, reports every bad record once, and fails if there are too many.

    Args:
      path: a JSON-lines file that gets each bad record once, also across restarts; None: no
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
        self._attempt = Attempts(_LOG.warning)
        self._known = self._listed()

    def _listed(self) -> set[str]:
        if self._path is None or not os.path.isfile(self._path):
            return set()
        known = set()
        try:
            lines = Path(self._path).read_text(errors="replace").splitlines()
        except OSError as error:
            _LOG.warning("%s cannot be read (%s); records may be listed again", self._path, error)
            return set()
        for line in lines:
            try:
                known.add(json.loads(line)["record"])
            except (ValueError, KeyError, TypeError):
                # A killed run cut this line short; its record is listed again.
                continue
        return known

    def add(self, report: Report) -> None:
        """Count a batch and report its bad records."""
        self.count(report.samples, report.enlarged, report.replaced())
        for row in report.bad:
            for bad in row:
                self.name(bad)

    def count(self, samples: int, enlarged: int, replaced: Mapping[str, int]) -> None:
        """Count samples.

        Args:
          samples: number of samples made.
          enlarged: number of their images that were smaller than the crop.
          replaced: {source name: number of replaced samples}.
        """
        if enlarged and not self.enlarged:
            _LOG.warning("pictures smaller than data.crop_size are enlarged to it and counted")
        self.samples += samples
        self.enlarged += enlarged
        self.replaced += sum(replaced.values())
        self._per_source.update(replaced)

    def counts(self) -> dict[str, int]:
        """Numbers of replaced and enlarged samples so far."""
        return {"replaced": self.replaced, "enlarged": self.enlarged}

    def name(self, bad: BadRecord) -> None:
        """Log and list a record, once.

        If the list cannot be written, for example on a full disk, that is logged once.
        """
        if bad.record in self._known:
            return
        self._known.add(bad.record)
        _LOG.warning("unreadable, replaced by another: %s (%s)", bad.record, bad.reason)
        if (path := self._path) is None:
            return
        line = {"source": bad.source, "record": bad.record, "reason": bad.reason}

        def append() -> None:
            with open(path, "a") as file:
                file.write(json.dumps(line) + "\n")

        self._attempt(str(path), append)

    def check(self) -> None:
        """Raise UserError if too many samples had to be replaced."""
        if self.replaced <= self._max_fraction * max(self.samples, _FEWEST_SAMPLES):
            return
        source, count = self._per_source.most_common(1)[0]
        where = ""
        if self._path is not None:
            where = f"; they are listed in the workdir's {os.path.basename(self._path)}"
        raise UserError(
            f"{self.replaced} of {self.samples} samples could not be read, more than "
            f"data.max_bad_fraction={self._max_fraction} allows; most of them ({count}) lie in "
            f"{source}{where}: repair or remove them, or allow more"
        )

    def lost(self, source: str) -> UserError:
        """Make the error for a source with no readable record."""
        return UserError(
            f"data.sources: no picture of {source} can be read any more; check that the folder is "
            "still there and holds whole files"
        )
