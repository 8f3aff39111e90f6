"""The page: photographs in, a slider between before and after, files out."""

import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before Gradio is imported: nothing of what happens here is told elsewhere.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
import gradio as gr
from fastapi import FastAPI

from vosr_jax.errors import UserError
from vosr_jax.restoration.presets import PRESETS
from vosr_jax.serving import visits
from vosr_jax.serving.fields import TILE_SIZES, read_fields
from vosr_jax.serving.refusals import Refusal, failed
from vosr_jax.serving.service import Service
from vosr_jax.weights.resolve import SHIPPED

_log = logging.getLogger(__name__)
_OWN = "the model's own"
_ONE_HOUR = 3600
_SMALL = (
    "**{} is a small model**: it firms up edges and letters and takes noise and blocks off, but "
    "invents little. It brings back no faces, hair or leaves that the picture does not show; the "
    "full models of `vosr serve -m 2.0` do more."
)
_CSS = """
.gradio-container { max-width: 1280px !important; margin: 0 auto !important; }
"""
# Fonts of the visitor's own machine, so that nothing is fetched from elsewhere.
_FONT = ["system-ui", "sans-serif"]
_MONO = ["ui-monospace", "monospace"]


def mount_page(app: FastAPI, service: Service) -> None:
    """Put the page at the application's root, behind a login where the service has a token."""
    token = service.settings.token

    def may_enter(user: str, password: str) -> bool:
        return secrets.compare_digest(password.encode(), (token or "").encode())

    gr.mount_gradio_app(
        app,
        build_page(service),
        path="/",
        auth=None if token is None else may_enter,
        auth_message="Any name will do; the password is the service's token.",
        max_file_size=service.settings.max_bytes,
        show_error=False,
        ssr_mode=False,
        run_history=False,
        footer_links=[],
        css=_CSS,
        theme=gr.themes.Default(font=_FONT, font_mono=_MONO),
    )


def build_page(service: Service) -> gr.Blocks:
    """The page of a service, not mounted yet."""
    with gr.Blocks(
        title="vosr", analytics_enabled=False, delete_cache=(_ONE_HOUR // 4, _ONE_HOUR)
    ) as page:
        gr.Markdown("# vosr\nRestore and enlarge photographs.")
        visit = gr.State(None, time_to_live=_ONE_HOUR, delete_callback=_close)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                files = gr.File(
                    label="Photographs", file_count="multiple", file_types=["image"], height=170
                )
                scale = gr.Slider(1, 8, value=4, step=0.25, label="Factor")
                preset = gr.Radio(
                    [("own", ""), *PRESETS],
                    value="",
                    label="Preset",
                    info=f"own: {_OWN}; faithful keeps to the picture, creative changes more",
                )
                with gr.Accordion("Settings", open=False):
                    settings = _settings(service)
                with gr.Row():
                    stop = gr.Button("Stop", min_width=80, scale=1)
                    start = gr.Button("Upscale", variant="primary", min_width=160, scale=3)
            with gr.Column(scale=3, min_width=300):
                slider = gr.ImageSlider(
                    label="Enlarged only | restored",
                    type="filepath",
                    interactive=False,
                    max_height=480,
                    buttons=["fullscreen"],
                )
                chosen = gr.Radio([], label="Shown", visible=False)
                results = gr.File(
                    label="Results", file_count="multiple", interactive=False, visible=False
                )
                command = gr.Code(
                    label="The same at the command line",
                    language="shell",
                    interactive=False,
                    lines=1,
                    wrap_lines=True,
                    visible=False,
                    elem_id="command",
                )
                note = gr.Markdown(_note(service.names[0]))
        inputs = {"files": files, "scale": scale, "preset": preset, "visit": visit} | settings
        outputs = [visit, slider, chosen, results, command]

        def run(given: dict[Any, Any], progress=gr.Progress()) -> Iterator[Any]:  # noqa: B008
            yield from _run(service, {key: given[box] for key, box in inputs.items()}, progress)

        running = start.click(
            run,
            set(inputs.values()),
            outputs,
            show_progress_on=slider,
            concurrency_limit=service.settings.queue,
            api_visibility="private",
        )
        stop.click(None, cancels=[running], api_visibility="private")
        chosen.input(_show, [visit, chosen], slider, api_visibility="private")

        def chosen_model(name: str) -> tuple[str, Any]:
            return _note(name), _guidance(service, name)

        for event in (settings["model"].change, page.load):
            event(
                chosen_model,
                settings["model"],
                [note, settings["guidance_scale"]],
                api_visibility="private",
            )
    return page


def _settings(service: Service) -> dict[str, Any]:
    # Gradio's box for numbers shows 0 where it is empty, and sends it.
    return {
        "model": gr.Dropdown(service.names, value=service.names[0], label="Model"),
        "strength": gr.Textbox(
            label="Strength", info="0 (bicubic) to 2", placeholder="1", max_lines=1
        ),
        "guidance_scale": gr.Textbox(
            label="Guidance scale", info="below 1 invents more", placeholder=_OWN, max_lines=1
        ),
        "steps": gr.Textbox(label="Steps", info="1 to 200", placeholder=_OWN, max_lines=1),
        "seed": gr.Textbox("0", label="Seed", info="of the noise", max_lines=1),
        "colour_fix": gr.Dropdown(
            [(_OWN, ""), "wavelet", "adain", "none"], value="", label="Colour fix"
        ),
        "tile_size": gr.Dropdown(list(TILE_SIZES), value="auto", label="Tile size"),
    }


def _run(service: Service, given: dict[str, Any], progress: Any) -> Iterator[Any]:
    files, before = given.pop("files") or [], given.pop("visit")
    if not files:
        raise gr.Error("Choose a photograph first.", print_exception=False)
    _close(before)
    uploads = [(Path(file).name, Path(file)) for file in files]

    def tell(share: float, line: str) -> None:
        progress(share, desc=line)

    shown = told = 0
    visit: visits.Visit | None = None
    try:
        fields = read_fields(given)
        name, upscaler = service.model(fields.model)
        fields.settings(upscaler)
        call = visits.command_line(
            [name for name, _ in uploads], fields, name, upscaler.model.precision
        )
        for visit in visits.restore(service, uploads, fields, tell):
            for failure in visit.failures[told:]:
                gr.Warning(failure, duration=None)
            told = len(visit.failures)
            if len(visit.pictures) == shown:
                yield (gr.skip(),) * 5
            else:
                shown = len(visit.pictures)
                yield _view(visit, call)
    except Exception as error:
        raise gr.Error(_sentence(error), print_exception=False) from error
    if visit is not None and not visit.pictures:
        raise gr.Error("No picture could be restored.", print_exception=False)


def _sentence(error: Exception) -> str:
    if isinstance(error, (Refusal, UserError)):
        return str(error)
    _log.error("a visit failed", exc_info=error)
    return str(failed())


def _view(visit: visits.Visit, call: str) -> tuple[Any, ...]:
    names = [(picture.name, number) for number, picture in enumerate(visit.pictures)]
    last = visit.pictures[-1]
    radio = gr.Radio(names, value=len(names) - 1, visible=len(names) > 1)
    files = gr.File([str(picture.result) for picture in visit.pictures], visible=True)
    return visit, (str(last.before), str(last.after)), radio, files, gr.Code(call, visible=True)


def _show(visit: visits.Visit | None, number: int) -> Any:
    if visit is None or not 0 <= number < len(visit.pictures):
        return gr.skip()
    picture = visit.pictures[number]
    return str(picture.before), str(picture.after)


def _note(name: str) -> str:
    return _SMALL.format(name) if name in SHIPPED else ""


def _guidance(service: Service, name: str) -> Any:
    """The guidance's box, which a model without guidance does not have."""
    try:
        return gr.Textbox("", visible=service.describe(name)["guided"])
    except Refusal:
        return gr.skip()


def _close(visit: visits.Visit | None) -> None:
    if visit is not None:
        visit.close()
