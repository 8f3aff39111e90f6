"""Draw docs/architecture.svg from the imports: python docs/architecture.py.

Boxes are the layers of .importlinter with their lines of code. A line says that a box imports one
below; lines to the two lowest rows, which all import, are left out. grimp, which import-linter
brings, reads the imports; nothing is run.
"""

import configparser
from pathlib import Path

import grimp
import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT, GAP = 2.6, 0.62, 0.55


def layers() -> list[list[str]]:
    """Names of the boxes, the highest row first."""
    contract = configparser.ConfigParser()
    contract.read(ROOT / ".importlinter")
    text = contract["importlinter:contract:layers"]["layers"]
    return [[name.strip() for name in row.split("|")] for row in text.split("\n") if row.strip()]


def lines(name: str) -> int:
    """Lines of a package or module."""
    place = ROOT / "vosr_jax" / name
    files = place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]
    return sum(file.read_text().count("\n") for file in files)


def main() -> None:
    """Write the drawing."""
    graph = grimp.build_graph("vosr_jax", cache_dir=None)
    rows = layers()
    figure = Figure(figsize=(11, 9))
    axes = figure.subplots()
    centres: dict[str, tuple[float, float]] = {}
    for number, row in enumerate(reversed(rows)):
        # The ground's modules share a box.
        names = [" ".join(row)] if len(row) > 3 else row
        for place, name in enumerate(names):
            x = (place - (len(names) - 1) / 2) * (WIDTH + 1.2)
            centres |= dict.fromkeys(row if len(row) > 3 else [name], (x, number * (HEIGHT + GAP)))
    for number, row in enumerate(rows):
        above = {name for names in rows[:number] for name in names}
        # All import the ground, which would hide the rest.
        for name in row if len(row) <= 3 and row != ["errors"] else []:
            for higher in sorted(above):
                own, other = f"vosr_jax.{name}", f"vosr_jax.{higher}"
                if graph.find_shortest_chains(other, own) and graph.direct_import_exists(
                    importer=other, imported=own, as_packages=True
                ):
                    (x0, y0), (x1, y1) = centres[higher], centres[name]
                    axes.plot([x0, x1], [y0, y1], color="#8899aa", linewidth=0.7, zorder=1)
    drawn = set()
    for row in rows:
        shared = len(row) > 3
        for name in row:
            if centres[name] in drawn:
                continue
            drawn.add(centres[name])
            x, y = centres[name]
            width = 9.4 if shared else WIDTH
            box = FancyBboxPatch(
                (x - width / 2, y - HEIGHT / 2),
                width,
                HEIGHT,
                boxstyle="round,pad=0.04",
                facecolor="#f2f5f9",
                edgecolor="#33475b",
                zorder=2,
            )
            axes.add_patch(box)
            title = ", ".join(row) if shared else name
            size = sum(map(lines, row)) if shared else lines(name)
            axes.text(x, y + 0.1, title, ha="center", va="center", fontsize=9 if shared else 11)
            axes.text(x, y - 0.17, f"{size:,} lines", ha="center", va="center", fontsize=8)
    axes.set_xlim(-5.2, 5.2)
    axes.set_ylim(-HEIGHT, len(rows) * (HEIGHT + GAP) - GAP / 2)
    axes.axis("off")
    # Equal imports give an equal file.
    with matplotlib.rc_context({"svg.hashsalt": "vosr_jax"}):
        path = ROOT / "docs" / "architecture.svg"
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main()
