"""Train the nano on the device for the seconds that are left, and bring weights and curve back.

    python -m benchmarks.accelerator.nano OUT.json FOLDER SECONDS [--sources SOURCES] [--dry]

`configs/nano_direct.py:finish` from the shipped `nano-onestep`, with a larger batch, in two runs of
train.py. The first one has a constant learning rate and is stopped, as Ctrl-C stops it, after most
of the time; its speed tells how many steps the second one has, whose rate falls to zero. FOLDER
gets model.safetensors, config.json and metrics.jsonl.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.accelerator.record import Record

_ROOT = Path(__file__).parents[2]
_CONFIG = "configs/nano_direct.py:finish"
# Seconds for saving, export and a margin.
_CLOSING = 20.0
# Of all seconds, where the first run ends; of the rest, what the second one's steps are to take.
_CONSTANT, _FALLING = 0.6, 0.85
_BATCH, _DRY_BATCH = 128, 4
_ENDLESS = 1_000_000
_WARMUP_STEPS = 50


def overrides(sources: str | None, *, dry: bool) -> list[str]:
    """Settings for a GPU: eight times the batch, learning rates that go with it, all cores on data.

    Learning rates rise with the root of the batch. A quarter of the rows is compared by VGG16, as
    in the config.
    """
    cores = len(os.sched_getaffinity(0))
    settings = {
        "train.init_from": "nano-onestep",
        "train.batch_size": _DRY_BATCH if dry else _BATCH,
        "train.log_every": 1 if dry else 10,
        "train.checkpoint_every": 0,
        "objective.perceptual_rows": 1 if dry else 32,
        "optimizer.learning_rate": 2e-4 if dry else 6e-4,
        "optimizer.muon_learning_rate": 2e-3 if dry else 6e-3,
        "model.dtype": "float32",
        "data.workers": 0 if dry else max(cores - 2, 1),
    }
    if dry:
        settings |= {"data.crop_size": 32, "objective.perceptual_crop": 32}
    if sources is not None:
        settings["data.sources"] = sources
    return _flags(settings)


class Stage:
    """One run of train.py.

    Args:
      workdir: of the run.
      settings: overrides of the config.
    """

    def __init__(self, workdir: Path, settings: list[str]):
        self.workdir, self._settings = workdir, settings
        self._taken = 0.0

    def run(self, steps: int, seconds: float, **settings: Any) -> None:
        """Train; after so many seconds the run is asked to save and end.

        Raises:
          ChildProcessError: train.py failed.
        """
        settings = {
            "train.total_steps": steps,
            "optimizer.warmup_steps": min(_WARMUP_STEPS, steps // 10),
        } | settings
        command = [sys.executable, "train.py", "--config", _CONFIG, f"--workdir={self.workdir}"]
        command += self._settings + _flags(settings)
        begun = time.monotonic()
        process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.DEVNULL)
        try:
            code = process.wait(max(seconds, 1.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            code = process.wait()
        self._taken = time.monotonic() - begun
        if code:
            raise ChildProcessError(f"train.py ended with code {code}; run.log has its message")

    def rows(self) -> list[dict[str, Any]]:
        """The curve; none before the first step is logged."""
        file = self.workdir / "metrics.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def steps_within(self, seconds: float) -> int:
        """How many steps a run like this one makes in so many seconds, its start included."""
        last = self.rows()[-1]
        start = max(self._taken - last["step_seconds"] * last["step"], 0.0)
        return max(math.floor((seconds - start) / last["step_seconds"]), 1)


def _flags(settings: dict[str, Any]) -> list[str]:
    return [f"--config.{name}={value}" for name, value in settings.items()]


def curve(stages: list[Stage]) -> list[dict[str, Any]]:
    """Rows of all stages, their steps counted on."""
    rows: list[dict[str, Any]] = []
    for stage in stages:
        before = rows[-1]["step"] if rows else 0
        rows += [row | {"step": row["step"] + before} for row in stage.rows()]
    return rows


def summary(rows: list[dict[str, Any]], batch: int) -> dict[str, Any]:
    """What the curve says; losses are means of a tenth of the rows at either end."""
    few = max(len(rows) // 10, 1)
    return {
        "steps": rows[-1]["step"],
        "batch": batch,
        "pairs_per_second": rows[-1]["pairs_per_second"],
        "data_wait_ms": 1000 * rows[-1]["data_wait_seconds"],
        "first_loss": sum(row["loss"] for row in rows[:few]) / few,
        "last_loss": sum(row["loss"] for row in rows[-few:]) / few,
    }


def export(workdir: Path, rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """The newest averaged weights in half precision, and the curve."""
    from vosr_jax.weights.export import save_export
    from vosr_jax.weights.saved_run import load_run

    run = load_run(workdir)
    parameters = run.ema
    save_export(folder, run.config, parameters, "float16")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = {f"{file.name}, MB": file.stat().st_size / 1e6 for file in sorted(folder.iterdir())}
    return {"parameters": sum(array.size for array in parameters.values())} | sizes


def main() -> None:
    """Train with a constant rate, then with a falling one, and export what has come of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--sources", help="photographs; scikit-image's own unless given")
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    begun, seconds = time.monotonic(), options.seconds - _CLOSING
    record, settings = Record(options.out), overrides(options.sources, dry=options.dry)
    batch = _DRY_BATCH if options.dry else _BATCH
    with tempfile.TemporaryDirectory() as temporary:
        first = Stage(Path(temporary) / "constant", settings)
        second = Stage(Path(temporary) / "falling", settings)
        stages: list[Stage] = []

        def constant() -> dict[str, Any]:
            steps = 2 if options.dry else _ENDLESS
            first.run(steps, _CONSTANT * seconds, **{"optimizer.schedule": "constant"})
            stages.append(first)
            return summary(first.rows(), batch)

        def falling() -> dict[str, Any]:
            left = begun + seconds - time.monotonic()
            steps = 1 if options.dry else first.steps_within(_FALLING * left)
            second.run(steps, left, **{"train.init_from": first.workdir})
            stages.append(second)
            return summary(second.rows(), batch)

        if record.measure("nano, constant rate", constant):
            record.measure("nano, falling rate", falling)
            newest, rows = stages[-1].workdir, curve(stages)
            record.measure("nano, export", lambda: export(newest, rows, options.folder))
        # The runs have the device to themselves; it is asked for its name after them.
        record.note_machine()


if __name__ == "__main__":
    main()
