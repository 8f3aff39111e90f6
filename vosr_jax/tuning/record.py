"""Record of an output folder of `vosr train-on`; only the same command may resume there."""

import dataclasses
from pathlib import Path
from typing import Any

from vosr_jax.errors import UserError
from vosr_jax.files import write_json
from vosr_jax.files.json_file import read_json_object

NAME = "train-on.json"


@dataclasses.dataclass
class Record:
    """An output folder's content.

    Attributes:
      model: the base, as it was named.
      sha256: of the base's values.
      rank: of the adapters; 0: all weights are trained.
      folder: of the photos.
      training, held_out: files, relative to it.
      seconds: spent by commands on training and evaluation so far.
    """

    model: str
    sha256: str
    rank: int
    folder: str
    training: list[str]
    held_out: list[str]
    seconds: float = 0.0

    def write(self, out: Path) -> None:
        """Write the record into its folder."""
        write_json(out / NAME, dataclasses.asdict(self))


def read_record(out: Path) -> Record | None:
    """The record of an output folder; None if the folder is new or empty.

    Raises:
      UserError: it holds something else, or the record is damaged.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"-o {out} is a file; name a new folder")
    if not out.exists() or not any(out.iterdir()):
        return None
    if not (out / NAME).is_file():
        raise UserError(
            f"-o {out} is not empty and no folder of vosr train-on; choose a new folder"
        )
    values = read_json_object(out / NAME)
    try:
        return Record(**values)
    except TypeError as error:
        raise UserError(f"{out / NAME} is damaged ({error}); choose a new folder") from error


def require_same(record: Record, asked: dict[str, Any], out: Path) -> None:
    """Refuse to resume with another base, rank or folder.

    Args:
      record: of the output folder.
      asked: some of its fields, as this command has them.
      out: the folder.

    Raises:
      UserError: one differs; the message names it.
    """
    called = {"model": "-m", "rank": "--rank", "folder": "the photographs of"}
    for key, name in called.items():
        before, now = getattr(record, key), asked[key]
        if before == now:
            continue
        if key == "rank":
            before, now = (value or "--full" for value in (before, now))
        raise UserError(
            f"-o {out} holds another run ({name} {before}, not {now}); give the same to go on, or "
            "choose a new folder"
        )
    if record.sha256 != asked["sha256"]:
        raise UserError(
            f"-o {out} was begun with another {record.model}, whose weights have changed since; "
            "choose a new folder"
        )
