"""The page: upload of photos, a slider between before and after, download of results."""

import secrets
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from vosr_jax.serving import clicks, visits
from vosr_jax.serving.page_parts import (
    CSS,
    LOOK,
    gr,
    model_note,
    presets_box,
    result_boxes,
    settings_boxes,
)
from vosr_jax.serving.refusals import Refusal
from vosr_jax.serving.service import Service

_ONE_HOUR = 3600
# Fonts of the visitor's machine: nothing is fetched from other servers.
_FONT = ["system-ui", "sans-serif"]
_MONO = ["ui-monospace", "monospace"]


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
        css=CSS,
        theme=gr.themes.Default(font=_FONT, font_mono=_MONO),
    )


def build_page(service: Service) -> gr.Blocks:
    """Build a service's page without mounting it."""
    with gr.Blocks(
        title="vosr", analytics_enabled=False, delete_cache=(_ONE_HOUR // 4, _ONE_HOUR)
    ) as page:
        gr.Markdown("# vosr\nRestore and enlarge photographs.")
        visit = gr.State(None, time_to_live=_ONE_HOUR, delete_callback=clicks.close)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                files = gr.File(
                    label="Photographs", file_count="multiple", file_types=["image"], height=170
                )
                scale = gr.Slider(1, 8, value=4, step=0.25, label="Factor")
                presets = presets_box()
                with gr.Accordion("Settings", open=False):
                    settings = settings_boxes(service)
                with gr.Row():
                    stop = gr.Button("Stop", min_width=80, scale=1)
                    start = gr.Button("Upscale", variant="primary", min_width=160, scale=3)
            with gr.Column(scale=3, min_width=300):
                shown = result_boxes(service)
        inputs = {"files": files, "scale": scale, "presets": presets, "visit": visit} | settings
        shown["visit"] = visit

        def run(given: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
            for made in clicks.run(service, {key: given[box] for key, box in inputs.items()}):
                yield {shown[key]: value for key, value in made.items()}

        def show(visit: visits.Visit | None, number: int) -> dict[Any, Any]:
            return {shown[key]: value for key, value in clicks.show(visit, number).items()}

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
            lambda: tuple(clicks.NOTHING.values()),
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
        page.load(None, js=LOOK)
        _follow_model(page, service, settings["model"], [shown["note"], settings["guidance_scale"]])
    return page


def _follow_model(page: gr.Blocks, service: Service, box: gr.Dropdown, shown: list) -> None:
    """Keep the note and the guidance box those of the model that is chosen."""

    def chosen_model(name: str) -> tuple[str, Any]:
        """Update the model's note, and the guidance box, which not every model has."""
        try:
            about = service.describe(name)
        except Refusal:
            return model_note(name, ()), gr.skip()
        return model_note(name, about["notes"]), gr.Textbox("", visible=about["guided"])

    for event in (box.change, page.load):
        event(
            chosen_model,
            box,
            shown,
            api_visibility="private",
        )
