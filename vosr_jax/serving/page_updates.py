"""Updates of the page during and after a click, by the names of its boxes."""

import html
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Set before the import of Gradio, or it would send usage data to its makers.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
import gradio as gr

from vosr_jax.errors import UserError
from vosr_jax.restoration.presets import PRESETS
from vosr_jax.serving import page_work
from vosr_jax.serving.fields import command_lines, read_fields
from vosr_jax.serving.refusals import Refusal, failed
from vosr_jax.serving.service import Service

_log = logging.getLogger(__name__)
_BAR = '<progress value="{:.4f}" style="width: 100%"></progress> {}'
# Updates for when no job runs.
NOTHING = {"state": gr.update(visible=False), "so_far": gr.update(value=None, visible=False)}


def run(service: Service, given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Restore a visitor's photos.

    Args:
      service: the service whose queue takes the photos.
      given: {name: content} of the boxes.

    Yields:
      {name: content} of the boxes that change.

    Raises:
      gr.Error: why nothing can be shown.
    """
    files, before = given.pop("files") or [], given.pop("visit")
    # Use the page's order, not that of the clicks.
    chosen = set(given.pop("presets"))
    presets = [name for name in ("", *PRESETS) if name in chosen] or [""]
    if not files:
        raise gr.Error("Choose a photograph first.", print_exception=False)
    close(before)
    uploads = [(Path(file).name, Path(file)) for file in files]
    # Gradio does not accept an empty dictionary.
    state: dict[str, Any] = {"state": gr.skip()}

    def tell(share: float, line: str) -> None:
        state["state"] = gr.HTML(_BAR.format(share, html.escape(line)), visible=True)

    finished = told = 0
    seen: Path | None = None
    visit: page_work.Visit | None = None
    try:
        fields = [read_fields(given | {"preset": preset}) for preset in presets]
        name, upscaler = service.model(fields[0].model)
        for one in fields:
            one.settings(upscaler)
        precisions = upscaler.model.precision, upscaler.model.autoencoder_precision
        call = command_lines([name for name, _ in uploads], fields, name, precisions)
        for visit in page_work.restore(service, uploads, fields, tell):
            for failure in visit.failures[told:]:
                gr.Warning(failure, duration=None)
            told = len(visit.failures)
            changed = dict(state)
            if visit.so_far != seen:
                seen = visit.so_far
                so_far = gr.Image(str(seen), visible=True) if seen else NOTHING["so_far"]
                changed["so_far"] = so_far
            if len(visit.pictures) != finished:
                finished = len(visit.pictures)
                changed |= _view(visit, call)
            yield changed
    except Exception as error:
        yield NOTHING
        raise gr.Error(_sentence(error), print_exception=False) from error
    yield NOTHING
    if visit is not None and not visit.pictures:
        raise gr.Error("No picture could be restored.", print_exception=False)


def _sentence(error: Exception) -> str:
    if isinstance(error, (Refusal, UserError)):
        return str(error)
    _log.error("a visit failed", exc_info=error)
    return str(failed())


def _view(visit: page_work.Visit, call: str) -> dict[str, Any]:
    """Update the page with all finished photos, the newest in the slider."""
    names = [(picture.title, number) for number, picture in enumerate(visit.pictures)]
    files = [str(picture.result) for picture in visit.pictures]
    return show(visit, len(names) - 1) | {
        "visit": visit,
        "chosen": gr.Radio(names, value=len(names) - 1, visible=len(names) > 1),
        "results": gr.File(files, visible=True),
        "command": gr.Code(call, visible=True),
    }


def show(visit: page_work.Visit | None, number: int) -> dict[str, Any]:
    """Show a result in the slider, and beside it the other results of the same upload."""
    if visit is None or not 0 <= number < len(visit.pictures):
        return {"slider": gr.skip()}
    picture = visit.pictures[number]
    variants = [other for other in visit.pictures if other.upload == picture.upload]
    images = [(str(other.after), other.variant) for other in variants]
    return {
        "slider": (str(picture.before), str(picture.after)),
        "beside": gr.Gallery(images, visible=bool(picture.variant)),
    }


def close(visit: page_work.Visit | None) -> None:
    """Remove a visit's files, if there is one."""
    if visit is not None:
        visit.close()
