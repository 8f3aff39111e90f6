"""Seeds of single pictures."""

import hashlib


def picture_seed(seed: int, content: bytes) -> int:
    """A picture's seed: of the run's seed and the file's bytes, never of its name or turn.

    A picture looks the same whichever others are restored beside it, wherever it lies and in
    however many parts a folder is shared out.

    Returns:
      0 to 2^31 - 1.
    """
    digest = hashlib.sha256(f"{seed}:".encode() + hashlib.sha256(content).digest()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
