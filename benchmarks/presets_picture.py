"""Draw bicubic and the three presets of the nano model side by side, on held-out photographs.

    python benchmarks/presets_picture.py OUT.png

The upper row is a clean photograph, a quarter of whose side is enlarged four times; the lower
ones are pairs of the official degradation. Seed 0.
"""

import argparse

import numpy as np
from PIL import Image, ImageDraw

from vosr_jax import Upscaler
from vosr_jax.evaluation.pairs import HELD_OUT, degraded_entries, held_out_pictures
from vosr_jax.restoration.presets import PRESETS, preset_settings

_SIDE, _SCALE, _TEXT = 192, 4, 18
# Numbers among the pairs: a crop of the bridge and one of the cup.
_PAIRS = (3, 9)


def small_pictures() -> list[Image.Image]:
    """The inputs, 48 pixels or more."""
    clean = Image.open(HELD_OUT / "chelsea.png").convert("RGB").reduce(2).crop((8, 16, 56, 64))
    entries = degraded_entries(held_out_pictures(), 256, _SCALE)
    return [clean, *(Image.fromarray(entries[number].load().source) for number in _PAIRS)]


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    out = parser.parse_args().out
    upscaler = Upscaler.from_pretrained("nano")
    rows = []
    for small in small_pictures():
        size = (small.width * _SCALE, small.height * _SCALE)
        row = [small.resize(size, Image.Resampling.BICUBIC)]
        for preset in PRESETS:
            options = preset_settings(preset, upscaler.model)
            row.append(upscaler(small, scale=_SCALE, seed=0, **options))
        margin = (size[0] - _SIDE) // 2
        window = (margin, margin, margin + _SIDE, margin + _SIDE)
        rows.append(np.concatenate([np.asarray(picture.crop(window)) for picture in row], 1))
    height = len(rows) * _SIDE
    sheet = Image.new("RGB", (rows[0].shape[1], height + _TEXT), "white")
    sheet.paste(Image.fromarray(np.concatenate(rows)), (0, 0))
    for i, caption in enumerate(["bicubic", *PRESETS]):
        ImageDraw.Draw(sheet).text((i * _SIDE + 3, height + 3), caption, fill="black")
    sheet.save(out)


if __name__ == "__main__":
    main()
