"""ArrayRecord shards: bare ones whose records are image files, and TensorFlow Datasets."""

import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl

from vosr_jax.data.pictures import UnreadablePicture
from vosr_jax.data.sources.source import Source, in_memory
from vosr_jax.errors import UserError
from vosr_jax.files import is_remote, reason_of, to_path
from vosr_jax.files.cached import local_copies, local_folder

_SHARD = re.compile(r"-of-\d+$")


@dataclass(frozen=True, eq=False)
class _Opened(Source):
    """A source with an open reader; every process opens its own."""

    @functools.cached_property
    def _records(self) -> Any:
        return self._open_records()

    def _open_records(self) -> Any:
        raise NotImplementedError

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key != "_records"}

    def __len__(self) -> int:
        return len(self._records)

    def _record(self, position: int) -> Any:
        if not 0 <= position < len(self):
            raise IndexError(f"record {position} of {len(self)}")
        try:
            return self._records[position]
        except Exception as error:
            # The readers raise errors of any kind from their C++ parts.
            raise UnreadablePicture(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True, eq=False)
class ArrayRecordSource(_Opened):
    """ArrayRecord files; every record is the content of an image file."""

    paths: tuple[str, ...]

    def _open_records(self) -> Any:
        try:
            # An optional package.
            from array_record.python.array_record_data_source import ArrayRecordDataSource
        except ImportError as error:
            raise UserError("ArrayRecord shards need pip install array_record") from error
        return ArrayRecordDataSource(self.paths)

    def record_name(self, position: int) -> str:
        return f"{self.name}[{position}]"

    def open(self, position: int) -> BinaryIO:
        return in_memory(self._record(position))


@dataclass(frozen=True, eq=False)
class TfdsSource(_Opened):
    """One split of a dataset that TensorFlow Datasets prepared as ArrayRecord.

    Attributes:
      dataset: its name, with configuration and version if wanted; or "" if `folder` is that of
        one version of a dataset.
      folder: the folder of datasets (TFDS's `data_dir`), None for TFDS's own.
      split: e.g. "train" or "train[:90%]".
    """

    dataset: str
    folder: str | None
    split: str

    def _open_records(self) -> Any:
        try:
            # An optional package that takes seconds to import.
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise UserError(
                "TensorFlow Datasets need pip install tensorflow-datasets array_record"
            ) from error
        try:
            if not self.dataset:
                builder = tfds.builder_from_directory(self.folder)
            else:
                builder = tfds.builder(self.dataset, data_dir=self.folder)
            pictures = _picture_features(builder.info.features, tfds)
            if not pictures:
                raise UserError(f"data.sources: {self.name} has no feature of pictures")
            undecoded = {feature: tfds.decode.SkipDecoding() for feature in pictures}
            if self.dataset:
                records = tfds.data_source(
                    self.dataset,
                    split=self.split,
                    data_dir=self.folder,
                    decoders=undecoded,
                    download=False,
                )
            else:
                records = builder.as_data_source(self.split, decoders=undecoded)
        except UserError:
            raise
        except Exception as error:
            # TFDS raises many kinds of errors, some with pages of text.
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"data.sources: {self.name} cannot be opened ({reason[0]}); prepare it with "
                "file_format=array_record, or name its folder with ?data_dir="
            ) from error
        return _FirstPicture(records, pictures[0])

    def record_name(self, position: int) -> str:
        return f"{self.name}[{position}]"

    def open(self, position: int) -> BinaryIO:
        return in_memory(self._record(position))


class _FirstPicture:
    """Gives the encoded image of an example, without decoding it."""

    def __init__(self, records, feature: str):
        self._records, self._feature = records, feature

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, position: int) -> bytes:
        return self._records[position][self._feature]


def _picture_features(features, tfds) -> list[str]:
    return [name for name, one in features.items() if isinstance(one, tfds.features.Image)]


def array_record_source(name: str, paths: Sequence[str], weight: float = 1.0) -> ArrayRecordSource:
    """Make a source of bare ArrayRecord files, in the given order.

    Raises:
      UserError: a file is not an ArrayRecord file, or there is no record.
    """
    # The reader's C++ code cannot read buckets.
    source = ArrayRecordSource(name, weight, tuple(map(str, local_copies(paths))))
    return _not_empty(source)


def tfds_source(text: str, weight: float = 1.0) -> TfdsSource:
    """Open a dataset by name.

    Args:
      text: `name[/configuration][:version][?split=...&data_dir=...]`.

    Raises:
      UserError: there is no such dataset, or it has no images.
    """
    dataset, _, options = text.partition("?")
    given = dict(parse_qsl(options, keep_blank_values=True))
    unknown = set(given) - {"split", "data_dir"}
    if unknown or not dataset:
        raise UserError(
            f"data.sources: tfds:{text} is unclear; write tfds:name[?split=...&data_dir=...]"
        )
    split, data_dir = given.get("split", "train"), given.get("data_dir")
    if data_dir is not None and is_remote(data_dir):
        folder = _local_dataset(_version_folder(dataset, data_dir), split)
        return _not_empty(TfdsSource(f"tfds:{text}", weight, "", str(folder), split))
    return _not_empty(TfdsSource(f"tfds:{text}", weight, dataset, data_dir, split))


def tfds_folder_source(folder: str, weight: float = 1.0) -> TfdsSource:
    """Open the training split of a prepared dataset by the folder of one of its versions."""
    local = str(_local_dataset(folder, "train"))
    return _not_empty(TfdsSource(folder, weight, "", local, "train"))


def _version_folder(dataset: str, data_dir: str) -> str:
    """Find the folder of one version of a dataset in a bucket."""
    to_path(data_dir)
    try:
        # As in `TfdsSource`.
        import tensorflow_datasets as tfds

        return os.fspath(tfds.builder(dataset, data_dir=data_dir).data_path)
    # TFDS raises many kinds of errors, some with pages of text.
    except Exception as error:
        raise UserError(
            f"data.sources: tfds:{dataset} cannot be found in {data_dir} ({reason_of(error)})"
        ) from error


def _local_dataset(folder: str, split: str) -> Path:
    """A local folder of a prepared dataset; from a bucket only the split is copied."""
    splits = re.findall(r"[A-Za-z_]\w*", split)

    def wanted(name: str) -> bool:
        return not _SHARD.search(name) or any(f"-{one}." in name for one in splits)

    return local_folder(folder, wanted)


def _not_empty(source):
    try:
        length = len(source)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"data.sources: {source.name} cannot be opened ({error})") from error
    if not length:
        raise UserError(f"data.sources: {source.name} holds no records")
    return source
