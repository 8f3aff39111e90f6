"""Preparation of a folder or tar set as filtered ArrayRecord shards, on Apache Beam.

The thresholds are here, in a module without OpenCV, because the command line reads them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class FilterSettings:
    """Thresholds of the filters; zero disables a filter.

    Attributes:
      min_side: smallest length of the shorter side, pixels.
      max_blockiness: largest ratio of steps across JPEG's block borders to those inside.
      min_sharpness: smallest variance of the Laplacian of the grey levels.
      duplicate_distance: images whose perceptual hashes differ in at most this many of 64 bits are
        duplicates; -1 disables the filter.
    """

    min_side: int = 256
    max_blockiness: float = 1.5
    min_sharpness: float = 5.0
    duplicate_distance: int = 3
