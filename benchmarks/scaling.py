"""Plans of VOSR's training on many slices, by the real TPU compiler; the table of docs/scaling.md.

    python benchmarks/scaling.py run OUT.jsonl     # plans what is not there yet, minutes a row
    python benchmarks/scaling.py table OUT.jsonl   # prints the table

Every row is `vosr plan` with the settings that the table shows. "paper" trains as the paper did,
but for the autoencoder's precision; "short" adds the settings that save memory traffic and uses
the memory that is left for more pairs; "parts" divides the batch into four microbatches, "once" is
"short" and "parts" with one sum over `data` per update. Needs pip install '.[plan]' and no TPU.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

from vosr_jax.config.from_file import config_from_file
from vosr_jax.planning.plan import make_plan
from vosr_jax.planning.topology import parse_topology

_GIB = 2**30
_MODELS = {
    ("0.5B", "flow matching"): "configs/vosr_0_5b.py:512",
    ("1.4B", "flow matching"): "configs/vosr_1_4b.py:512",
    ("0.5B", "RCGM"): "configs/vosr_0_5b_onestep.py",
    ("1.4B", "RCGM"): "configs/vosr_1_4b_onestep.py",
}
# Pairs a chip and rematerialization, by chip: (0.5B, 1.4B) flow matching, (0.5B, 1.4B) RCGM.
_CHOICES = {
    "v4": [(8, "attention"), (8, "attention"), (8, "attention"), (4, "full")],
    "v5e": [(8, "attention"), (4, "attention"), (4, "attention"), (2, "full")],
    "v5p": [(8, "none"), (8, "none"), (8, "attention"), (8, "attention")],
    "v6e": [(8, "attention"), (8, "attention"), (8, "attention"), (4, "full")],
}
_SHORT_CHOICES = {
    "v5e": [(16, "attention"), (4, "attention"), (4, "attention"), (2, "full")],
    "v5p": [(8, "none"), (8, "none"), (16, "attention"), (16, "attention")],
    "v6e": [(32, "attention"), (16, "attention"), (16, "attention"), (8, "full")],
}
_SHORT = (
    "--config.autoencoder.activations=bfloat16",
    "--config.model.stream_dtype=bfloat16",
    "--config.mesh.gradient_dtype=bfloat16",
)
_PARTS = 4
_SETTINGS = {
    "paper": (),
    "short": _SHORT,
    "parts": (f"--config.train.microbatches={_PARTS}",),
    "once": (*_SHORT, f"--config.train.microbatches={_PARTS}", "--config.mesh.gradient_sum=update"),
}
_FIRST = ("v5e:4x4", "v5p:4x4x4", "v6e:4x4")
_THEN = ("v4-8", "v5e-256", "v6e-256", "v5p-2048")
_LARGEST = ("v5p:16x16x16",)


def rows() -> list[dict]:
    """All rows, the most wanted first."""
    listed = [
        _row(topology, model, number, settings)
        for number, model in enumerate(_MODELS)
        for topology in _FIRST
        for settings in ("paper", "short")
    ]
    listed += [_row(t, m, n) for t in _THEN for n, m in enumerate(_MODELS)]
    listed += [_row(t, m, n) for t in _LARGEST for n, m in enumerate(_MODELS) if n < 2]
    for precision in ("float32", "bfloat16_3x"):
        first = _row("v5p:4x4x4", ("0.5B", "flow matching"), 0)
        listed.append(first | {"precision": precision})
    listed.append(_row("2*v5e:16x16", ("0.5B", "flow matching"), 0))
    for settings in _SETTINGS:
        listed.append(_row("2*v5e:16x16", ("1.4B", "flow matching"), 1, settings))
    return listed


def _row(topology: str, model: tuple[str, str], number: int, settings: str = "paper") -> dict:
    chip = parse_topology(topology).chip.name
    pairs, remat = (_SHORT_CHOICES if settings in ("short", "once") else _CHOICES)[chip][number]
    return {
        "topology": topology,
        "size": model[0],
        "objective": model[1],
        "pairs": pairs,
        "remat": remat,
        "precision": "bfloat16",
        "settings": settings,
    }


def plan(row: dict) -> dict:
    """The row with its plan."""
    topology = parse_topology(row["topology"])
    parts = _PARTS if row["settings"] in ("parts", "once") else 1
    config = config_from_file(
        _MODELS[row["size"], row["objective"]],
        [
            f"--config.train.batch_size={row['pairs'] * parts * topology.devices}",
            f"--config.model.remat={row['remat']}",
            f"--config.autoencoder.precision={row['precision']}",
            *_SETTINGS[row["settings"]],
        ],
    )
    return row | {"chips": topology.chips, "plan": make_plan(config, topology).to_dict()}


def run(out: Path) -> None:
    """Plan what is not in the file."""
    done = read(out)
    keys = [{k: v for k, v in row.items() if k not in ("chips", "plan")} for row in done]
    for row in rows():
        if row in keys:
            continue
        name = f"{row['size']} {row['objective']} on {row['topology']}"
        print(name, file=sys.stderr, flush=True)
        try:
            planned = plan(row)
        # The table goes on; a row that the compiler refuses says why.
        except Exception as error:
            print(f"{name}: {type(error).__name__} {str(error)[:300]}", file=sys.stderr)
            continue
        with out.open("a") as file:
            file.write(json.dumps(planned) + "\n")


def read(out: Path) -> list[dict]:
    """The rows so far."""
    lines = out.read_text().splitlines() if out.exists() else []
    # Older files had the paper's settings alone.
    return [{"settings": "paper"} | json.loads(line) for line in lines]


def table(out: Path) -> None:
    """Print the rows by model and objective."""
    print(
        "| slice | settings | chips | mesh | pairs a chip, update | remat | autoencoder "
        "| GiB a chip | sent, MiB | of the ideal | step, ms | MFU at most "
        "| waits for memory, network | days, chip hours | compiled, s |"
    )
    print("|---" * 15 + "|")
    for row in sorted(read(out), key=_order):
        p = row["plan"]
        mesh = " x ".join(map(str, p["mesh"].values()))
        head = (
            f"| {row['size']} {row['objective']}, {row['topology']} | {row['settings']} "
            f"| {row['chips']} | {mesh} "
            f"| {row['pairs']}, {p['batch_size']} | {row['remat']} | {row['precision']} "
        )
        if not p["memory"]:
            print(head + f"| does not fit | | | | | | | {p['compile_seconds']:.0f} |")
            continue
        sent = sum(size for _, size in p["collectives"].values())
        ideal = sent / p["gathered_bytes"]
        fits = "" if p["fits"] else " (too much)"
        bound = p["bound"]
        print(
            head + f"| {p['memory']['total'] / _GIB:.1f}{fits} | {sent / 2**20:,.0f} "
            f"| {ideal:.2f} | {p['step_seconds'] * 1e3:.0f} | {p['mfu']:.1%} "
            f"| {bound['memory']:.0%}, {bound['network']:.0%} "
            f"| {p['days']:.2f}, {p['chip_hours']:,.0f} | {p['compile_seconds']:.0f} |"
        )


def _order(row: dict) -> tuple:
    slices = row["topology"][:3], row["chips"]
    return row["objective"], row["size"], *slices, row["precision"], row["settings"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    {"run": run, "table": table}[options.what](options.out)


if __name__ == "__main__":
    main()
