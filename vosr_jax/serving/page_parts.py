"""Boxes of the page and their style."""

import os
from collections.abc import Sequence
from typing import Any

# Set before the import of Gradio, or it would send usage data to its makers.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
import gradio as gr

from vosr_jax.restoration.presets import PRESETS
from vosr_jax.serving.fields import TILE_SIZES
from vosr_jax.serving.service import Service
from vosr_jax.weights.model_names import SHIPPED
from vosr_jax.weights.publish import LIMITS

_OWN = "the model's own"
_SMALL = (
    "**{} is a small model**: it firms up edges and letters and takes noise and blocks off, but "
    "invents little. It brings back no faces, hair or leaves that the picture does not show; the "
    "full models of `vosr serve -m 2.0` do more."
)
CSS = """
.gradio-container { max-width: 1280px !important; margin: 0 auto !important; }
#beside .grid-wrap { max-height: none; }
#beside img { object-position: var(--look-x, 50%) var(--look-y, 50%); }
"""
# Show the same detail in all images side by side: the one under the pointer in any of them.
LOOK = """() => document.addEventListener("pointermove", (event) => {
    const image = event.target.closest("#beside button")?.querySelector("img");
    if (!image) return;
    const box = image.getBoundingClientRect(), style = image.closest("#beside").style;
    style.setProperty("--look-x", 100 * (event.clientX - box.left) / box.width + "%");
    style.setProperty("--look-y", 100 * (event.clientY - box.top) / box.height + "%");
})"""


def presets_box() -> gr.CheckboxGroup:
    """Make the box of presets; "" is the model's own."""
    return gr.CheckboxGroup(
        [("own", ""), *PRESETS],
        value=[""],
        label="Presets",
        info=f"own: {_OWN}; faithful keeps to the picture, creative changes more; "
        "several: side by side",
    )


def settings_boxes(service: Service) -> dict[str, Any]:
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


def result_boxes(service: Service) -> dict[str, Any]:
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
        "note": gr.Markdown(model_note(service.names[0], ())),
    }


def model_note(name: str, notes: Sequence[str]) -> str:
    """Make the text that a visitor should read about a model.

    Args:
      name: the model's served name.
      notes: the model's notes, one sentence each.
    """
    limits = _SMALL.format(name) if name in SHIPPED else LIMITS[0]
    return "\n\n".join((limits, *notes))
