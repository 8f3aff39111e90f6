"""Inspection of a source: what samples it gives, on a contact sheet, and how fast."""

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vosr_jax.data.degradation import DegradationPlan
from vosr_jax.data.pipeline import PipelineSettings, places, sample_maker
from vosr_jax.data.samples import BadRecord, Sample
from vosr_jax.data.sources import parse_sources
from vosr_jax.data.workers import use_one_core
from vosr_jax.errors import UserError

_MARGIN = 8
_LINE = 15
_FONT_SIZE = 12
_BACKGROUND, _INK, _FAINT = "#ffffff", "#202020", "#707070"


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


def describe_plan(plan: DegradationPlan) -> list[str]:
    """Describe every operation in one line, with its visible parameters."""
    return [_describe(one) for one in plan.describe()]


def _describe(operation: dict) -> str:
    kind = operation["operation"]
    if kind == "Blur":
        kernel = operation["kernel"]
        if kernel["family"] == "sinc":
            return f"blur: sinc {kernel['size']} px, cutoff {kernel['cutoff']:.2f}"
        sigmas = f"sigma {kernel['sigma_x']:.2f}"
        if kernel["family"].endswith("aniso"):
            sigmas += f" x {kernel['sigma_y']:.2f}, {np.degrees(kernel['theta']):.0f} deg"
        return f"blur: {kernel['family']} {kernel['size']} px, {sigmas}"
    if kind == "ResizeBy":
        return f"resize: {operation['mode']} x{operation['scale_factor']:.2f}"
    if kind in ("ReduceTo", "EnlargeTo"):
        how = operation.get("filter", "bicubic")
        return f"eight bits: {how} to {operation['width']}x{operation['height']}"
    if kind == "ResizeTo":
        return f"resize: {operation['mode']} to {operation['width']}x{operation['height']}"
    if kind in ("GaussianNoise", "PoissonNoise"):
        amount = operation.get("sigma", operation.get("scale"))
        grey = ", grey" if operation["grey"] else ""
        return f"noise: {kind.removesuffix('Noise').lower()} {amount:.2f}{grey}"
    if kind == "Jpeg":
        return f"jpeg: quality {operation['quality']:.1f}, {operation['variant']}"
    if kind == "ColourJitter":
        return f"{operation['kind']} {operation['amount']:.2f}"
    return "grey"


def contact_sheet(samples: Sequence[Sample], names: Sequence[str], columns: int = 2) -> Image.Image:
    """Draw pairs: HR on the left, LQ on the right, the plan below; `columns` pairs per row.

    Args:
      samples: samples with their plans; all of one size.
      names: label of each sample.
      columns: pairs next to each other.
    """
    side = samples[0].hr.shape[0]
    texts = [_text(sample, name) for sample, name in zip(samples, names, strict=True)]
    width = 2 * side + 3 * _MARGIN
    height = side + max(map(len, texts)) * _LINE + 3 * _MARGIN
    rows = -(-len(samples) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    for number, (sample, lines) in enumerate(zip(samples, texts, strict=True)):
        left = number % columns * width + _MARGIN
        top = number // columns * height + _MARGIN
        sheet.paste(Image.fromarray(sample.hr), (left, top))
        sheet.paste(Image.fromarray(sample.lq), (left + side + _MARGIN, top))
        for line, text in enumerate(lines):
            place = left, top + side + _MARGIN // 2 + line * _LINE
            draw.text(
                place,
                _fitting(draw, font, text, width - _MARGIN),
                font=font,
                fill=_INK if line == 0 else _FAINT,
            )
    return sheet


def _text(sample: Sample, name: str) -> list[str]:
    notes = [note for note, holds in _notes(sample) if holds]
    if sample.plan is not None:
        notes.insert(0, f"[{sample.plan.recipe}]")
    lines = [" ".join([name, *notes])]
    if sample.plan is not None:
        lines += describe_plan(sample.plan)
    return lines


def _notes(sample: Sample):
    yield "(replaced)", bool(sample.bad)
    yield "(enlarged)", sample.enlarged


def _fitting(draw: ImageDraw.ImageDraw, font, text: str, width: int) -> str:
    """Shorten a text to the width by keeping its end, the most telling part of a path."""
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength("..." + text, font) > width:
        text = text[1:]
    return "..." + text
