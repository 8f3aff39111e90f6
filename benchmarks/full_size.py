"""A release's full size beside the official program: the same picture, seconds and memory.

    python benchmarks/full_size.py --official DIR --dinov2 DIR --python PYTHON \\
        [--release 0.5B 2.0] [--side 32] [--keep FOLDER] [--json FILE]

DIR are checkouts of cswry/VOSR and facebookresearch/dinov2, PYTHON one that has torch, diffusers
and timm. Random weights of the released sizes are written in the released layout; the official
one-step command and `Upscaler` restore the same photographs (side x side, four times) from the
same noise, each in a process of its own. The first picture warms up, the second is timed. Peak is
the largest resident set of the process, weights included. Nothing is committed of either checkout.
"""

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from process_memory import peak_memory

_ROOT = Path(__file__).parents[1]
_FOLDERS = {"0.5B": "VOSR_0.5B_os", "2.0": "VOSR2"}


def write_inputs(folder: Path, side: int) -> list[Path]:
    """Two crops of held-out photographs, side x side."""
    folder.mkdir(parents=True)
    files = sorted((_ROOT / "assets" / "heldout").glob("*.png"))[:2]
    for number, file in enumerate(files):
        with Image.open(file) as picture:
            small = picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        small.save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def restore(folder: Path, release: str, inputs: Path, results: Path) -> dict:
    """Our side, in this process."""
    from vosr_jax import Upscaler

    begin = time.perf_counter()
    upscaler = Upscaler.from_pretrained(
        folder / "preset" / "ckpts" / _FOLDERS[release], precision="float32"
    )
    loading, loaded = time.perf_counter() - begin, peak_memory()
    clock, cpu = [], []
    (results / "ours").mkdir(parents=True)
    with np.load(results / "draws.npz") as draws:
        for file in sorted(inputs.iterdir()):
            begin, used = time.perf_counter(), time.process_time()
            picture = upscaler(file, scale=4, noise=draws[file.name], tile_size=0)
            picture.save(results / "ours" / file.name)
            clock.append(time.perf_counter() - begin)
            cpu.append(time.process_time() - used)
    return {
        "folder": str(results / "ours"),
        "seconds": clock,
        "cpu": cpu,
        "loading": loading,
        "loaded": loaded,
        "peak": peak_memory(),
    }


def ask(command: list[str], **options) -> dict:
    """The JSON object that a process prints last."""
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, **options)
    if ran.returncode:
        sys.exit(f"{command[1]} ended with code {ran.returncode}; its message is above")
    return json.loads(ran.stdout.strip().splitlines()[-1])


def compare(release: str, arguments: argparse.Namespace, root: Path) -> dict:
    """Both sides of a release."""
    folder, inputs, results = (root / release / part for part in ("weights", "in", "out"))
    folder.mkdir(parents=True, exist_ok=True)
    for old in (inputs, results):
        shutil.rmtree(old, ignore_errors=True)
    write_inputs(inputs, arguments.side)
    results.mkdir()

    def official(do: str) -> dict:
        script = Path(__file__).with_name("full_size_official.py")
        checkouts = [str(path.resolve()) for path in (arguments.official, arguments.dinov2)]
        places = [str(path.resolve()) for path in (inputs, results)]
        command = [arguments.python, str(script), do, *checkouts, str(folder.resolve())]
        return ask([*command, release, *places], cwd=folder)

    whole = folder / "weights.json"
    if not whole.exists():
        whole.write_text(json.dumps(official("weights")))
    theirs = official("pictures")
    own = [sys.executable, __file__, "--own", release, str(folder), str(inputs), str(results)]
    ours = ask(own)
    found: dict = {"release": release, "side": arguments.side * 4, "official": theirs, "ours": ours}
    found["bytes"] = sum(
        file.stat().st_size
        for file in (folder / "preset").rglob("*")
        if file.suffix in (".safetensors", ".pth")
    )
    pairs = []
    for file in sorted(inputs.iterdir()):
        sides = [Path(side["folder"]) / file.name for side in (theirs, ours)]
        pairs.append([np.asarray(Image.open(side).convert("RGB"), np.int64) for side in sides])
    difference = np.concatenate([np.abs(a - b).ravel() for a, b in pairs])
    found["differ"] = float((difference > 0).mean())
    found["largest"] = int(difference.max())
    found["deviation"] = float(np.concatenate([a.ravel() for a, _ in pairs]).std())
    return found


def report(found: list[dict]) -> str:
    """A Markdown table."""
    lines = [
        "| release, result | values that differ | by at most | time, official | ours | ratio of "
        "CPU seconds | peak memory, official | ours | after loading, of the weights' bytes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        theirs, ours = row["official"], row["ours"]
        lines.append(
            f"| {row['release']}, {row['side']} px | {row['differ']:.1e} | {row['largest']} "
            f"| {theirs['seconds'][-1]:.1f} s | {ours['seconds'][-1]:.1f} s "
            f"| {ours['cpu'][-1] / theirs['cpu'][-1]:.2f} "
            f"| {theirs['peak'] / 1e9:.1f} GB | {ours['peak'] / 1e9:.1f} GB "
            f"| {ours['loaded'] / row['bytes']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Compare, and print one table and its machine."""
    if sys.argv[1:2] == ["--own"]:
        folder, inputs, results = map(Path, sys.argv[3:])
        print(json.dumps(restore(folder, sys.argv[2], inputs, results)))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", type=Path, required=True, help="checkout of cswry/VOSR")
    parser.add_argument("--dinov2", type=Path, required=True, help="of facebookresearch/dinov2")
    parser.add_argument("--python", required=True, help="a Python with torch, diffusers and timm")
    parser.add_argument("--release", nargs="+", choices=_FOLDERS, default=list(_FOLDERS))
    parser.add_argument("--side", type=int, default=32, help="of the input; the result is x4")
    parser.add_argument("--keep", type=Path, help="folder for weights and pictures")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.keep or Path(temporary)
        found = [compare(release, arguments, root) for release in arguments.release]
    print(report(found))
    processors = os.cpu_count()
    print(f"\n{processors} cores, load {os.getloadavg()[0]:.1f}, {datetime.date.today()}, float32")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
