"""Where JAX looks for hardware, and that a trace of the profiler never ends the process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vosr_jax import platforms


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A machine's dev and sys, empty, and no variable that speaks of TPUs."""
    for name in platforms._TPU_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in ("dev/vfio", "sys/bus/pci/devices/0000:00:04.0"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "sys/bus/pci/devices/0000:00:04.0/vendor").write_text("0x8086\n")
    (tmp_path / "dev/vfio/vfio").touch()
    return tmp_path


def in_sight(root: Path) -> bool:
    return platforms.tpu_in_sight(f"{root}/")


def test_a_tpu_is_in_sight_by_its_files_its_bus_or_its_environment(root, monkeypatch):
    assert not in_sight(root)
    for device in ("dev/accel0", "dev/vfio/0"):
        (root / device).touch()
        assert in_sight(root), device
        (root / device).unlink()
    vendor = root / "sys/bus/pci/devices/0000:00:04.0/vendor"
    vendor.write_text("0x1ae0\n")
    assert in_sight(root)
    vendor.write_text("0x8086\n")
    monkeypatch.setenv("TPU_WORKER_ID", "0")
    assert in_sight(root)


@pytest.mark.parametrize(
    "asked, libtpu, plugins, tpu, told",
    [
        (None, True, False, False, "cpu"),
        (None, True, False, True, None),
        (None, True, True, False, None),
        (None, False, False, False, None),
        ("cuda", True, False, False, None),
    ],
)
def test_cpu_is_named_where_nothing_else_is_there(monkeypatch, asked, libtpu, plugins, tpu, told):
    import jax

    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    given: list = []
    there = {"libtpu": libtpu, "jax_plugins": plugins}
    monkeypatch.setattr(platforms, "_installed", there.__getitem__)
    monkeypatch.setattr(platforms, "entry_points", lambda group: [])
    monkeypatch.setattr(platforms, "tpu_in_sight", lambda: tpu)
    monkeypatch.setattr(type(jax.config), "jax_platforms", asked, raising=False)
    monkeypatch.setattr(jax.config, "update", lambda *setting: given.append(setting))
    platforms.use_found_platform()
    assert given == ([("jax_platforms", told)] if told else [])


TRACE = """
import sys
from pathlib import Path
import jax
from vosr_jax.errors import run_main
from vosr_jax.platforms import use_found_platform
from vosr_jax.training.timing import Profile
if sys.argv[2] == "found":
    use_found_platform()
def main():
    assert jax.default_backend() == "cpu"
    with Profile(Path(sys.argv[1]), (2, 3)) as profile:
        for number in range(1, 5):
            with profile.step(number):
                x = jax.numpy.ones(3) + number
            profile.after(number, x)
sys.exit(run_main(main))
"""


def traced(folder: Path, how: str) -> subprocess.CompletedProcess:
    own = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
    command = [sys.executable, "-c", TRACE, str(folder), how]
    return subprocess.run(
        command, env=own, capture_output=True, text=True, timeout=600, check=False
    )


def needs_libtpu_alone():
    pytest.importorskip("libtpu")
    if platforms.tpu_in_sight() or platforms._installed("jax_plugins"):
        pytest.skip("the hardware that JAX would miss is here")


def test_steps_are_traced_where_libtpu_is_installed_and_no_tpu_is_there(tmp_path):
    needs_libtpu_alone()
    done = traced(tmp_path, "found")
    assert done.returncode == 0 and "traced steps 2 to 3" in done.stderr, done.stderr
    (trace,) = tmp_path.glob("plugins/profile/*/*.xplane.pb")
    # StepTraceAnnotation's mark, by which TensorBoard counts steps.
    assert b"step_num" in trace.read_bytes()


def test_a_trace_that_would_crash_is_refused_in_a_sentence(tmp_path):
    needs_libtpu_alone()
    done = traced(tmp_path, "blind")
    assert done.returncode == 1, done.stderr
    assert "error: train.profile_steps: libtpu is loaded and there is no TPU" in done.stderr
    assert "set JAX_PLATFORMS=cpu" in done.stderr and not (tmp_path / "plugins").exists()
