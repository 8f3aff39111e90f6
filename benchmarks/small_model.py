"""Judge small models on what anybody may bring: damaged, mildly damaged and clean photographs.

    python benchmarks/small_model.py MODEL... [--sheet OUT.png] [--json OUT.json]

A model is what `Upscaler.from_pretrained` takes; it runs as shipped: steps, tiles, colour fix.
Truths are the crops of assets/heldout (set 1) and assets/heldout2 (set 2), LR pictures a quarter
of their side:

    official  the official degradation, one fixed draw a picture
    mild      reduced by one of four antialiased filters of Pillow, saved as JPEG 75, 85 or 95
    clean     reduced by those filters alone

Beside LPIPS (AlexNet) and PSNR over bicubic's there are plain ramps, peaks in the spectrum that a
regular weave leaves, the shift of colour, a page of text, and the seconds of a 512 px result.
"""

import argparse
import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vosr_jax import Upscaler
from vosr_jax.data.degradation import RealESRGANSettings, degrade
from vosr_jax.metrics.fidelity import psnr
from vosr_jax.metrics.lpips import load_lpips, lpips

ASSETS = Path(__file__).parents[1] / "assets"
SETS = {"set 1": "heldout", "set 2": "heldout2"}
FILTERS = ("BICUBIC", "LANCZOS", "BOX", "HAMMING")
QUALITIES = (75, 85, 95)
RAMPS = {
    "grey": ((0, 0, 0), (255, 255, 255)),
    "skin": ((92, 52, 36), (250, 216, 190)),
    "sky": ((32, 76, 140), (206, 228, 246)),
    "sepia": ((54, 38, 20), (240, 222, 186)),
}
PERIODS = (2, 4, 8)


@dataclass(frozen=True)
class Pair:
    """A truth, its small picture and what it is called."""

    name: str
    kind: str
    truth: Image.Image
    small: Image.Image


def official(truth: Image.Image, number: int) -> Image.Image:
    """The official degradation under a fixed draw."""
    rng = np.random.default_rng((17, number))
    lr, _ = degrade(np.asarray(truth), rng, RealESRGANSettings(), 4)
    return Image.fromarray(np.rint(np.clip(lr, 0, 1) * 255).astype(np.uint8))


def clean(truth: Image.Image, number: int) -> Image.Image:
    """A quarter of the side, by a filter that depends on the picture's number."""
    size = truth.width // 4, truth.height // 4
    return truth.resize(size, Image.Resampling[FILTERS[number % len(FILTERS)]])


def mild(truth: Image.Image, number: int) -> Image.Image:
    """The same with another filter, saved as JPEG."""
    file = io.BytesIO()
    clean(truth, number + 1).save(file, "JPEG", quality=QUALITIES[number % len(QUALITIES)])
    return Image.open(file).convert("RGB")


KINDS = {"official": official, "mild": mild, "clean": clean}


def pairs() -> Iterator[Pair]:
    """Every crop under every kind of damage."""
    for folder in SETS.values():
        for number, file in enumerate(sorted((ASSETS / folder).glob("*.png"))):
            truth = Image.open(file).convert("RGB")
            for kind, degraded in KINDS.items():
                yield Pair(f"{folder}/{file.stem}", kind, truth, degraded(truth, number))


def text_pair() -> Pair:
    """A white page with black letters of 40 px, reduced by 4."""
    page = Image.new("RGB", (512, 256), "white")
    font = ImageFont.load_default(size=40)
    words = "Handgloves 1234\nThe quick brown\nfox jumps over\nlazy dogs. &@?"
    ImageDraw.Draw(page).multiline_text((20, 12), words, fill="black", font=font, spacing=12)
    return Pair("text", "clean", page, page.resize((128, 64), Image.Resampling.BICUBIC))


def enlarged(small: Image.Image) -> Image.Image:
    """Bicubic, four times the side."""
    return small.resize((small.width * 4, small.height * 4), Image.Resampling.BICUBIC)


class Distance:
    """LPIPS of AlexNet between pictures of [0, 255]."""

    def __init__(self):
        self._weights = load_lpips("alex")
        self._compare = jax.jit(lpips)

    def __call__(self, picture: Image.Image, truth: Image.Image) -> float:
        a, b = (jnp.asarray(np.asarray(x), jnp.float32)[None] / 127.5 - 1 for x in (picture, truth))
        return float(self._compare(self._weights, a, b)[0])


def psnr_of(picture: Image.Image, truth: Image.Image) -> float:
    """In dB, over RGB."""
    return psnr(np.asarray(picture), np.asarray(truth))


def ramp(first: tuple[int, ...], last: tuple[int, ...]) -> Image.Image:
    """256 columns from one colour to another, 32 rows."""
    share = np.linspace(0, 1, 256)[None, :, None]
    colours = np.array(first) * (1 - share) + np.array(last) * share
    return Image.fromarray(np.repeat(np.rint(colours), 32, 0).astype(np.uint8))


def ramp_deviation(picture: Image.Image) -> tuple[float, int]:
    """(largest standard deviation of a level's columns, the level), without 8 px at the borders."""
    values = np.asarray(picture, np.float32)[8:-8]
    levels = values.reshape(values.shape[0], 256, 4, 3)
    deviations = levels.std(axis=(0, 2)).max(-1)[2:-2]
    return float(deviations.max()), int(deviations.argmax()) + 2


def spectrum(picture: Image.Image) -> np.ndarray:
    """Power of the differences along rows and columns, [128 + 1], of a 256 px picture."""
    grey = np.asarray(picture.convert("L"), np.float32)
    both = [np.diff(x, axis=1)[:, :255] for x in (grey, grey.T)]
    windowed = np.concatenate([np.pad(x, ((0, 0), (0, 1))) for x in both]) * np.hanning(256)
    power = (np.abs(np.fft.rfft(windowed, axis=1)) ** 2).mean(0)
    return power / power.sum()


def peaks(powers: list[np.ndarray]) -> dict[int, float]:
    """How far the spectrum stands out at each period, over what lies around it."""
    mean = np.mean(powers, axis=0)
    found = {}
    for period in PERIODS:
        k = 256 // period
        around = [mean[i] for i in (*range(k - 8, k - 2), *range(k + 3, k + 9)) if i < len(mean)]
        found[period] = float(mean[max(k - 1, 0) : k + 2].max() / np.median(around))
    return found


def seconds(upscaler: Upscaler) -> float:
    """Of the second 512 px result, by the clock."""
    small = Image.fromarray(np.full((128, 128, 3), 128, np.uint8))
    upscaler(small)
    start = time.perf_counter()
    upscaler(small)
    return time.perf_counter() - start


def judge(model: str, given: list[Pair], distance: Distance) -> tuple[dict, list[Image.Image]]:
    """All figures of a model, and its results in the order of the pairs."""
    upscaler = Upscaler.from_pretrained(model)
    rows, results, powers, truths = [], [], [], []
    for pair in given:
        bicubic, result = enlarged(pair.small), upscaler(pair.small)
        results.append(result)
        powers.append(spectrum(result))
        truths.append(spectrum(pair.truth))
        inputs, outputs = (np.asarray(x, np.float32).mean((0, 1)) for x in (bicubic, result))
        rows.append(
            {
                "name": pair.name,
                "kind": pair.kind,
                "lpips": distance(result, pair.truth),
                "lpips_bicubic": distance(bicubic, pair.truth),
                "psnr": psnr_of(result, pair.truth),
                "psnr_bicubic": psnr_of(bicubic, pair.truth),
                "colour_shift": float(np.abs(inputs - outputs).max()),
            }
        )
    text = text_pair()
    page = upscaler(text.small)
    found, true = peaks(powers), peaks(truths)
    figures = {
        "model": model,
        "pairs": rows,
        "ramps": {name: ramp_deviation(upscaler(ramp(*ends))) for name, ends in RAMPS.items()},
        "ramps_bicubic": {n: ramp_deviation(enlarged(ramp(*ends))) for n, ends in RAMPS.items()},
        "peaks": {period: found[period] / true[period] for period in PERIODS},
        "colour_shift": max(row["colour_shift"] for row in rows),
        "text": distance(page, text.truth) / distance(enlarged(text.small), text.truth),
        "text_psnr": psnr_of(page, text.truth) - psnr_of(enlarged(text.small), text.truth),
        "seconds": seconds(upscaler),
    }
    return figures, [*results, page]


def of_set(rows: list[dict], kind: str, folder: str) -> tuple[float, float]:
    """(LPIPS over bicubic's, PSNR over bicubic's in dB) of a kind of damage and a set."""
    chosen = [r for r in rows if r["kind"] == kind and r["name"].startswith(f"{folder}/")]
    ratio = sum(r["lpips"] for r in chosen) / sum(r["lpips_bicubic"] for r in chosen)
    return ratio, float(np.mean([r["psnr"] - r["psnr_bicubic"] for r in chosen]))


def worst(rows: list[dict]) -> dict:
    """The pair whose LPIPS lies highest above bicubic's."""
    return max(rows, key=lambda r: r["lpips"] - r["lpips_bicubic"])


def describe(all_figures: list[dict]) -> str:
    """Two tables: the sets, and the rest."""
    names = [f"{kind}, {name}" for kind in KINDS for name in SETS]
    lines = [f"| model | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}"]
    for f in all_figures:
        cells = [of_set(f["pairs"], kind, folder) for kind in KINDS for folder in SETS.values()]
        lines.append(
            f"| {f['model']} | " + " | ".join(f"{r:.2f}, {d:+.1f} dB" for r, d in cells) + " |"
        )
    heads = ["worst picture", *RAMPS, *(f"{p} px" for p in PERIODS)]
    heads += ["colour", "text", "512 px, s"]
    lines += ["", f"| model | {' | '.join(heads)} |", f"|{'---|' * (len(heads) + 1)}"]
    for f in all_figures:
        bad = worst(f["pairs"])
        cells = [f"{bad['name']} {bad['kind']} {bad['lpips'] - bad['lpips_bicubic']:+.3f}"]
        cells += [f"{deviation:.1f} at {level}" for deviation, level in f["ramps"].values()]
        cells += [f"{f['peaks'][period]:.2f}" for period in PERIODS]
        cells += [f"{f['colour_shift']:.1f}", f"{f['text']:.2f}, {f['text_psnr']:+.1f} dB"]
        lines.append(f"| {f['model']} | " + " | ".join(cells) + f" | {f['seconds']:.1f} |")
    return "\n".join(lines)


def sheet(given: list[Pair], results: list[list[Image.Image]], side: int = 128) -> Image.Image:
    """Middles at 3x zoom: bicubic, every model, truth; one pair a row."""
    rows = []
    for number, pair in enumerate(given):
        shown = [enlarged(pair.small), *(of_model[number] for of_model in results), pair.truth]
        corner = (pair.truth.width - side) // 2, (pair.truth.height - side) // 2
        window = (*corner, corner[0] + side, corner[1] + side)
        zoomed = [
            x.crop(window).resize((3 * side, 3 * side), Image.Resampling.NEAREST) for x in shown
        ]
        rows.append(np.concatenate([np.asarray(x) for x in zoomed], 1))
    return Image.fromarray(np.concatenate(rows))


def main() -> None:
    """Print the tables; write figures and pictures where asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--sheet", type=Path, help="middles beside bicubic and truth, 3x zoom")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    given, distance = list(pairs()), Distance()
    judged = [judge(model, given, distance) for model in options.models]
    figures = [f for f, _ in judged]
    print(describe(figures))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.sheet is not None:
        sheet([*given, text_pair()], [results for _, results in judged]).save(options.sheet)


if __name__ == "__main__":
    main()
