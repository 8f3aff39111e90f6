"""What a batch's words of a sample's position say."""

import numpy as np


def words_index(words: np.ndarray) -> np.ndarray:
    """uint32 [B, 2] from `noise.index_words` as int64 [B] sample positions again."""
    high, low = np.asarray(words, np.int64).T
    return (high << 32) | low
