"""Running the preparation: from sources to a dataset's folder and a report of dropped images."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vosr_jax.data.preparation import FilterSettings
from vosr_jax.data.sources import parse_sources
from vosr_jax.errors import UserError

NAME, VERSION = "photographs", "1.0.0"


@dataclass(frozen=True)
class Prepared:
    """Result of a preparation.

    Attributes:
      folder: the dataset's folder; a path for `data.sources`.
      kept: number of images in it.
      dropped: {reason: number of dropped images}.
      report: JSON lines that name every dropped image and its reason.
    """

    folder: Path
    kept: int
    dropped: dict[str, int]
    report: Path


def prepare(
    sources: str,
    out: str | Path,
    settings: FilterSettings | None = None,
    *,
    runner: str = "DirectRunner",
    beam_options: Sequence[str] = (),
    max_shard_bytes: int = 1 << 30,
) -> Prepared:
    """Filter images and write them as the dataset "photographs" in ArrayRecord shards.

    Args:
      sources: text as in `data.sources`.
      out: folder of datasets (TFDS's data_dir).
      settings: settings of the filters.
      runner: Beam's name of the runner.
      beam_options: further options of Beam, as on its command line.
      max_shard_bytes: largest size of a shard.

    Raises:
      UserError: Beam is missing, the dataset already exists, or no image is left.
    """
    out = Path(out)
    folder = out / NAME / VERSION
    if folder.exists():
        raise UserError(f"{folder} exists already; remove it, or choose another folder for -o")
    parse_sources(sources)
    try:
        # Optional packages that take seconds to import; `dataset` needs them.
        import tensorflow_datasets as tfds
        from apache_beam.options.pipeline_options import PipelineOptions

        from vosr_jax.data.preparation.dataset import Photographs
    except ImportError as error:
        raise UserError(f"preparing needs pip install '.[prepare]' ({error})") from error
    try:
        out.mkdir(parents=True, exist_ok=True)
        report = Path(tempfile.mkdtemp(prefix=".report-", dir=out))
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); choose another -o") from error
    try:
        builder = Photographs(
            sources=sources,
            settings=settings or FilterSettings(),
            report=report,
            data_dir=str(out),
            file_format="array_record",
        )
        config = tfds.download.DownloadConfig(
            beam_runner=runner,
            beam_options=PipelineOptions(list(beam_options)),
            max_shard_size=max_shard_bytes,
            min_shard_size=min(max_shard_bytes, 1 << 26),
        )
        try:
            builder.download_and_prepare(download_config=config)
        except Exception as error:
            # TFDS's message for a dataset without records, wrapped by Beam.
            if "generated examples is 0" in str(error):
                raise UserError(
                    f"nothing is left of {sources}; loosen the filters, e.g. --min-side"
                ) from error
            raise
        counts = dict(json.loads(line) for line in (report / "counts.jsonl").open())
        kept = counts.pop("kept")
        (report / "dropped.jsonl").replace(folder / "dropped.jsonl")
        (report / "counts.jsonl").replace(folder / "counts.jsonl")
    finally:
        shutil.rmtree(report, ignore_errors=True)
    return Prepared(folder, kept, counts, folder / "dropped.jsonl")
