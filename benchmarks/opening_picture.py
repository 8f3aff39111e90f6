"""Draw the README's opening picture: bicubic, the default model and the truth, at twice their size.

    python benchmarks/opening_picture.py OUT.png [--model nano-onestep]

A row a photograph, of the held-out ones that small_model.py judges by; the caption names what was
done to it.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from small_model import enlarged, pairs

from vosr_jax import Upscaler

ROWS = (
    ("heldout/bridge_joint", "clean", "reduced only"),
    ("heldout/coffee", "mild", "reduced and saved as JPEG"),
    ("heldout/chelsea", "official", "the official degradation"),
)
_SIDE, _ZOOM, _TEXT = 144, 2, 20


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="nano-onestep")
    options = parser.parse_args()
    upscaler = Upscaler.from_pretrained(options.model)
    found = {(pair.name, pair.kind): pair for pair in pairs()}
    rows = []
    for name, kind, done in ROWS:
        pair = found[name, kind]
        shown = [enlarged(pair.small), upscaler(pair.small), pair.truth]
        corner = (pair.truth.width - _SIDE) // 2, (pair.truth.height - _SIDE) // 2
        window = (*corner, corner[0] + _SIDE, corner[1] + _SIDE)
        size = (_SIDE * _ZOOM, _SIDE * _ZOOM)
        row = Image.new("RGB", (size[0] * 3, size[1] + _TEXT), "white")
        captions = [f"bicubic x4 ({done})", options.model, "truth"]
        for column, (picture, caption) in enumerate(zip(shown, captions, strict=True)):
            zoomed = picture.crop(window).resize(size, Image.Resampling.NEAREST)
            row.paste(zoomed, (column * size[0], 0))
            ImageDraw.Draw(row).text((column * size[0] + 4, size[1] + 4), caption, fill="black")
        rows.append(np.asarray(row))
    Image.fromarray(np.concatenate(rows)).save(options.out)


if __name__ == "__main__":
    main()
