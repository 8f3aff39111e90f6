"""train.py as a process of its own, on a model small enough for a test."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = (
    "--config.model.width=16",
    "--config.model.depth=2",
    "--config.model.heads=2",
    "--config.model.detail_width=4",
    "--config.objective.perceptual_weight=0.0",
    "--config.data.crop_size=32",
    "--config.data.workers=0",
    "--config.train.batch_size=4",
    "--config.train.log_every=1",
    "--config.train.sample_every=0",
    "--config.train.eval_every=0",
    "--config.eval.crop_size=32",
)


def start(
    workdir: Path,
    cache: Path,
    *overrides: str,
    config: str = "configs/nano.py",
    environment: dict[str, str] | None = None,
    witness: Path | None = None,
) -> subprocess.Popen:
    """Begin or resume a run of a nano config made tiny; compiled programs are kept in cache.

    witness: file that gets what tests/training/witness.py writes.
    """
    own = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    own |= environment or {}
    program = ["train.py"] if witness is None else ["-m", "tests.training.witness", str(witness)]
    command = [sys.executable, *program, "--config", config, "--workdir", str(workdir)]
    return subprocess.Popen(
        [*command, *TINY, *overrides],
        cwd=ROOT,
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen, timeout: float = 300) -> tuple[int, str]:
    """(exit code, what it said)."""
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, output


def rows(workdir: Path) -> list[dict]:
    """metrics.jsonl, whole lines only."""
    file = workdir / "metrics.jsonl"
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def wait_for_step(process: subprocess.Popen, workdir: Path, step: int) -> int:
    """Until metrics.jsonl shows the step; the newest step that it shows."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        seen = max((row["step"] for row in rows(workdir)), default=0)
        if seen >= step:
            return seen
        assert process.poll() is None, finish(process)[1]
        time.sleep(0.005)
    process.kill()
    raise AssertionError(f"step {step} was not reached")
