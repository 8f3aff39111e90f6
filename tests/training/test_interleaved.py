"""Processes whose devices lie mixed in the mesh are one process: rows, losses, incidents."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest

from tests.training.processes import LIGHT, ROOT, finish, job, rows
from vosr_jax.config import validate
from vosr_jax.data.pipeline import places, sample_maker
from vosr_jax.data.sources import parse_sources
from vosr_jax.training.setup import pipeline_settings

STEPS, DEVICES, ROWS, POISONED = 5, 8, 16, 37
OPTIONS = (
    *LIGHT,
    f"--config.train.total_steps={STEPS}",
    f"--config.train.batch_size={ROWS}",
    "--config.train.checkpoint_every=0",
    "--config.mesh.fsdp=4",
    "--config.mesh.data=2",
)
# No process has neighbours, and none has its own place.
ORDER = [5, 0, 3, 6, 1, 4, 7, 2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Workdirs one, 2 and 4, of so many processes with the same devices."""
    folder = tmp_path_factory.mktemp("interleaved")
    for name, count in (("one", 1), ("2", 2), ("4", 4)):
        hooks = {"rows": f"{folder}/{name}.rows.", "poison": POISONED}
        if count > 1:
            hooks["order"] = ORDER
        members = job(
            folder / name, folder / "cache", count, *OPTIONS, devices=DEVICES, hooks=hooks
        )
        for process in members:
            code, output = finish(process, timeout=900)
            assert code == 0, output
    return folder


def on_devices(folder: Path, name: str) -> dict[tuple[int, int], tuple[int, str]]:
    """(index, hash of the pictures) of every (batch, row) of the steps, over all processes."""
    found = {}
    for file in folder.glob(f"{name}.rows.*"):
        for line in map(json.loads, file.read_text().splitlines()):
            if line["batch"] < STEPS:
                place = line["batch"], line["row"]
                assert place not in found, f"row {place} lies twice"
                found[place] = line["index"], line["hash"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["2", "4"])
def test_every_row_of_every_batch_is_one_processes(runs: Path, name: str):
    expected, found = on_devices(runs, "one"), on_devices(runs, name)
    assert len(expected) == STEPS * ROWS and found == expected
    assert sorted(index for index, _ in found.values()) == list(range(STEPS * ROWS))
    own = {line["row"] for line in map(json.loads, (runs / f"{name}.rows.0").open())}
    assert own != set(range(len(own))), "the devices are not mixed"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["2", "4"])
def test_losses_are_one_processes_to_a_millionth(runs: Path, name: str):
    expected, found = ([row["loss"] for row in rows(runs / who)] for who in ("one", name))
    assert len(expected) == STEPS and np.isnan(expected[2])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one", "2", "4"])
def test_the_incident_names_the_sample_and_its_replay_gives_its_pictures(runs: Path, name: str):
    (incident,) = map(json.loads, (runs / name / "incidents.jsonl").open())
    assert incident["kind"] == "skipped" and incident["step"] == 3
    assert incident["indices"] == [POISONED]
    settings = pipeline_settings(validate(json.loads((runs / name / "config.json").read_text())))
    sources = parse_sources(settings.sources)
    sample = sample_maker(settings, sources)(POISONED, places(settings, sources)[POISONED])
    replayed = hashlib.sha256(np.stack([sample.hr, sample.lq]).tobytes()).hexdigest()[:16]
    assert (POISONED, replayed) in on_devices(runs, name).values()


@pytest.mark.parametrize("mesh", [(1, 4, 1), (2, 2, 1), (2, 1, 2)], ids=str)
def test_two_processes_put_their_rows_where_they_belong_and_tell_each_other(mesh):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.training.placed_rows", *map(str, mesh)]
    members = []
    for number in range(2):
        own = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(number),
        }
        members.append(
            subprocess.Popen(command, cwd=ROOT, env=own, stdout=PIPE, stderr=PIPE, text=True)
        )
    first, second = (told(process) for process in members)
    assert first["right"] and second["right"]
    assert first["notes"] == second["notes"] == [3, 10]
    assert first["failure"] == second["failure"]
    assert first["failure"].startswith("process 1 (") and "the disk is gone" in first["failure"]
    assert first["named"] == ["0.png", "1.png"] and first["left"] == 0
    loaded = first["rows"] + second["rows"]
    if mesh[2] == 1:
        assert sorted(loaded) == list(range(8))
        assert np.diff(first["rows"]).max() > 1, "the devices are not mixed"
    else:
        assert first["rows"] == second["rows"] == list(range(8))


def told(process: subprocess.Popen) -> dict:
    output, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(output.strip().splitlines()[-1])
