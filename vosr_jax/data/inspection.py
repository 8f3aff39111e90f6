"""Looking at what a source gives, and how fast."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from PIL import Image

from vosr_jax.data.contact_sheet import contact_sheet
from vosr_jax.data.pipeline import PipelineSettings, places, sample_maker
from vosr_jax.data.samples import BadRecord, Sample
from vosr_jax.data.sources import parse_sources
from vosr_jax.data.workers import use_one_core
from vosr_jax.errors import UserError


@dataclass(frozen=True)
class Inspection:
    """What was seen.

    Attributes:
      sheet: the contact sheet.
      sources: (name, pictures, share of the samples).
      pairs_per_second: of processor time, on one core: from file to pair, and degrading alone.
      degraded_per_second: the latter.
      bad: records that could not be read.
      enlarged: samples whose picture was smaller than the crop.
      seen: samples looked at.
    """

    sheet: Image.Image
    sources: list[tuple[str, int, float]]
    pairs_per_second: float
    degraded_per_second: float
    bad: list[BadRecord]
    enlarged: int
    seen: int


def inspect(settings: PipelineSettings, count: int, seconds: float = 5.0) -> Inspection:
    """Make the run's first samples, draw some and time all.

    Args:
      settings: of the run; the cache is left out, so that the rate is that of reading.
      count: pairs on the sheet.
      seconds: for how long samples are made.

    Raises:
      UserError: a source is wrong, or nothing can be read.
    """
    # In a process of its own, which takes one core as the run's workers do.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=use_one_core) as process:
        return process.submit(_inspect, settings, count, seconds).result()


def _inspect(settings: PipelineSettings, count: int, seconds: float) -> Inspection:
    sources = parse_sources(settings.sources)
    maker = sample_maker(settings, sources, keep_plans=True)
    order = places(settings, sources)
    shown: list[Sample] = []
    names: list[str] = []
    bad: dict[str, BadRecord] = {}
    enlarged = index = 0
    began, cpu = time.monotonic(), time.process_time()
    while index < count or time.monotonic() - began < seconds:
        place = order[index]
        sample = maker(index, place)
        if sample.lost:
            raise UserError(f"data.sources: no picture of {sample.bad[0].source} can be read")
        bad |= {one.record: one for one in sample.bad}
        enlarged += sample.enlarged
        if len(shown) < count:
            shown.append(sample)
            names.append(sources[place[0]].record_name(place[1]))
        index += 1
    spent = time.process_time() - cpu
    cpu, again = time.process_time(), 0
    while again < count or time.process_time() - cpu < seconds / 4:
        sample = shown[again % count]
        assert sample.plan is not None
        sample.plan.apply(sample.hr)
        again += 1
    degraded = time.process_time() - cpu
    total = sum(source.weight for source in sources)
    return Inspection(
        contact_sheet(shown, names),
        [(source.name, len(source), source.weight / total) for source in sources],
        index / spent,
        again / degraded,
        list(bad.values()),
        enlarged,
        index,
    )
