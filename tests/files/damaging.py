"""Small photos of ten kinds, and ways in which files are damaged, all by a seed."""

import io
import random
from collections.abc import Iterator

import numpy as np
import tifffile
from PIL import Image

from vosr_jax.files.photo import Photo
from vosr_jax.files.photo_writing import write_photo

_SIZE = 40, 30


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = 6, "A. Photographer"
    exif[0x8769] = {0x9003: "2024:05:06 07:08:09", 0xA002: 40}
    read = Image.Exif()
    read.load(exif.tobytes())
    return read


def photos(folder) -> dict[str, bytes]:
    """{format: a file of it}: ten kinds, with metadata where they hold some."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: _SIZE[1], : _SIZE[0]]
    wave = 127 + 90 * np.sin(rows / 5 + columns / 7)[..., None] * np.array([1, 0.7, -0.6])
    pixels = np.clip(wave + rng.normal(0, 6, (*rows.shape, 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    files: dict[str, bytes] = {}

    def save(name: str, kind: str, source: Image.Image = image, **options) -> None:
        file = io.BytesIO()
        source.save(file, format=kind, **options)
        files[name] = file.getvalue()

    clear = image.copy()
    clear.putalpha(Image.fromarray((columns * 6).astype(np.uint8)))
    save("jpeg", "JPEG", exif=_exif(), quality=90)
    save("progressive", "JPEG", progressive=True)
    save("webp", "WEBP", source=clear, exif=_exif())
    save("tiff", "TIFF", compression="tiff_lzw")
    save("plain tiff", "TIFF", exif=_exif())
    save("gif", "GIF", source=image.quantize(64))
    save("bmp", "BMP")
    save("avif", "AVIF")
    deep = Photo(pixels.astype(np.uint16) * 257, (columns * 1500).astype(np.uint16))
    write_photo(deep, folder / "deep.png")
    files["png"] = (folder / "deep.png").read_bytes()
    file = io.BytesIO()
    tifffile.imwrite(file, deep.pixels, photometric="rgb", byteorder=">")
    files["deep tiff"] = file.getvalue()
    return files


def damaged(files: dict[str, bytes], count: int) -> Iterator[tuple[str, bytes]]:
    """(what it is, a damaged file), `count` times: bytes flipped, cut off, lengths changed."""
    rng = random.Random(0)
    names = sorted(files)
    for number in range(count):
        name = names[number % len(names)]
        data = bytearray(files[name])
        way = ("flipped", "cut", "lengths", "headers", "inserted")[number // len(names) % 5]
        if way == "flipped":
            for _ in range(rng.choice((1, 2, 8, 64))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif way == "cut":
            del data[rng.randrange(1, len(data)) :]
        elif way == "lengths":
            # Four bytes somewhere become a number that decoders take for a size or an offset.
            at = rng.randrange(max(len(data) - 4, 1))
            value = rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000, len(data), 0x01000000))
            data[at : at + 4] = value.to_bytes(4, rng.choice(("big", "little")))
        elif way == "headers":
            for _ in range(rng.choice((1, 3))):
                data[rng.randrange(min(len(data), 64))] = rng.randrange(256)
        else:
            at = rng.randrange(len(data))
            data[at:at] = rng.randbytes(rng.choice((1, 4, 200)))
        yield f"{number}: {name}, {way}", bytes(data)
