"""Restoring and measuring every case, and means over the cases.

Finished rows are kept on disk. Intervals of means respect which images share a photo.
"""

import dataclasses
import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vosr_jax.errors import UserError
from vosr_jax.evaluation.measures import Measure, lpips_distance
from vosr_jax.evaluation.methods import Method
from vosr_jax.evaluation.pairs import Entry, EvalPair
from vosr_jax.files import write_text
from vosr_jax.files.photo_writing import write_photo

Row = dict[str, Any]
_RESAMPLES = 2000
_LEVEL = 95.0


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Evaluates methods and keeps their rows and images.

    A row on disk is reused if its case's pixels, its method's settings and weights, the measures,
    the number of samples and the versions are unchanged.

    Attributes:
      folder: gets rows/ and pictures/, each with a folder per method.
      measures: the columns.
      samples: images per case, each with its own seed; the row's figures are their means. With
        more than one, "diversity" is their standard deviation (0..255) and "lpips_of_mean" the
        LPIPS of their mean. These tell a generator from a regressor.
      versions: versions of the programs, on which a row depends.
    """

    folder: Path
    measures: Sequence[Measure]
    samples: int = 1
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    def evaluate(
        self,
        method: Method,
        entries: Sequence[Entry],
        tell: Callable[[int, int], None] = lambda done, count: None,
    ) -> list[Row]:
        """Evaluate a method on every case and return the rows in the cases' order.

        Args:
          method: the method; it runs in as many threads as it has `restore` functions.
          entries: the cases.
          tell: called with the number of finished cases and of all cases.

        Returns:
          Rows with "name", "photograph", every measure that the case allows, and "seconds"; or with
          "name", "photograph" and "error" for a case that could not be read or restored.
        """
        for part in ("rows", "pictures"):
            (self.folder / part / method.slug).mkdir(parents=True, exist_ok=True)
        free = list(method.restore)
        warm: dict[int, set] = {number: set() for number in range(len(free))}
        numbers = list(range(len(free)))
        lock, done = threading.Lock(), 0

        def one(entry: Entry) -> Row:
            nonlocal done
            with lock:
                number = numbers.pop()
            try:
                return self._row(method, entry, free[number], warm[number])
            finally:
                with lock:
                    numbers.append(number)
                    done += 1
                    tell(done, len(entries))

        with ThreadPoolExecutor(len(free)) as pool:
            try:
                return list(pool.map(one, entries))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def picture(self, method: Method, name: str) -> Path:
        """Path of a case's restored image for seed 0."""
        return self.folder / "pictures" / method.slug / f"{name}.png"

    def _row(self, method: Method, entry: Entry, restore, warm: set) -> Row:
        about = {"name": entry.name, "photograph": entry.photograph}
        try:
            case = entry.load()
            fingerprint = self._fingerprint(method, case)
            file = self.folder / "rows" / method.slug / f"{entry.name}.json"
            kept = _read(file)
            picture = self.picture(method, entry.name)
            if kept is not None and kept.pop("fingerprint", None) == fingerprint:
                if picture.is_file():
                    return kept
            if (case.source.shape, case.size) not in warm:
                restore(case, 0)  # compile now, or the time of the first image would include it
                warm.add((case.source.shape, case.size))
            row = about | self._judge(method, case, restore, picture)
        except UserError as error:
            return about | {"error": str(error)}
        except MemoryError:
            return about | {"error": f"{entry.name} does not fit into memory"}
        write_text(file, json.dumps(row | {"fingerprint": fingerprint}, indent=1) + "\n")
        return row

    def _judge(self, method: Method, case: EvalPair, restore, picture: Path) -> Row:
        samples = self.samples if method.seeded else 1
        started = time.monotonic()
        results = [restore(case, 0)]
        seconds = time.monotonic() - started
        write_photo(Image.fromarray(results[0]), picture)
        results += [restore(case, seed) for seed in range(1, samples)]
        wanted = [m for m in self.measures if case.truth is not None or not m.with_truth]
        row: Row = {}
        for measure in wanted:
            try:
                values = [measure.function(result, case) for result in results]
            except ValueError as error:
                raise UserError(f"{case.name}: {measure.key}: {error}") from error
            row[measure.key] = math.fsum(values) / samples
        if self.samples > 1:
            stack = np.stack(results).astype(np.float32)
            row["diversity"] = float(stack.std(0).mean())
            if case.truth is not None and "lpips" in row:
                row["lpips_of_mean"] = lpips_distance(stack.mean(0), case.truth)
        if method.also is not None:
            row |= method.also(case)
        return row | {"seconds": seconds}

    def _fingerprint(self, method: Method, case: EvalPair) -> str:
        digest = hashlib.sha256()
        settings = {
            "about": method.about,
            "measures": [measure.title for measure in self.measures],
            "samples": self.samples,
            "versions": self.versions,
            "size": case.size,
        }
        digest.update(json.dumps(settings, sort_keys=True).encode())
        for picture in (case.source, case.truth):
            if picture is not None:
                digest.update(
                    repr(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()
                )
        return digest.hexdigest()


def _read(file: Path) -> Row | None:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean over images.

    Attributes:
      mean: mean over all images.
      low, high: the 95% interval, by a bootstrap over photos; both are the mean if there is only
        one photo.
      pictures: number of images.
    """

    mean: float
    low: float
    high: float
    pictures: int

    def to_dict(self) -> dict[str, float]:
        """Plain values for results.json."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "pictures": self.pictures}


def summarize(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> dict[str, Mean]:
    """Compute means of the columns over the rows without errors.

    Args:
      rows: rows with "name", "photograph" and figures; those with "error" are ignored.
      keys: the columns.
    """
    whole = [row for row in rows if "error" not in row]
    found = {}
    for key in keys:
        having = [row for row in whole if key in row]
        if having:
            values = [row[key] for row in having]
            found[key] = mean_of(values, [row["photograph"] for row in having])
    return found


def mean_of(values: Sequence[float], groups: Sequence[str]) -> Mean:
    """Compute a mean and its interval by resampling groups; the same in every run.

    Args:
      values: one value per image.
      groups: for each image, the photo that it was cut from.
    """
    mean = math.fsum(values) / len(values)
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        return Mean(mean, mean, mean, len(values))
    totals = np.bincount(index, weights=np.asarray(values, np.float64))
    counts = np.bincount(index)
    drawn = np.random.default_rng(0).integers(0, len(names), (_RESAMPLES, len(names)))
    means = totals[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [(100 - _LEVEL) / 2, (100 + _LEVEL) / 2])
    return Mean(mean, float(low), float(high), len(values))
