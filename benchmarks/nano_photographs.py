"""Gather the photographs that the shipped nano models were trained on.

    python benchmarks/nano_photographs.py FOLDER

They come from the Debian packages lomiri-wallpapers-16.04, lomiri-wallpapers and mate-backgrounds
(folder nature), fetched with `apt-get download` and unpacked with dpkg, and from scikit-image.
The held-out pictures of assets/heldout/split.json are left out; the rest is written as PNG, large
pictures reduced by 2, since photographs of many megapixels are soft at their own resolution.
Licences: see the packages' own copyright files; the pictures stay out of this repository.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2

from vosr_jax.data.photographs import TRAINING, scikit_image_photographs

PACKAGES = ("lomiri-wallpapers-16.04", "lomiri-wallpapers", "mate-backgrounds")
SPLIT = Path(__file__).parents[1] / "assets" / "heldout" / "split.json"
LARGE = 1400  # pictures whose shorter side reaches this are reduced


def unpack(folder: Path) -> list[Path]:
    """The packages' photographs, unpacked below a folder."""
    for package in PACKAGES:
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
    for archive in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", archive, folder / "unpacked"], check=True)
    backgrounds = folder / "unpacked" / "usr" / "share" / "backgrounds"
    return sorted(backgrounds.glob("*.jpg")) + sorted(backgrounds.glob("mate/nature/*.jpg"))


def held_out() -> tuple[str, ...]:
    """Starts of the names of pictures that are never trained on."""
    groups = json.loads(SPLIT.read_text())["held_out"].values()
    return tuple(name for group in groups for name in group)


def main(out: Path) -> None:
    """Write the training photographs and print their names and sizes."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        files = unpack(Path(temporary)) + scikit_image_photographs(TRAINING)
        for file in files:
            if file.name.startswith(held_out()):
                continue
            picture = cv2.imread(str(file))
            factor = 2 if min(picture.shape[:2]) >= LARGE else 1
            height, width = (side // factor for side in picture.shape[:2])
            even = picture[: height * factor, : width * factor]
            reduced = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(out / f"{file.stem}.png"), reduced)
            print(f"{file.name}: {width} x {height}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/nano_photographs.py FOLDER")
    main(Path(sys.argv[1]))
