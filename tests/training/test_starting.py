"""How a run of several processes gets its weights: no array travels, and none is held whole."""

import json
import math
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.training.processes import ROOT, finish
from tests.training.starting import SIZES
from tests.training.tiny import tiny_config
from vosr_jax.training.build import denoiser_blueprint
from vosr_jax.weights.export import save_export

_COLLECTIVE = re.compile(
    r"= \(?(\w+)\[([\d,]*)\].* (all-gather|all-reduce|all-to-all|reduce-scatter|"
    r"collective-permute|collective-broadcast)(?:-start)?\("
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """The export of a network whose weights are 44 MB."""
    config = tiny_config(model=SIZES)
    shapes, rng = denoiser_blueprint(config).shapes, np.random.default_rng(0)
    arrays = {k: rng.normal(size=v.shape).astype(np.float32) for k, v in shapes.items()}
    plain = json.loads(json.dumps(config.to_dict()))
    return save_export(tmp_path_factory.mktemp("teacher") / "export", plain, arrays, "float32")


def collectives(dump: Path) -> list[tuple[str, int]]:
    """(program and kind, values) of every collective in the programs that XLA compiled."""
    found = []
    for file in dump.glob("*after_optimizations.txt"):
        for _, sides, kind in _COLLECTIVE.findall(file.read_text()):
            size = math.prod(int(side) for side in sides.split(",") if side)
            found.append((f"{file.name}: {kind}", size))
    return found


@pytest.mark.slow
def test_two_processes_start_without_any_array_travelling(teacher: Path, tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for number in range(2):
        dump = tmp_path / f"dump{number}"
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count=2 --xla_dump_to={dump}",
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(number),
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.training.starting", str(teacher), str(tmp_path)],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for process in processes:
        code, output = finish(process)
        assert code == 0, output
    for number in range(2):
        told = json.loads((tmp_path / f"{number}.json").read_text())
        dump = tmp_path / f"dump{number}"
        assert any(dump.glob("*after_optimizations.txt"))
        # Numbers that processes tell each other, and no arrays.
        assert [c for c in collectives(dump) if c[1] > 8] == []
        # For the hash all once, then for the teacher and the state what lies on these devices.
        assert told["read"] <= told["whole"] + 2 * told["held"]
        assert told["held"] < 0.6 * told["whole"]
        assert told["before"] < 0.2 * told["whole"]
        # Two parts of the largest parameter, one a device.
        assert told["while"] < 0.3 * told["whole"]
