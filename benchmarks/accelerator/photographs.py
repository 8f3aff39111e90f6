"""Photographs reduced until all of them together take no more than a number of bytes.

python -m benchmarks.accelerator.photographs FOLDER OUT --mib 20
"""

import argparse
import io
from pathlib import Path

from PIL import Image

_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
_QUALITY = 95
_LARGEST_MEGAPIXELS = 4.0
_ROUNDS = 8


def reduced(file: Path, megapixels: float) -> bytes:
    """A photograph of at most so many megapixels, as JPEG."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    factor = min((megapixels * 1e6 / (picture.width * picture.height)) ** 0.5, 1.0)
    if factor < 1:
        size = max(round(picture.width * factor), 1), max(round(picture.height * factor), 1)
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=_QUALITY, subsampling=0)
    return encoded.getvalue()


def write(folder: Path, out: Path, most: int) -> float:
    """Reduce every picture of a folder and its subfolders.

    Args:
      folder: of photographs.
      out: is made.
      most: bytes of all of them.

    Returns:
      Megapixels of a photograph at most.
    """
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in _SUFFIXES)
    if not files:
        raise SystemExit(f"{folder} holds no picture that ends in {', '.join(_SUFFIXES)}")
    megapixels = _LARGEST_MEGAPIXELS
    for _ in range(_ROUNDS):
        encoded = [reduced(file, megapixels) for file in files]
        total = sum(map(len, encoded))
        if total <= most:
            break
        megapixels *= 0.95 * most / total
    else:
        raise SystemExit(f"{len(files)} photographs do not fit into {most / 2**20:.1f} MiB")
    out.mkdir(parents=True, exist_ok=True)
    for number, (file, data) in enumerate(zip(files, encoded, strict=True)):
        (out / f"{number:03}-{file.stem.replace(' ', '_')}.jpg").write_bytes(data)
    return megapixels


def main() -> None:
    """Write them and say how large they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mib", type=float, required=True)
    options = parser.parse_args()
    megapixels = write(options.folder, options.out, int(options.mib * 2**20))
    count = len(list(options.out.iterdir()))
    print(f"{count} photographs of at most {megapixels:.2f} megapixels")


if __name__ == "__main__":
    main()
