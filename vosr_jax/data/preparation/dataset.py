"""The TensorFlow dataset "photographs": the images that pass the filters, in ArrayRecord shards.

The work is an Apache Beam pipeline, so the same code runs on one machine or many:

    ranges of positions → judge every picture ┬→ dropped, with the reason
                                              └→ share hash bands → later duplicates → dropped
    what is left → read the file again → write shards in an order of the records' keys

Images are read twice, because the groups of similar hashes should not carry pixels. A record has
the file's bytes, unchanged.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import tensorflow_datasets as tfds

from vosr_jax.data.pictures import UnreadablePicture, read_all
from vosr_jax.data.preparation import FilterSettings
from vosr_jax.data.preparation.filters import (
    DUPLICATE,
    UNREADABLE,
    Verdict,
    bands,
    duplicates_in,
    judge,
)
from vosr_jax.data.sources import Source, parse_sources
from vosr_jax.data.sources.source import in_memory

_RANGE = 64


class Photographs(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Builder of the dataset.

    Args:
      sources: text as in `data.sources`; weights are ignored here.
      settings: settings of the filters.
      report: folder for `counts.jsonl` and `dropped.jsonl`.
    """

    VERSION = tfds.core.Version("1.0.0")
    name = "photographs"

    def __init__(self, *, sources: str, settings: FilterSettings, report: Path, **options):
        self._sources_text, self._settings, self._report = sources, settings, report
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {"image": tfds.features.Image(shape=(None, None, 3)), "name": tfds.features.Text()}
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager, pipeline):
        return {"train": self._generate_examples(pipeline)}

    def _generate_examples(self, pipeline):
        text, settings = self._sources_text, self._settings
        judged = (
            pipeline
            | "Ranges" >> beam.Create(list(_ranges(parse_sources(text))))
            | "Spread the ranges" >> beam.Reshuffle()
            | "Judge" >> beam.ParDo(_Judge(text, settings))
        )
        fine = judged | "Fine" >> beam.Filter(lambda one: not one[2].reason)
        dropped = judged | "Not fine" >> beam.Filter(lambda one: bool(one[2].reason))
        kept = fine | "Names" >> beam.MapTuple(lambda rank, name, verdict: (rank, name))
        if settings.duplicate_distance >= 0:
            duplicates = (
                fine
                | "Bands" >> beam.FlatMap(_in_bands, settings.duplicate_distance)
                | "Like hashes" >> beam.GroupByKey()
                | "Repeats" >> beam.FlatMap(_repeats, settings.duplicate_distance)
                | "First of the likes" >> beam.CombinePerKey(min)
            )
            joined = {"name": kept, "earlier": duplicates} | "Join" >> beam.CoGroupByKey()
            kept = joined | "Singles" >> beam.FlatMap(_singles)
            repeated = joined | "Doubles" >> beam.FlatMap(_doubles)
            dropped = (dropped, repeated) | "All dropped" >> beam.Flatten()
        self._write_report(kept, dropped)
        return kept | "Spread the kept" >> beam.Reshuffle() | "Read" >> beam.ParDo(_Read(text))

    def _write_report(self, kept, dropped) -> None:
        reasons = (
            kept | "Kept" >> beam.Map(lambda one: "kept"),
            dropped | "Reasons" >> beam.Map(lambda one: one[2].reason),
        )
        _ = (
            reasons
            | beam.Flatten()
            | beam.combiners.Count.PerElement()
            | "Counts as text" >> beam.Map(json.dumps)
            | _one_file(self._report / "counts")
        )
        _ = (
            dropped
            | "Dropped as text" >> beam.Map(_dropped_line)
            | "List" >> _one_file(self._report / "dropped")
        )


def _one_file(stem: Path) -> beam.io.WriteToText:
    return beam.io.WriteToText(
        str(stem), file_name_suffix=".jsonl", shard_name_template="", num_shards=1
    )


def _ranges(sources: tuple[Source, ...]) -> Iterator[tuple[int, int, int, int]]:
    """Yield (index of the source, first and last position, rank of the first)."""
    rank = 0
    for number, source in enumerate(sources):
        for start in range(0, len(source), _RANGE):
            stop = min(start + _RANGE, len(source))
            yield number, start, stop, rank
            rank += stop - start


class _WithSources(beam.DoFn):
    """A DoFn that opens the sources in the process where it runs."""

    def __init__(self, text: str):
        self._text = text

    def setup(self) -> None:
        self._sources = parse_sources(self._text)


class _Judge(_WithSources):
    def __init__(self, text: str, settings: FilterSettings):
        super().__init__(text)
        self._settings = settings

    def process(self, element):
        number, start, stop, rank = element
        source = self._sources[number]
        for position in range(start, stop):
            try:
                verdict = judge(source.read(position), self._settings)
            except UnreadablePicture as error:
                verdict = Verdict(UNREADABLE, str(error))
            yield rank + position - start, source.record_name(position), verdict


class _Read(_WithSources):
    def process(self, element):
        rank, name = element
        first = 0
        for source in self._sources:
            if rank < first + len(source):
                break
            first += len(source)
        with source.open(rank - first) as file:
            data = read_all(file)
        yield f"{rank:015d}", {"image": in_memory(data), "name": name}


def _in_bands(judged: tuple[int, str, Verdict], distance: int):
    rank, name, verdict = judged
    for band in bands(verdict.hash, distance):
        yield band, (rank, name, verdict.hash)


def _repeats(group, distance: int):
    for rank, _, earlier in duplicates_in(group[1], distance):
        yield rank, earlier


def _singles(joined):
    rank, found = joined
    if not found["earlier"]:
        yield rank, *found["name"]


def _doubles(joined):
    rank, found = joined
    for earlier in found["earlier"]:
        (name,) = found["name"]
        yield rank, name, Verdict(DUPLICATE, f"of {earlier}")


def _dropped_line(dropped: tuple[int, str, Verdict]) -> str:
    _, name, verdict = dropped
    return json.dumps({"record": name, "reason": verdict.reason, "detail": verdict.detail})
