"""Files that are there whole or not at all."""

import os
from pathlib import Path

from vosr_jax.errors import UserError


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
      UserError: it can't be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text)
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror})") from error
