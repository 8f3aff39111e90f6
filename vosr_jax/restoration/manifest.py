"""manifest.json beside the results of a run: how each result was made, and what failed.

    {"format": 1,
     "runs": [{"started", "settings", "seed", "model", "versions", "device", ...}],
     "pictures": {NAME: {"status", "run", "source", "source_sha256", "seed", "size", ...}}}

It is written to a temporary file and renamed, before and after each result is written. A killed
run therefore leaves a readable manifest that lists every result. The next run into the same folder
adds to it.
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
    """Whether a file has a manifest's name."""
    return _NAME.fullmatch(path.name) is not None


@dataclasses.dataclass(frozen=True)
class Record:
    """How a result was made.

    Attributes:
      entry: the manifest's entry of the photo.
      run: the manifest's entry of the run that made it.
    """

    entry: dict[str, Any]
    run: dict[str, Any]

    def made(self, target: Path) -> bool:
        """Whether the file at `target` is complete and is the recorded one.

        A run killed between writing a result and recording it leaves the status "begun".
        """
        status = self.entry.get("status")
        if status == "begun":
            return _sha256(target) == self.entry.get("result_sha256")
        return status == "done"


def read_records(out: Path) -> dict[str, Record]:
    """Read {name: record} of all results from a folder's manifests; the newest run wins.

    Raises:
      UserError: a file has a manifest's name but is not one.
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
    """Names of the results and comparisons in a folder's manifests; empty if unreadable."""
    try:
        records = read_records(folder)
    except UserError:
        return set()
    comparisons = {str(record.entry.get("comparison", "")) for record in records.values()}
    return (set(records) | comparisons) - {""}


class Manifest:
    """The manifest of a folder, open for one run. Safe to use from several threads.

    Args:
      path: the file; its existing entries are kept.
      run: the facts that all photos of this run share.

    Raises:
      UserError: the file exists but is not a manifest of this format.
    """

    def __init__(self, path: Path, run: dict[str, Any]):
        atomic.remove_parts(path)
        self._path = path
        self._lock = threading.Lock()
        self._content = _read(path)
        self._content["runs"].append(run)
        self._number = len(self._content["runs"]) - 1

    def add(self, name: str, entry: dict[str, Any]) -> None:
        """Record a photo and write the file.

        Raises:
          UserError: it cannot be written.
        """
        with self._lock:
            self._content["pictures"][name] = {"run": self._number} | entry
            self._write()

    def add_comparison(self, name: str, record: Record, comparison: str) -> None:
        """Record that a result of an earlier run now has a comparison.

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
