"""What the preparation drops: its numbers, apart from what needs OpenCV."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FilterSettings:
    """What is dropped; a zero leaves a filter out.

    Attributes:
      min_side: the shorter side, pixels.
      max_blockiness: steps across JPEG's block borders over those inside.
      min_sharpness: variance of the Laplacian of the grey levels.
      duplicate_distance: pictures whose perceptual hashes differ in so many of 64 bits at most
        are duplicates; -1 leaves the filter out.
    """

    min_side: int = 256
    max_blockiness: float = 1.5
    min_sharpness: float = 5.0
    duplicate_distance: int = 3
