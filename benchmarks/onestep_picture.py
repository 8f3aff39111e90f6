"""Draw teacher and one-step student side by side on held-out photographs.

    python benchmarks/onestep_picture.py OUT.png [--student MODEL] [--teacher nano] [--steps 25]

A row a photograph: bicubic, the teacher with its steps, the student with one, the truth; under
them each one's LPIPS (AlexNet) and the seconds of a second call, whose programs are compiled. The
table of all held-out pairs is eval.py's.
"""

import argparse
import time

import numpy as np
from PIL import Image, ImageDraw

from vosr_jax import Upscaler
from vosr_jax.evaluation.measures import lpips_distance
from vosr_jax.evaluation.pairs import degraded_entries, enlarge, held_out_pictures

_SIDE, _TEXT = 192, 18


def restored(upscaler: Upscaler, case, **options) -> tuple[np.ndarray, float]:
    """A picture and the seconds that it takes."""
    for _ in range(2):
        begin = time.perf_counter()
        picture = np.asarray(upscaler(case.source, scale=4, seed=0, **options))
        seconds = time.perf_counter() - begin
    return picture, seconds


def main() -> None:
    """Write the picture and print its captions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--student", default="nano-onestep")
    parser.add_argument("--teacher", default="nano")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance-scale", type=float, default=None)
    parser.add_argument("--pairs", type=int, nargs="+", default=[3, 9, 15])
    o = parser.parse_args()
    teacher, student = (Upscaler.from_pretrained(name) for name in (o.teacher, o.student))
    entries = degraded_entries(held_out_pictures(), 256, 4)
    rows = []
    for case in (entries[number].load() for number in o.pairs):
        many, slow = restored(teacher, case, steps=o.steps, guidance_scale=o.guidance_scale)
        one, fast = restored(student, case, steps=1)
        pictures = [enlarge(case.source, case.size), many, one, case.truth]
        captions = ["bicubic", f"{o.steps} steps, {slow:.1f} s", f"1 step, {fast:.2f} s", "truth"]
        row = Image.new("RGB", (len(pictures) * _SIDE, _SIDE + _TEXT), "white")
        for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
            if i < 3:
                caption += f", LPIPS {lpips_distance(picture, case.truth):.2f}"
            small = Image.fromarray(picture).crop((32, 32, 32 + _SIDE, 32 + _SIDE))
            row.paste(small, (i * _SIDE, 0))
            ImageDraw.Draw(row).text((i * _SIDE + 3, _SIDE + 3), caption, fill="black")
            print(f"{case.name}: {caption}")
        rows.append(np.asarray(row))
    Image.fromarray(np.concatenate(rows)).save(o.out)


if __name__ == "__main__":
    main()
