"""The notebooks: what is stored in them, and that they run from top to bottom."""

import base64
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vosr_jax.planning.plan import SlicePlan
from vosr_jax.planning.topology import parse_topology

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = ("upscale", "train_on_your_photographs", "plan_a_pod", "ablation_sweep")
# A folder from the root of somebody's disk, not what follows an address or a word.
_ABSOLUTE = re.compile(r"(?<![\w./:])(/[a-z]\w*/[\w.-]+|[A-Z]:\\\\)")
_PICTURES = ("image/png", "image/jpeg")


def read(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.ipynb").read_text())


def code_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text_of(output: dict) -> str:
    """All of an output but its pictures."""
    data = {k: v for k, v in output.get("data", {}).items() if k not in _PICTURES}
    return json.dumps([output.get("text", ""), data])


def check_outputs(notebook: dict) -> None:
    """No error, no path of somebody's disk, nothing large."""
    for cell in code_cells(notebook):
        for output in cell["outputs"]:
            assert output["output_type"] != "error", output
            text = text_of(output)
            assert not _ABSOLUTE.search(text), text
            assert len(text) < 8_000
            for kind in _PICTURES:
                picture = output.get("data", {}).get(kind, "")
                assert len(base64.b64decode("".join(picture))) < 100_000


def test_every_notebook_is_told_of_here_and_in_the_docs():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES)
    page = (FOLDER.parent / "docs" / "notebooks.md").read_text()
    assert all(f"notebooks/{name}.ipynb" in page for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_stored_outputs_are_small_and_tell_of_no_machine(name):
    notebook = read(name)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 300_000
    check_outputs(notebook)
    counts = [cell["execution_count"] for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), "run it from top to bottom"
    outputs = [output for cell in code_cells(notebook) for output in cell["outputs"]]
    assert outputs and all(output.get("name") != "stderr" for output in outputs)


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_files(name):
    for cell in read(name)["cells"]:
        if cell["cell_type"] == "markdown":
            for target in re.findall(r"\]\(([^)#]+)", "".join(cell["source"])):
                assert (FOLDER / target).exists(), target


def first_cells() -> list[str]:
    return ["".join(code_cells(read(name))[0]["source"]) for name in NAMES]


def test_all_begin_with_the_same_cell():
    assert len(set(first_cells())) == 1


_BARE = """
import importlib.util, json, pathlib, subprocess, sys, types
accelerator, code, held = json.loads(sys.argv[1])
importlib.util.find_spec = lambda name: None
for name in held:
    sys.modules[name] = types.ModuleType(name)
pathlib.Path.glob = lambda self, pattern: [self] if accelerator == "tpu" else []
def answer(command, **_):
    if command == "nvidia-smi -L":
        return types.SimpleNamespace(returncode=int(accelerator != "gpu"))
    print("asked for", command[-1])
    return types.SimpleNamespace(returncode=code)
subprocess.run = answer
try:
    exec(sys.stdin.read(), {})
except Exception as error:
    print(*error._render_traceback_(), sep="\\n")
"""


def first_cell_says(accelerator: str, *held: str, code: int = 0) -> list[str]:
    """Lines of the first cell in a process without vosr_jax, with these modules loaded."""
    given = json.dumps([accelerator, code, held])
    command = [sys.executable, "-c", _BARE, given]
    cell = first_cells()[0]
    done = subprocess.run(command, input=cell, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "accelerator, extras", [("gpu", "train,gpu"), ("tpu", "train,tpu"), ("cpu", "train")]
)
def test_on_colab_the_first_cell_installs_what_fits_the_machine(accelerator, extras):
    said = first_cell_says(accelerator, "google.colab")
    assert said == [f"asked for vosr_jax[{extras}]"]


def test_colab_is_told_to_restart_where_old_packages_are_loaded():
    asked, said = first_cell_says("cpu", "google.colab", "numpy")
    assert asked.startswith("asked") and "Restart session" in said


def test_colab_is_told_where_pip_fails():
    _, said = first_cell_says("cpu", "google.colab", code=1)
    assert said.startswith("pip could not install vosr_jax[train]")


def test_elsewhere_a_kernel_without_the_package_gets_one_sentence():
    (said,) = first_cell_says("cpu")
    assert "make setup" in said


def test_the_first_cell_does_nothing_where_the_package_is(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("something was run"))
    exec(compile(first_cells()[0], "first cell", "exec"), {})


@pytest.mark.parametrize("file", sorted((FOLDER / "plans").glob("*.json")), ids=lambda f: f.stem)
def test_stored_plans_are_what_their_names_say(file):
    plan = json.loads(file.read_text())
    assert plan.keys() == {field.name for field in dataclasses.fields(SlicePlan)}
    topology, batch, remat = file.stem.rsplit("-", 2)
    assert plan["topology"] == topology.replace("-", ":")
    assert parse_topology(plan["topology"]).chips == 16
    assert (plan["batch_size"], plan["remat"]) == (int(batch), remat)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    running = pytest.importorskip("nbmake.nb_run")
    # What notebooks make in the system's folder for temporary files goes with the test's own.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    result = running.NotebookRun(FOLDER / f"{name}.ipynb", default_timeout=1200).execute()
    assert result.error is None, result.error.trace
    check_outputs(result.nb)
