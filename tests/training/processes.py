"""train.py as a process of its own, on a model small enough for a test."""

import json
import os
import socket
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

# Further overrides that leave less to compile.
LIGHT = (
    "--config.model.detail_width=0",
    "--config.model.depth=1",
    "--config.model.remat=none",
    "--config.autoencoder.kind=space_to_depth",
    "--config.optimizer.name=adamw",
    "--config.optimizer.learning_rate=1e-4",
)


def start(
    workdir: Path,
    cache: Path,
    *overrides: str,
    config: str = "configs/nano.py",
    environment: dict[str, str] | None = None,
    witness: Path | None = None,
    hooks: dict | None = None,
) -> subprocess.Popen:
    """Begin or resume a run of a nano config made tiny; compiled programs are kept in cache.

    witness: file that gets what tests/training/witness.py writes.
    hooks: see tests/training/hooked.py.
    """
    own = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    own |= environment or {}
    program = ["train.py"] if witness is None else ["-m", "tests.training.witness", str(witness)]
    if hooks is not None:
        program = ["-m", "tests.training.hooked", json.dumps(hooks)]
    command = [sys.executable, *program, "--config", config, "--workdir", str(workdir)]
    return subprocess.Popen(
        [*command, *TINY, *overrides],
        cwd=ROOT,
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def job(
    workdir: Path,
    cache: Path,
    count: int,
    *overrides: str,
    devices: int = 4,
    config: str = "configs/nano.py",
    hooks: dict | None = None,
) -> list[subprocess.Popen]:
    """A run of so many processes, which share simulated devices."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = f"--xla_force_host_platform_device_count={devices // count}"
    processes = []
    for number in range(count):
        own = {"XLA_FLAGS": flags, "VOSR_HEARTBEAT_SECONDS": "10"}
        if count > 1:
            own |= {
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": str(count),
                "JAX_PROCESS_ID": str(number),
            }
        processes.append(
            start(workdir, cache, *overrides, config=config, environment=own, hooks=hooks)
        )
    return processes


def finish(process: subprocess.Popen, timeout: float = 1200) -> tuple[int, str]:
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


def wait_for_line(process: subprocess.Popen, beginning: str) -> str:
    """Until the process says a line that begins so; the line, or "" at its end.

    Of a run in a bucket this is known at once, its metrics there some seconds later.
    """
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(beginning):
            return line
    return ""


def wait_for_step(process: subprocess.Popen, workdir: Path, step: int) -> int:
    """Until metrics.jsonl shows the step; the newest step that it shows."""
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        seen = max((row["step"] for row in rows(workdir)), default=0)
        if seen >= step:
            return seen
        assert process.poll() is None, finish(process)[1]
        time.sleep(0.005)
    process.kill()
    raise AssertionError(f"step {step} was not reached")
