"""Seeds of single photos."""

import hashlib


def picture_seed(seed: int, content: bytes) -> int:
    """Derive a photo's seed from the run's seed and the file's bytes, not its name or position.

    The result stays the same for any other photos in the run, any path, and any number of
    processes that share the folder.

    Returns:
      0 to 2^31 - 1.
    """
    digest = hashlib.sha256(f"{seed}:".encode() + hashlib.sha256(content).digest()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
