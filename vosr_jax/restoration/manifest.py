"""manifest.json beside the results of a run: what made each picture, and what failed.

    {"format": 1,
     "runs": [{"started", "settings", "seed", "model", "versions", "device", ...}],
     "pictures": {NAME: {"status", "run", "source", "source_sha256", "seed", "size", ...}}}

Written whole under a temporary name and renamed after every picture, so that a killed run leaves
one that can be read; the next run into the same folder adds to it.
"""

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from vosr_jax.errors import UserError
from vosr_jax.restoration.picture import remove_parts

_FORMAT = 1


def manifest_path(out: Path, index: int = 0, count: int = 1) -> Path:
    """The manifest of a run, or of one process's part of it."""
    part = "" if count == 1 else f"-{index:03}-of-{count:03}"
    return out / f"manifest{part}.json"


class Manifest:
    """The manifest of a folder, open for one run. Safe to use from several threads.

    Args:
      path: the file; what it holds already is kept.
      run: what is the same for all pictures of this run.

    Raises:
      UserError: the file is there and no manifest of this format.
    """

    def __init__(self, path: Path, run: dict[str, Any]):
        remove_parts(path)
        self._path = path
        self._lock = threading.Lock()
        self._content = _read(path)
        self._content["runs"].append(run)
        self._number = len(self._content["runs"]) - 1

    def made_otherwise(self, name: str) -> bool:
        """Whether a picture is recorded as finished with other settings, seed or weights."""
        entry = self._content["pictures"].get(name)
        if entry is None or entry["status"] != "done":
            return False
        runs = self._content["runs"]
        before, now = runs[entry["run"]], runs[self._number]
        return any(before.get(key) != now.get(key) for key in ("settings", "seed", "model"))

    def found(self, names: list[str]) -> None:
        """Record results that were there before and have no entry.

        A run killed between writing a picture and recording it leaves such.
        """
        with self._lock:
            for name in names:
                entry = self._content["pictures"].setdefault(name, {"status": "found"})
                if entry["status"] != "done":
                    self._content["pictures"][name] = {"status": "found"}

    def add(self, name: str, entry: dict[str, Any]) -> None:
        """Record a picture and write the file.

        Raises:
          UserError: it cannot be written.
        """
        with self._lock:
            self._content["pictures"][name] = {"run": self._number} | entry
            self._write()

    def _write(self) -> None:
        pictures = self._content["pictures"]
        content = self._content | {"pictures": {name: pictures[name] for name in sorted(pictures)}}
        part = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        try:
            with part.open("w") as file:
                file.write(json.dumps(content, indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except OSError as error:
            reason = error.strerror or str(error)
            message = f"cannot write {self._path} ({reason}); check folder and disk"
            raise UserError(message) from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"format": _FORMAT, "runs": [], "pictures": {}}
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); move it away") from error
    kinds = {"runs": list, "pictures": dict}
    known = isinstance(content, dict) and content.get("format") == _FORMAT
    if not known or any(not isinstance(content.get(key), kind) for key, kind in kinds.items()):
        raise UserError(f"{path} is no manifest of vosr upscale; move it away or choose another -o")
    return content
