"""Reading the json files beside weights."""

import json
import os
from pathlib import Path
from typing import Any

from vosr_jax.errors import UserError
from vosr_jax.files import is_remote, reading, to_path


def read_json_object(path: str | os.PathLike) -> dict[str, Any]:
    """Read the object in a json file; UserError if there is none or it cannot be read."""
    try:
        content = json.loads(_text(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no readable json file ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a json object, not a {type(content).__name__}")
    return content


def _text(path: str | os.PathLike) -> str:
    if not is_remote(path):
        return Path(path).read_text(encoding="utf-8")
    with reading(path):
        return to_path(path).read_text(encoding="utf-8")
