"""Inspection of a source: what samples it gives, and how fast."""

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
    """Result of an inspection.

    Attributes:
      sheet: the contact sheet.
      sources: (name, number of images, share of the samples).
      pairs_per_second: pairs per second of CPU time on one core, from file to pair.
      degraded_per_second: the same for degrading alone.
      bad: records that could not be read.
      enlarged: number of samples whose image was smaller than the crop.
      seen: number of samples made.
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
    """Make a run's samples, show some on a contact sheet and time all.

    Args:
      settings: the run's settings; the caller sets cache_bytes to 0, or the rate would not be that
        of reading.
      count: number of pairs on the sheet, the first of the run.
      seconds: how long to make samples.
      indices: positions in the endless sequence of samples to show instead of the first.

    Raises:
      UserError: a source is wrong, or nothing can be read.
    """
    # Use a separate process limited to one core, as the run's workers are.
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
