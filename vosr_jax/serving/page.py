"""The page: upload of photos, a slider between before and after, download of results."""

import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import FastAPI

from vosr_jax.restoration.presets import PRESETS
from vosr_jax.serving import page_updates, page_work
from vosr_jax.serving.fields import TILE_SIZES
from vosr_jax.serving.page_updates import gr
from vosr_jax.serving.refusals import Refusal
from vosr_jax.serving.service import Service
from vosr_jax.weights.model_names import SHIPPED
from vosr_jax.weights.publish import LIMITS

_ONE_HOUR = 3600
# Fonts of the visitor's machine: nothing is fetched from other servers.
_FONT = ["system-ui", "sans-serif"]
_MONO = ["ui-monospace", "monospace"]
_OWN = "the model's own"
_SMALL = (
    "**{} is a small model**: it firms up edges and letters and takes noise and blocks off, but "
    "invents little. It brings back no faces, hair or leaves that the picture does not show; the "
    "full models of `vosr serve -m 2.0` do more."
)
_CSS = """
.gradio-container { max-width: 1280px !important; margin: 0 auto !important; }
#beside .grid-wrap { max-height: none; }
#beside img { object-position: var(--look-x, 50%) var(--look-y, 50%); }
"""
# Show the same detail in all images side by side: the one under the pointer in any of them.
_LOOK = """() => document.addEventListener("pointermove", (event) => {
    const image = event.target.closest("#beside button")?.querySelector("img");
    if (!image) return;
    const box = image.getBoundingClientRect(), style = image.closest("#beside").style;
    style.setProperty("--look-x", 100 * (event.clientX - box.left) / box.width + "%");
    style.setProperty("--look-y", 100 * (event.clientY - box.top) / box.height + "%");
})"""


def mount_page(app: FastAPI, service: Service) -> None:
    """Mount the page at the application's root, behind a login if the service has a token."""
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
    """Build a service's page without mounting it."""
    with gr.Blocks(
        title="vosr", analytics_enabled=False, delete_cache=(_ONE_HOUR // 4, _ONE_HOUR)
    ) as page:
        gr.Markdown("# vosr\nRestore and enlarge photographs.")
        visit = gr.State(None, time_to_live=_ONE_HOUR, delete_callback=page_updates.close)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                files = gr.File(
                    label="Photographs", file_count="multiple", file_types=["image"], height=170
                )
                scale = gr.Slider(1, 8, value=4, step=0.25, label="Factor")
                presets = _presets_box()
                with gr.Accordion("Settings", open=False):
                    settings = _settings_boxes(service)
                with gr.Row():
                    stop = gr.Button("Stop", min_width=80, scale=1)
                    start = gr.Button("Upscale", variant="primary", min_width=160, scale=3)
            with gr.Column(scale=3, min_width=300):
                shown = _result_boxes(service)
        inputs = {"files": files, "scale": scale, "presets": presets, "visit": visit} | settings
        shown["visit"] = visit

        def run(given: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
            for made in page_updates.run(service, {key: given[box] for key, box in inputs.items()}):
                yield {shown[key]: value for key, value in made.items()}

        def show(visit: page_work.Visit | None, number: int) -> dict[Any, Any]:
            return {shown[key]: value for key, value in page_updates.show(visit, number).items()}

        running = start.click(
            run,
            set(inputs.values()),
            list(shown.values()),
            show_progress="hidden",
            concurrency_limit=service.settings.queue,
            api_visibility="private",
        )
        at_work = [shown["state"], shown["so_far"]]
        stop.click(
            lambda: tuple(page_updates.NOTHING.values()),
            None,
            at_work,
            cancels=[running],
            api_visibility="private",
        )
        shown["chosen"].input(
            show,
            [visit, shown["chosen"]],
            [shown["slider"], shown["beside"]],
            api_visibility="private",
        )
        page.load(None, js=_LOOK)
        _follow_model(page, service, settings["model"], [shown["note"], settings["guidance_scale"]])
    return page


def _follow_model(page: gr.Blocks, service: Service, box: gr.Dropdown, shown: list) -> None:
    """Keep the note and the guidance box those of the model that is chosen."""

    def chosen_model(name: str) -> tuple[str, Any]:
        """Update the model's note, and the guidance box, which not every model has."""
        try:
            about = service.describe(name)
        except Refusal:
            return _model_note(name, ()), gr.skip()
        return _model_note(name, about["notes"]), gr.Textbox("", visible=about["guided"])

    for event in (box.change, page.load):
        event(
            chosen_model,
            box,
            shown,
            api_visibility="private",
        )


def _presets_box() -> gr.CheckboxGroup:
    """Make the box of presets; "" is the model's own."""
    return gr.CheckboxGroup(
        [("own", ""), *PRESETS],
        value=[""],
        label="Presets",
        info=f"own: {_OWN}; faithful keeps to the picture, creative changes more; "
        "several: side by side",
    )


def _settings_boxes(service: Service) -> dict[str, Any]:
    """Make a box for each of the other fields."""
    # Not Gradio's number box: an empty one shows and sends 0.
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


def _result_boxes(service: Service) -> dict[str, Any]:
    """Make the boxes for running and finished jobs, from top to bottom."""
    return {
        "state": gr.HTML(visible=False, elem_id="state"),
        "so_far": gr.Image(
            label="So far: finished tiles in the enlarged picture",
            type="filepath",
            interactive=False,
            height=360,
            buttons=[],
            visible=False,
        ),
        "slider": gr.ImageSlider(
            label="Enlarged only | restored",
            type="filepath",
            interactive=False,
            max_height=480,
            buttons=["fullscreen"],
        ),
        "chosen": gr.Radio([], label="Shown", visible=False),
        "beside": gr.Gallery(
            label="Side by side, pixel by pixel: point at a place to see it in all",
            columns=2,
            object_fit="none",
            interactive=False,
            buttons=[],
            visible=False,
            elem_id="beside",
        ),
        "results": gr.File(
            label="Results", file_count="multiple", interactive=False, visible=False
        ),
        "command": gr.Code(
            label="The same at the command line",
            language="shell",
            interactive=False,
            lines=1,
            wrap_lines=True,
            visible=False,
            elem_id="command",
        ),
        "note": gr.Markdown(_model_note(service.names[0], ())),
    }


def _model_note(name: str, notes: Sequence[str]) -> str:
    """Make the text that a visitor should read about a model.

    Args:
      name: the model's served name.
      notes: the model's notes, one sentence each.
    """
    limits = _SMALL.format(name) if name in SHIPPED else LIMITS[0]
    return "\n\n".join((limits, *notes))
