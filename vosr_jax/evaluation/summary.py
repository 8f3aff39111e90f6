"""Means over images, with intervals that respect which images share a photo."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_RESAMPLES = 2000
_LEVEL = 95.0


@dataclass(frozen=True)
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
