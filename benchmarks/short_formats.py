"""What the settings that save memory traffic cost in training: short products, stream, gradients.

    python benchmarks/short_formats.py [--steps 200] [--goldens DIR]

First the recorded steps of the official training loop (tests/goldens/train_trace): the largest
relative distance of losses and gradient norms, and the distance of the trained weights over their
change. Then a nano trained from scratch on two simulated devices with fsdp=2, once for each
setting, with the same batches: the mean loss of the last fifty steps, and the average's PSNR and
LPIPS on held-out pairs. A second seed shows how far runs lie apart anyway.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PRODUCTS = "--config.model.dtype=bfloat16"
_STREAM = "--config.model.stream_dtype=bfloat16"
_GRADIENTS = "--config.mesh.gradient_dtype=bfloat16"
ARMS = {
    "float32": (),
    "float32, another seed": ("--config.seed=77",),
    "products bfloat16": (_PRODUCTS,),
    "and the stream": (_PRODUCTS, _STREAM),
    "and the gradients": (_PRODUCTS, _GRADIENTS),
    "all three": (_PRODUCTS, _STREAM, _GRADIENTS),
}


def of_traces() -> None:
    """Print the distances from the official steps."""
    import numpy as np

    from tests.parity import goldens
    from tests.parity.test_train_trace import change_error, kinds, run_trace
    from vosr_jax.models.lightning_dit.weights import entries
    from vosr_jax.parameters.tensors import to_official

    print(
        "| recorded steps | products | stream | loss | gradient norm | weights, of their change |"
    )
    print("|---|---|---|---|---|---|")
    for kind in kinds():
        folder = goldens.folder("train_trace")
        arrays = goldens.arrays(folder / f"{kind}.npz")
        after = goldens.arrays(folder / f"{kind}_params_after.safetensors")
        for formats in (("float32",) * 2, ("bfloat16", "float32"), ("bfloat16",) * 2):
            model, train_step, state, made = run_trace(kind, *formats)
            far = [
                max(
                    abs(values[place] / float(arrays[f"{step}/{name}"]) - 1)
                    for step, values in made.items()
                )
                for place, name in enumerate(("loss", "grad_norm"))
            ]
            before = to_official(model, entries(model.settings))
            ours = to_official(train_step.network.merge(state.parameters), entries(model.settings))
            errors = [change_error(ours[name], after[name], before[name]) for name in ours]
            print(
                f"| {kind} | {' | '.join(formats)} | {far[0]:.1e} | {far[1]:.1e} "
                f"| {np.median(errors):.1e} |",
                flush=True,
            )


def of_nano(steps: int) -> None:
    """Print what a nano reaches with each setting."""
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    print(f"\n| {steps} steps of 8 | loss, last 50 steps | PSNR | LPIPS over the input's |")
    print("|---|---|---|---|")
    for name, changes in ARMS.items():
        with tempfile.TemporaryDirectory() as workdir:
            subprocess.run(
                [
                    *(sys.executable, "train.py", "--config", "configs/nano_direct.py"),
                    *("--workdir", workdir, "--config.mesh.fsdp=2", "--config.train.batch_size=8"),
                    *(f"--config.train.total_steps={steps}", f"--config.train.eval_every={steps}"),
                    *("--config.train.log_every=1", "--config.train.checkpoint_every=0"),
                    *changes,
                ],
                cwd=ROOT,
                env=os.environ | flags,
                check=True,
                stderr=subprocess.DEVNULL,
            )
            lines = (Path(workdir) / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        losses = [row["loss"] for row in rows if "loss" in row][-50:]
        end = next(row for row in rows if "eval_psnr" in row)
        print(
            f"| {name} | {sum(losses) / len(losses):.4f} | {end['eval_psnr']:.2f} "
            f"| {end['eval_lpips_over_input']:.3f} |",
            flush=True,
        )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--goldens", type=Path, help="a full set; the repository's otherwise")
    options = parser.parse_args()
    if options.goldens:
        os.environ["VOSR_GOLDENS"] = str(options.goldens)
    sys.path.insert(0, str(ROOT))
    print(f"{datetime.date.today()}, {len(os.sched_getaffinity(0))} cores\n")
    of_traces()
    of_nano(options.steps)


if __name__ == "__main__":
    main()
