"""manifest.json beside the results of a run: what made each picture, and what failed.

    {"format": 1,
     "runs": [{"started", "settings", "seed", "model", "versions", "device", ...}],
     "pictures": {NAME: {"status", "run", "source", "source_sha256", "seed", "size", ...}}}

Written whole and renamed, before a result takes its place and after, so that a killed run leaves
one that can be read and that knows every result; the next run into the same folder adds to it.
"""

import dataclasses
import hashlib
import json
import re
import threading
from pathlib import Path
from typing import Any

from vosr_jax.errors import UserError
from vosr_jax.files import atomic

_FORMAT = 1
_NAME = re.compile(r"manifest(-\d+-of-\d+)?\.json")


def manifest_path(out: Path, index: int = 0, count: int = 1) -> Path:
    """The manifest of a run, or of one process's part of it."""
    part = "" if count == 1 else f"-{index:03}-of-{count:03}"
    return out / f"manifest{part}.json"


def is_manifest(path: Path) -> bool:
    """Whether a file is called like a manifest."""
    return _NAME.fullmatch(path.name) is not None


@dataclasses.dataclass(frozen=True)
class Record:
    """What made a result.

    Attributes:
      entry: of the picture.
      run: of the run that made it.
    """

    entry: dict[str, Any]
    run: dict[str, Any]

    def made(self, target: Path) -> bool:
        """Whether the file that lies there is whole and the one that was recorded.

        A run killed between writing a result and saying so leaves one that has only begun.
        """
        status = self.entry.get("status")
        if status == "begun":
            return _sha256(target) == self.entry.get("result_sha256")
        return status == "done"


def read_records(out: Path) -> dict[str, Record]:
    """{name: record} of all results in a folder, by all its manifests; the newest run's counts.

    Raises:
      UserError: a file with a manifest's name that is none.
    """
    records: dict[str, Record] = {}
    for path in sorted(out.glob("manifest*.json")) if out.is_dir() else ():
        if not is_manifest(path):
            continue
        content = _read(path)
        for name, entry in content["pictures"].items():
            number = entry.get("run") if isinstance(entry, dict) else None
            if not isinstance(number, int) or not 0 <= number < len(content["runs"]):
                continue
            record = Record(entry, content["runs"][number])
            other = records.get(name)
            if entry.get("status") not in ("done", "begun"):
                continue
            if other is None or _started(other) <= _started(record):
                records[name] = record
    return records


def _started(record: Record) -> str:
    return str(record.run.get("started", ""))


def results_in(folder: Path) -> set[str]:
    """Names of results and comparisons that a folder's manifests know; none where they do not."""
    try:
        records = read_records(folder)
    except UserError:
        return set()
    comparisons = {str(record.entry.get("comparison", "")) for record in records.values()}
    return (set(records) | comparisons) - {""}


class Manifest:
    """The manifest of a folder, open for one run. Safe to use from several threads.

    Args:
      path: the file; what it holds already is kept.
      run: what is the same for all pictures of this run.

    Raises:
      UserError: the file is there and no manifest of this format.
    """

    def __init__(self, path: Path, run: dict[str, Any]):
        atomic.remove_parts(path)
        self._path = path
        self._lock = threading.Lock()
        self._content = _read(path)
        self._content["runs"].append(run)
        self._number = len(self._content["runs"]) - 1

    def add(self, name: str, entry: dict[str, Any]) -> None:
        """Record a picture and write the file.

        Raises:
          UserError: it cannot be written.
        """
        with self._lock:
            self._content["pictures"][name] = {"run": self._number} | entry
            self._write()

    def add_comparison(self, name: str, record: Record, comparison: str) -> None:
        """Record that a result of an earlier run has a comparison now.

        Raises:
          UserError: it cannot be written.
        """
        with self._lock:
            runs = self._content["runs"]
            if record.run not in runs:
                runs.append(record.run)
            entry = record.entry | {"run": runs.index(record.run), "comparison": comparison}
            self._content["pictures"][name] = entry
            self._write()

    def _write(self) -> None:
        pictures = self._content["pictures"]
        content = self._content | {"pictures": {name: pictures[name] for name in sorted(pictures)}}
        atomic.write_json(self._path, content)


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


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
