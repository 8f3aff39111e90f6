"""docs/accelerators.md from what launch/accelerator_check.sh left, one folder a card.

    python benchmarks/accelerator_report.py [OUT ...] -o docs/accelerators.md

A part without a JSON file is "not run yet"; a dry run is no measurement and is refused.
"""

import argparse
import json
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PARTS = ("parity", "sampling", "training", "nano")
_NOT_RUN = "Not run yet."
_NO_CARD = (
    "**No card was at hand so far: nothing below was run on one.** The whole command runs on a CPU "
    "with\ntiny sizes (`--dry`, jax 0.10.2, Python 3.11), which shows that it works and says "
    "nothing of speed. Neither JAX with CUDA\nnor the full sizes have run through it."
)
_TEMPLATE = Path(__file__).with_name("accelerator_report.md")
# A column: its title, the figure's key, and how it is written.
Column = tuple[str, str, str]


def read(out: Path) -> dict[str, dict[str, Any]]:
    """A folder's parts by name.

    Raises:
      SystemExit: it is of a dry run.
    """
    files = {part: out / f"{part}.json" for part in PARTS}
    parts = {part: json.loads(file.read_text()) for part, file in files.items() if file.exists()}
    if any(part["dry"] for part in parts.values()):
        raise SystemExit(f"{out} is of a dry run, whose figures say nothing of a card")
    return parts


def _cell(value: Any, form: str) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, str) or not form else format(value, form)


def table(figures: Mapping[str, Mapping[str, Any]], head: str, columns: Sequence[Column]) -> str:
    """A row a figure; an error takes the row's first cell.

    Args:
      figures: by the name that stands first in the row.
      head: title of the names.
      columns: of the rest.
    """
    lines = [f"| {head} | {' | '.join(title for title, _, _ in columns)} |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for name, figure in figures.items():
        cells = [_cell(figure.get(key), form) for _, key, form in columns]
        if "error" in figure:
            cells[0] = f"**error:** {str(figure['error']).replace('|', '/')}"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _starting(figures: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in figures.items() if k.startswith(prefix)}


def parity(figures: Mapping[str, Any]) -> str:
    """Goldens, formats, attention."""
    grey, kernels = (_starting(figures, prefix) for prefix in ("grey levels, ", "attention, "))
    known = ("grey levels, ", "attention, ")
    suites = {k: v for k, v in figures.items() if not k.startswith(known)}
    return "\n\n".join(
        (
            table(
                suites,
                "goldens",
                [
                    ("tests passed", "passed", ""),
                    ("comparisons", "comparisons", ""),
                    ("largest error over its tolerance", "worst_ratio", ".2f"),
                    ("where", "worst", ""),
                ],
            ),
            table(
                grey,
                "grey levels",
                [("mean", "mean", ".3f"), ("largest", "worst", ".2f"), ("ms", "ms", ".1f")],
            ),
            table(
                kernels,
                "attention",
                [
                    ("error", "forward_error", ".1e"),
                    ("of the formula", "forward_error_formula", ".1e"),
                    ("gradient's error", "gradient_error", ".1e"),
                    ("of the formula's", "gradient_error_formula", ".1e"),
                    ("ms", "forward_ms", ".3f"),
                    ("of the formula", "forward_ms_formula", ".3f"),
                    ("with gradient, ms", "gradient_ms", ".3f"),
                    ("of the formula", "gradient_ms_formula", ".3f"),
                    ("forward runs under remat=attention", "forward_runs", ""),
                ],
            ),
        )
    )


def sampling(figures: Mapping[str, Any]) -> str:
    """Restored pictures."""
    columns = [
        ("whole, ms", "ms", ".1f"),
        ("a picture, ms", "ms_a_picture", ".1f"),
        ("encoder", "encode_ms", ".1f"),
        ("DINOv2", "tokens_ms", ".1f"),
        ("denoiser", "denoise_ms", ".1f"),
        ("decoder", "decode_ms", ".1f"),
        ("peak memory, GiB", "peak_gib", ".2f"),
    ]
    return table(figures, "512 px", columns)


def training(figures: Mapping[str, Any]) -> str:
    """The 0.5B step."""
    columns = [
        ("pairs", "batch", ""),
        ("step, ms", "ms", ".1f"),
        ("pairs/s", "pairs_per_second", ".1f"),
        ("MFU", "mfu", ".1%"),
        ("memory, GiB", "gib", ".1f"),
        ("data alone, pairs/s", "data_pairs_per_second", ".1f"),
    ]
    return table(figures, "0.5B at 512 px", columns)


def nano(figures: Mapping[str, Any]) -> str:
    """The nano's training."""
    columns = [
        ("steps", "steps", ""),
        ("pairs a step", "batch", ""),
        ("pairs/s", "pairs_per_second", ".0f"),
        ("data wait, ms", "data_wait_ms", ".1f"),
        ("loss, first tenth", "first_loss", ".4f"),
        ("last tenth", "last_loss", ".4f"),
        ("weights, MB", "model.safetensors, MB", ".1f"),
    ]
    return table(figures, "nano", columns)


_WRITERS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "parity": parity,
    "sampling": sampling,
    "training": training,
    "nano": nano,
}


def section(part: str, runs: Sequence[Mapping[str, Mapping[str, Any]]]) -> str:
    """What every card gave for a part."""
    found = [run[part] for run in runs if part in run]
    if not found:
        return _NOT_RUN
    texts = []
    for run in found:
        machine, figures = run["machine"], run["figures"]
        where = machine.get("device", "a card that did not answer")
        if machine:
            where += f", {machine['cores']} cores, jax {machine['jax']}"
        body = _WRITERS[part](figures) if figures else "It left no figures."
        texts.append(f"{where}, {run['date']}, {run['seconds']:.0f} seconds:\n\n{body}")
    return "\n\n".join(texts)


def report(runs: Sequence[Mapping[str, Mapping[str, Any]]]) -> str:
    """The whole page."""
    cards = sorted({p["machine"].get("device", "?") for run in runs for p in run.values()})
    state = f"Figures are of {', '.join(cards)}." if cards else _NO_CARD
    sections = {part: section(part, runs) for part in PARTS}
    return string.Template(_TEMPLATE.read_text()).substitute(sections, state=state)


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("outs", nargs="*", type=Path, metavar="OUT")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    options.output.write_text(report([read(out) for out in options.outs]))


if __name__ == "__main__":
    main()
