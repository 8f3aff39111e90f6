"""Train steps that were compiled before their job started."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.training.processes import LIGHT, finish, job
from tests.training.tiny import tiny_config
from vosr_jax.compilation_cache import no_compilation_cache
from vosr_jax.errors import UserError
from vosr_jax.training import executable
from vosr_jax.training.abstract import abstract_run
from vosr_jax.training.build import mesh_of
from vosr_jax.training.executable import Identity, identity, load_executable, save_executable
from vosr_jax.training.loop import train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(path, abstract run, lowered step, its identity, compiled step) of a tiny step."""
    config = tiny_config()
    mesh = mesh_of(config)
    run = abstract_run(config, mesh)
    lowered = run.lower()
    own = identity(run.train_step, lowered, mesh)
    path = tmp_path_factory.mktemp("executable") / "step"
    with no_compilation_cache():
        compiled = lowered.compile()
    save_executable(path, compiled, own)
    return path, run, lowered, own, compiled


def _arguments(run):
    """Arrays of ones with the shardings of the step's arguments."""

    def ones(leaf):
        value = np.ones(leaf.shape, leaf.dtype)
        return jax.device_put(value, leaf.sharding) if leaf.sharding else value

    return jax.tree.map(ones, (run.state, run.weights, run.batch))


def test_a_loaded_step_gives_the_same_bits(saved):
    path, run, lowered, own, compiled = saved
    loaded, _ = load_executable(path, lowered, own, run.mesh)
    assert loaded is not None
    expected = jax.device_get(compiled(*_arguments(run)))
    found = jax.device_get(loaded(*_arguments(run)))
    jax.tree.map(np.testing.assert_array_equal, expected, found)


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Identity)])
def test_an_executable_of_something_else_is_not_run(saved, field):
    path, run, lowered, own, _ = saved
    other = dataclasses.replace(own, **{field: "another"})
    loaded, why = load_executable(path, lowered, other, run.mesh)
    assert loaded is None
    assert why.startswith(f"another {field}")


def test_an_executable_that_the_backend_refuses_is_not_run(saved, monkeypatch):
    path, run, lowered, own, _ = saved
    monkeypatch.setattr(executable, "deserialize_and_load", lambda *_, **__: 1 / 0)
    loaded, why = load_executable(path, lowered, own, run.mesh)
    assert loaded is None
    assert "ZeroDivisionError" in why


def test_flags_count_as_a_set(saved, monkeypatch):
    _, run, lowered, own, _ = saved
    flags = os.environ.get("XLA_FLAGS", "")
    monkeypatch.setenv("XLA_FLAGS", f"  {flags} ")
    assert identity(run.train_step, lowered, run.mesh) == own
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_tpu_other=true")
    assert identity(run.train_step, lowered, run.mesh).options != own.options


def test_a_damaged_or_foreign_file_is_refused(saved, tmp_path):
    path, run, lowered, own, _ = saved
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    damaged, foreign = tmp_path / "damaged", tmp_path / "foreign"
    damaged.write_bytes(data)
    foreign.write_text("{}\n")
    with pytest.raises(UserError, match="damaged"):
        load_executable(damaged, lowered, own, run.mesh)
    with pytest.raises(UserError, match="no train step"):
        load_executable(foreign, lowered, own, run.mesh)
    with pytest.raises(UserError, match="missing"):
        load_executable(tmp_path / "missing", lowered, own, run.mesh)


def test_a_start_finds_the_step_that_a_plan_compiled(tmp_path, capsys):
    config = tiny_config(train={"total_steps": 2, "batch_size": 8})
    mesh = mesh_of(config)
    run = abstract_run(config, mesh)
    lowered = run.lower()
    path = tmp_path / "step"
    with no_compilation_cache():
        compiled_step = lowered.compile()
    save_executable(path, compiled_step, identity(run.train_step, lowered, mesh))
    compiled = train(config, tmp_path / "compiled")
    given = dataclasses.replace(config.train, executable=str(path))
    loaded = train(dataclasses.replace(config, train=given), tmp_path / "loaded")
    assert "is not used" not in capsys.readouterr().err
    jax.tree.map(
        np.testing.assert_array_equal, *map(jax.device_get, (compiled.state, loaded.state))
    )


def test_a_start_of_another_step_says_so_and_compiles(saved, tmp_path, capsys):
    given = {"total_steps": 1, "batch_size": 8, "executable": str(saved[0])}
    config = tiny_config(train=given)
    train(config, tmp_path / "run")
    assert "is compiled now: another program" in capsys.readouterr().err


def test_it_does_so_on_several_devices():
    done = subprocess.run(
        [*(sys.executable, "-m", "pytest", "-q", __file__), "-k", "finds_the_step"],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.slow
def test_two_processes_decide_together(saved, tmp_path):
    steps = ("--config.train.total_steps=2", f"--config.train.executable={saved[0]}")
    said = [finish(one) for one in job(tmp_path / "run", tmp_path / "cache", 2, *LIGHT, *steps)]
    assert [code for code, _ in said] == [0, 0], said
    assert "is compiled now: another program" in said[0][1]
    damaged = tmp_path / "damaged"
    damaged.write_bytes(saved[0].read_bytes()[:-1])
    steps = (steps[0], f"--config.train.executable={damaged}")
    said = [finish(one) for one in job(tmp_path / "no", tmp_path / "cache", 2, *LIGHT, *steps)]
    for code, output in said:
        assert code == 1, output
        assert f"{damaged} is damaged" in output
        assert "Traceback" not in output
