"""Gather the photographs that the shipped nano models were trained on.

    python benchmarks/nano_photographs.py OUT [--folder FOLDER] [--table docs/nano_photographs.md]

They come from Debian packages (`apt-get download`, `dpkg -x`), from the history of git
repositories of desktop backgrounds, from scikit-image, and from further folders of one's own.
Drawings and renders are left out by name, and so are the held-out pictures of
assets/heldout/split.json; of a picture that comes twice the first is taken.

A photograph of many megapixels is soft at its own resolution. Its sharpness is the root mean
square, in grey levels, of what is lost where it is reduced by two and enlarged again, in the tenth
of its squares of 64 px that has most of it. A large picture is reduced by two; what is then still
below SHARP is reduced once more, and left out where it stays below or becomes small.
Licences: docs/nano_photographs.md; the pictures stay out of this repository.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vosr_jax.data.scikit_image_photos import TRAINING, scikit_image_photographs

SPLIT = Path(__file__).parents[1] / "assets" / "heldout" / "split.json"
LARGE = 1400  # pictures whose shorter side reaches this are reduced
SMALL = 380  # the shortest side that is kept
SHARP = 5.0  # grey levels; see above
SQUARE = 64

# Debian package: (folder below /usr/share, pattern, licence).
PACKAGES = {
    "lomiri-wallpapers-16.04": ("backgrounds", "*.jpg", "CC BY 4.0, CC BY-SA 4.0, CC0"),
    "lomiri-wallpapers": ("backgrounds", "*.jpg", "CC BY-SA 3.0"),
    "lomiri-wallpapers-20.04": ("backgrounds", "*.jpg", "CC BY-SA 4.0"),
    "mate-backgrounds": ("backgrounds/mate/nature", "*.jpg", "GPL 2 or later"),
    "plasma-workspace-wallpapers": ("wallpapers", "*/contents/images/2560x1600.jpg", "LGPL 3"),
    "palapeli-data": ("palapeli/collection", "*.jpg", "public domain, GFDL 1.2"),
    "sddm-theme-maldives": ("sddm/themes/maldives", "background.jpg", "CC BY 3.0"),
}
# Repository: (pattern of the path, licence). Pictures that left it again are taken from its past.
REPOSITORIES = {
    "BuddiesOfBudgie/budgie-backgrounds": ("backgrounds/*.jpg", "CC0"),
    "pop-os/wallpapers": ("original/*.jp*g", "CC0 (Unsplash before June 2017)"),
    "ubuntu-mate/ubuntu-mate-artwork": ("usr/share/backgrounds/*/*.jpg", "CC BY-SA 4.0, CC0"),
    "elementary/wallpapers": ("**/*.jpg", "CC0 (Unsplash before June 2017)"),
}
# Of elementary's those that its debian/copyright calls public domain.
ELEMENTARY = (
    *("Ashim DSilva", "Carmine De Fazio", "Jay Ruzesky", "Jonas Nilsson Lee", "Mr. Lee"),
    *("Pablo Garcia Saldana", "Photo by SpaceX", "Rob Bye", "Ryan Schroeder"),
    *("Samuel Zeller", "Sunset by the Pier"),
)
# Starts of the names of drawings, renders, pictures with lettering, and variants of others.
LEFT_OUT = (
    *("Autumn", "Blissful", "FoldedLinen", "Green-Jazz", "Grey-Jazz", "Infinite-Sea", "Lunar-"),
    *("Mascot-", "Silky", "Ubuntu-MATE-S", "Ubuntu-MATE-R", "Ubuntu-MATE-N", "Ubuntu-MATE-W"),
    *("Ubuntu-Mate-", "WallPaper", "Wallpaper", "wallapaper", "numbat", "Wave", "Webspresso-City"),
    *("Webspresso-T", "Shocking", "groovy", "ubuntu-mate", "analogpattern", "eoan", "greyscaled"),
    *("jelly", "kinetic-kudu", "kudu-", "minotaur", "Painting", "flying-with", "Painting-Colors"),
    *("accelerated", "geo-", "nasty", "ocean-waves", "temp.", "valley-", "waves-"),
    *("sebastien-gabriel", "the-moon-and"),
)


@dataclass(frozen=True)
class Photograph:
    """A file and where it came from."""

    file: Path
    source: str
    licence: str


def from_packages(folder: Path) -> Iterator[Photograph]:
    """The packages' photographs, unpacked below a folder."""
    for package, (place, pattern, licence) in PACKAGES.items():
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
        archive = next(folder.glob(f"{package}_*.deb"))
        unpacked = folder / package
        subprocess.run(["dpkg", "-x", archive, unpacked], check=True)
        for file in sorted((unpacked / "usr" / "share" / place).glob(pattern)):
            # Some packages name a picture by a folder, and the file by its size or use.
            named = file.rename(unpacked / f"{_title(file)}.jpg")
            yield Photograph(named, package, licence)


def _title(file: Path) -> str:
    if file.stem == "background":
        return file.parent.name
    return file.parents[2].name if file.stem[0].isdigit() else file.stem


def from_repositories(folder: Path) -> Iterator[Photograph]:
    """The newest version of every photograph that ever lay in the repositories."""
    for name, (pattern, licence) in REPOSITORIES.items():
        clone, out = folder / f"{name.replace('/', '+')}.git", folder / name.replace("/", "+")
        address = f"https://github.com/{name}"
        subprocess.run(["git", "clone", "--quiet", "--bare", address, clone], check=True)
        out.mkdir()
        for path, blob in _blobs(clone, pattern).items():
            file = out / Path(path).name
            if name.startswith("elementary") and file.stem not in ELEMENTARY:
                continue
            content = subprocess.run(
                ["git", "-C", clone, "cat-file", "blob", blob], capture_output=True
            )
            # A partial copy of a repository lacks its largest files.
            if content.returncode == 0:
                file.write_bytes(content.stdout)
                yield Photograph(file, name, licence)


def _blobs(clone: Path, pattern: str) -> dict[str, str]:
    """Path to blob, of the last commit in which a path was written."""
    log = [
        "log",
        "--all",
        "--format=",
        "--raw",
        "--no-abbrev",
        "--no-renames",
        "-z",
        "--diff-filter=AM",
    ]
    command = ["git", "-C", clone, *log, "--", f":(glob){pattern}"]
    fields = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    blobs: dict[str, str] = {}
    for change, path in zip(fields[::2], fields[1::2], strict=False):
        blobs.setdefault(path, change.split()[3])
    return blobs


def held_out() -> tuple[str, ...]:
    """Starts of the names of pictures that are never trained on."""
    groups = json.loads(SPLIT.read_text())["held_out"].values()
    return tuple(name for group in groups for name in group)


def sharpness(picture: np.ndarray) -> float:
    """Grey levels that reducing by two takes from the sharpest tenth of the squares of 64 px."""
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.float32)
    rows, columns = (side // SQUARE for side in grey.shape)
    grey = grey[: rows * SQUARE, : columns * SQUARE]
    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    lost = grey - cv2.resize(half, grey.shape[::-1], interpolation=cv2.INTER_CUBIC)
    squares = (lost**2).reshape(rows, SQUARE, columns, SQUARE).mean((1, 3))
    return float(np.sqrt(np.quantile(squares, 0.9)))


def reduced(picture: np.ndarray) -> np.ndarray:
    """Half the size, every pixel the mean of four."""
    height, width = (side // 2 for side in picture.shape[:2])
    even = picture[: height * 2, : width * 2]
    return cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)


def prepared(picture: np.ndarray) -> tuple[np.ndarray, float] | None:
    """The picture at a size at which it is sharp, and how sharp; None where there is none."""
    if min(picture.shape[:2]) >= LARGE:
        picture = reduced(picture)
    while (measured := sharpness(picture)) < SHARP:
        picture = reduced(picture)
        if min(picture.shape[:2]) < SMALL:
            return None
    return picture, measured


def looks(picture: np.ndarray) -> np.ndarray:
    """16 x 16 grey levels, standardized: what two copies of a picture have in common."""
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
    return (small - small.mean()) / (small.std() + 1e-6)


def candidates(temporary: Path, folders: list[Path]) -> Iterator[Photograph]:
    """Everything, in the order in which copies are decided."""
    for file in scikit_image_photographs(TRAINING):
        yield Photograph(file, "scikit-image", "as scikit-image's data/README.txt says")
    for folder in folders:
        for file in sorted(folder.glob("*.jpg")):
            yield Photograph(file, "folder", "as its owner says")
    yield from from_packages(temporary)
    yield from from_repositories(temporary)


def main(out: Path, folders: list[Path], table: Path | None) -> None:
    """Write the training photographs and print their names, sizes and sharpness."""
    out.mkdir(parents=True, exist_ok=True)
    rows, seen, megapixels = [], [], 0.0
    with tempfile.TemporaryDirectory() as temporary:
        for photograph in candidates(Path(temporary), folders):
            name = photograph.file.name
            picture = cv2.imread(str(photograph.file))
            if picture is None or name.startswith((*held_out(), *LEFT_OUT)):
                continue
            look = looks(picture)
            named = any(p.file.stem == photograph.file.stem for p, _, _ in rows)
            if named or any(np.mean(look * other) > 0.95 for other in seen):
                print(f"{name}: a copy")
                continue
            if (ready := prepared(picture)) is None:
                print(f"{name}: soft")
                continue
            seen.append(look)
            picture, measured = ready
            height, width = picture.shape[:2]
            cv2.imwrite(str(out / f"{photograph.file.stem}.png"), picture)
            rows.append((photograph, f"{width} x {height}", measured))
            megapixels += width * height / 1e6
            print(f"{name}: {width} x {height}, sharpness {measured:.1f}")
    print(f"{len(rows)} photographs, {megapixels:.0f} megapixels")
    if table is not None:
        lines = ["| photograph | source | licence | size | sharpness |", "|---|---|---|---|---|"]
        lines += [
            f"| {p.file.stem} | {p.source} | {p.licence} | {size} | {measured:.1f} |"
            for p, size, measured in rows
        ]
        table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--folder", type=Path, action="append", default=[])
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    main(options.out, options.folder, options.table)
