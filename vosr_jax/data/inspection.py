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


def inspect(
    settings: PipelineSettings,
    count: int,
    seconds: float = 5.0,
    indices: tuple[int, ...] = (),
) -> Inspection:
    """Make a run's samples, draw some and time all.

    Args:
      settings: of the run; the cache is left out, so that the rate is that of reading.
      count: pairs on the sheet, the first of the run.
      seconds: for how long samples are made.
      indices: positions in the endless sequence of samples, to be drawn instead of the first.

    Raises:
      UserError: a source is wrong, or nothing can be read.
    """
    # In a process of its own, which takes one core as the run's workers do.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=use_one_core) as process:
        return process.submit(_inspect, settings, count, seconds, indices).result()


def _inspect(
    settings: PipelineSettings, count: int, seconds: float, indices: tuple[int, ...]
) -> Inspection:
    sources = parse_sources(settings.sources)
    maker = sample_maker(settings, sources, keep_plans=True)
    order = places(settings, sources)
    shown: list[Sample] = []
    names: list[str] = []
    bad: dict[str, BadRecord] = {}
    enlarged = made = 0
    count = len(indices) or count
    began, cpu = time.monotonic(), time.process_time()
    while made < count or time.monotonic() - began < seconds:
        index = indices[made % count] if indices else made
        place = order[index]
        sample = maker(index, place)
        if sample.lost:
            raise UserError(f"data.sources: no picture of {sample.bad[0].source} can be read")
        bad |= {one.record: one for one in sample.bad}
        enlarged += sample.enlarged
        if len(shown) < count:
            shown.append(sample)
            name = sources[place[0]].record_name(place[1])
            names.append(f"{index}: {name}" if indices else name)
        made += 1
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
        made / spent,
        again / degraded,
        list(bad.values()),
        enlarged,
        made,
    )
