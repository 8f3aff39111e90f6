"""Draw pages of text and plain ramps, which photographs hold too little of.

    python benchmarks/nano_pages.py OUT

A model trained on photographs alone lets letters melt and draws grain on plain areas. Six pages
have lines of random words in matplotlib's fonts, dark on light and light on dark; six have smooth
ramps between random colours, some with edges. All is drawn from a fixed seed, at twice the size,
and reduced.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

SIDE = 768
FONTS = ("DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono", "STIXGeneral", "cmr10", "cmss10")
LETTERS = "abcdefghijklmnopqrstuvwxyzabcdeeeilmnorstuABCDEFGHKMNRSTW0123456789.,-:"


def colours(rng: np.random.Generator, number: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(paper, ink): black and white in every other page, in turns; else any two that differ."""
    if number % 2 == 0:
        pair = ((255, 255, 255), (0, 0, 0))
        return pair if number % 4 == 0 else pair[::-1]
    paper, ink = rng.integers(190, 256, 3), rng.integers(0, 90, 3)
    return tuple(map(int, paper)), tuple(map(int, ink))


def text_page(rng: np.random.Generator, number: int) -> Image.Image:
    """Lines of random words, of 10 to 60 px."""
    paper, ink = colours(rng, number)
    page = Image.new("RGB", (2 * SIDE, 2 * SIDE), paper)
    draw, top = ImageDraw.Draw(page), 10
    file = font_manager.findfont(FONTS[number % len(FONTS)])
    while top < 2 * SIDE:
        size = int(rng.integers(20, 120))
        words = ["".join(rng.choice(list(LETTERS), rng.integers(1, 10))) for _ in range(40)]
        draw.text((10, top), " ".join(words), fill=ink, font=ImageFont.truetype(file, size))
        top += int(size * 1.35)
    return page.resize((SIDE, SIDE), Image.Resampling.BOX)


def ramp_page(rng: np.random.Generator, number: int) -> Image.Image:
    """Sixteen squares, each a ramp between two colours; in every other page grey ones."""
    side = SIDE // 2
    page = np.empty((2 * SIDE, 2 * SIDE, 3), np.float32)
    for top in range(0, 2 * SIDE, side):
        for left in range(0, 2 * SIDE, side):
            first, last = rng.uniform(0, 255, (2, 3) if number % 2 else (2, 1))
            if rng.uniform() < 0.3:
                last = first + rng.uniform(-20, 20)
            angle = rng.uniform(0, 2 * np.pi)
            y, x = np.mgrid[0:side, 0:side] / side - 0.5
            share = (np.cos(angle) * x + np.sin(angle) * y + 0.71)[..., None] / 1.42
            square = first * (1 - share) + last * share
            page[top : top + side, left : left + side] = np.clip(square, 0, 255)
    drawn = Image.fromarray(np.rint(page).astype(np.uint8))
    return drawn.resize((SIDE, SIDE), Image.Resampling.BOX)


def main(out: Path) -> None:
    """Write the pages."""
    out.mkdir(parents=True, exist_ok=True)
    for number in range(6):
        rng = np.random.default_rng((1, number))
        text_page(rng, number).save(out / f"text{number}.png")
        ramp_page(rng, number).save(out / f"ramp{number}.png")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/nano_pages.py OUT")
    main(Path(sys.argv[1]))
