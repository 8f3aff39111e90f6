"""A job's figures in a JSON file, written whole after every one of them."""

import datetime
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vosr_jax.files import write_json


def first_line(error: BaseException) -> str:
    """What an error says, in a line that a table holds."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:300]}" if said else type(error).__name__


class Record:
    """Figures by name, and the machine that they are of.

    Args:
      file: where they are written.
    """

    def __init__(self, file: str | Path):
        self._file = Path(file)
        self._content: dict[str, Any] = {"machine": {}, "figures": {}}

    def note_machine(self) -> None:
        """What JAX computes on here."""
        import jax

        device = jax.devices()[0]
        self._content["machine"] = {
            "device": device.device_kind,
            "platform": device.platform,
            "cores": len(os.sched_getaffinity(0)),
            "jax": jax.__version__,
            "date": datetime.date.today().isoformat(),
        }
        self._write()

    def note(self, name: str, figures: dict[str, Any]) -> None:
        """Keep figures under a name, which replaces earlier ones."""
        self._content["figures"][name] = figures
        self._write()

    def measure(self, name: str, function: Callable[[], dict[str, Any]]) -> bool:
        """Keep what a function returns, or its error; whether it returned."""
        try:
            self.note(name, function())
        except Exception as error:
            self.note(name, {"error": first_line(error)})
            return False
        return True

    def _write(self) -> None:
        write_json(self._file, self._content)
