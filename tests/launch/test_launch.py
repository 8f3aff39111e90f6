"""Launch recipes: what of them can be checked without a cluster."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vosr_jax.cli import main
from vosr_jax.data.workers import bytes_needed
from vosr_jax.sweeps import running
from vosr_jax.sweeps.trials import load_sweep

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = ("tpu_pod.sh", "slurm.sbatch", "sweep.sbatch")
ACCELERATOR = ("accelerator_check.sh", "accelerator_pack.sh")
DOCKERFILES = ("Dockerfile.tpu", "Dockerfile.gpu")


def tool(name: str) -> str:
    """A linter beside this Python."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def lint(command: list) -> None:
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.parametrize("name", SCRIPTS + ACCELERATOR)
def test_shellcheck_has_no_complaint(name):
    lint([tool("shellcheck"), LAUNCH / name])


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_has_no_complaint(name):
    lint([tool("hadolint"), LAUNCH / name])


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_valid_bash_and_tell_their_usage(name):
    subprocess.run(["bash", "-n", LAUNCH / name], check=True)
    told = subprocess.run(["bash", LAUNCH / name], capture_output=True, text=True, check=False)
    assert told.returncode == 2 and re.search("(CONFIG|FILE) WORKDIR", told.stderr)


@pytest.mark.parametrize("name", ACCELERATOR)
@pytest.mark.parametrize("arguments", [(), ("--dry",), ("out", "--unknown")])
def test_accelerator_scripts_tell_their_usage(name, arguments, tmp_path):
    command = ["bash", LAUNCH / name, *arguments]
    told = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert told.returncode == 2 and "usage: " in told.stderr
    assert not list(tmp_path.iterdir())


def pod_script(tmp_path, *arguments):
    """What the script says, and what it asks of gcloud."""
    gcloud = tmp_path / "gcloud"
    gcloud.write_text('#!/bin/bash\nprintf "%s\\n" "$*" >> "$CALLS"\n')
    gcloud.chmod(0o755)
    calls = tmp_path / "calls"
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls)}
    command = ["bash", LAUNCH / "tpu_pod.sh", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done, calls.read_text() if calls.exists() else ""


def test_the_pod_script_starts_train_py_on_all_workers_at_once_with_the_overrides(tmp_path):
    arguments = ["run", "pod", "zone-a", "configs/vosr_1_4b.py:512", "/runs/a b", "--config.seed=3"]
    done, asked = pod_script(tmp_path, *arguments)
    assert done.returncode == 0
    calls = asked.split("compute tpus tpu-vm ")[1:]
    assert [call.split()[:2] for call in calls[1:]] == [["ssh", "pod"]] * 2
    assert all("--worker=all" in call and "--zone zone-a" in call for call in calls)
    assert all("--batch-size=all" in call for call in calls[1:])
    started = calls[2].split("nohup .venv/bin/python ")[1].split(" >>")[0]
    # As the shell over there reads it.
    read = subprocess.run(
        ["bash", "-c", f"printf '%s|' {started}"], capture_output=True, text=True, check=True
    )
    assert read.stdout.rstrip("|").split("|") == [
        *("train.py", "--distributed", "--config", "configs/vosr_1_4b.py:512"),
        *("--workdir", "/runs/a b", "--config.seed=3"),
    ]


def test_the_pod_script_takes_a_bucket_and_installs_what_reads_it(tmp_path):
    done, asked = pod_script(tmp_path, "run", "pod", "zone-a", "configs/nano.py", "gs://b/run")
    assert done.returncode == 0 and "--workdir gs://b/run" in asked
    assert ".[train,tpu,gcs]" in asked


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["create", "pod", "zone-a", "v5p-128", "v2-alpha-tpuv5"], "--accelerator-type v5p-128"),
        (["logs", "pod", "zone-a"], "tail -n 100 -F vosr.log"),
        (["stop", "pod", "zone-a"], "kill -TERM $(cat vosr.pid)"),
    ],
)
def test_the_pod_script_creates_follows_and_stops(arguments, wanted, tmp_path):
    done, asked = pod_script(tmp_path, *arguments)
    assert done.returncode == 0 and wanted in asked and asked.count("\n") == 1


@pytest.mark.parametrize("stopped", [True, False])
def test_slurm_gives_every_process_its_number_and_requeues_what_was_stopped(tmp_path, stopped):
    for name, body in {
        "scontrol": 'case "$1" in show) echo node7;; requeue) echo "$*" > "$REQUEUED";; esac',
        "srun": 'shift; SLURM_PROCID=3 SLURM_LOCALID=1 exec "$@"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        '#!/bin/bash\necho "$JAX_COORDINATOR_ADDRESS $JAX_NUM_PROCESSES $JAX_PROCESS_ID '
        '$CUDA_VISIBLE_DEVICES $*" > "$STARTED"\n'
        'echo "$SAID" >&2\n'
    )
    python.chmod(0o755)
    message = "stopped at step 9 and saved; run the same command to go on"
    assert message.partition("; ")[2] in (ROOT / "vosr_jax/training/loop.py").read_text()
    # That of an earlier life tells nothing.
    (tmp_path / "vosr-77.log").write_text(message + "\n")
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "STARTED": str(tmp_path / "started"),
        "SAID": message if stopped else "done",
        "REQUEUED": str(tmp_path / "requeued"),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "77",
        "SLURM_NTASKS": "16",
        "SLURM_JOB_NODELIST": "node[7-8]",
    }
    arguments = ["configs/nano.py", "/shared/run", "--config.seed=3"]
    subprocess.run(["bash", LAUNCH / "slurm.sbatch", *arguments], env=environment, check=True)
    assert (tmp_path / "started").read_text().split() == [
        *("node7:10077", "16", "3", "1", "train.py"),
        *("--config", "configs/nano.py", "--workdir", "/shared/run", "--config.seed=3"),
    ]
    if stopped:
        assert (tmp_path / "requeued").read_text() == "requeue 77\n"
    else:
        assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize(("step", "code"), [(3, 42), (10, 0)])
def test_a_stopped_run_leaves_with_the_code_that_the_jobset_asks_for(step, code, tmp_path):
    program = f"""
import runpy, sys, types
import vosr_jax.training.loop as loop
loop.train = lambda *_, **__: types.SimpleNamespace(step={step})
sys.argv = ["train.py", "--config=configs/nano.py", "--workdir={tmp_path}",
            "--config.train.total_steps=10", "--stopped_exit_code=42"]
runpy.run_path("train.py", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == code


def check_shared_memory_of(volumes: list, mount: dict) -> None:
    """Memory lies where workers hand batches over, and enough for 8 of them at 32 pairs."""
    assert mount["mountPath"] == "/dev/shm"
    volume = next(v for v in volumes if v["name"] == mount["name"])["emptyDir"]
    size, unit = re.fullmatch(r"(\d+)(Gi)", volume["sizeLimit"]).groups()
    assert volume["medium"] == "Memory" and unit == "Gi"
    assert int(size) << 30 > bytes_needed(workers=8, buffers=2, rows=32, crop_size=512)


def test_containers_get_shared_memory_in_every_command_that_starts_one():
    for file in ("README.md", "Dockerfile.gpu"):
        lines = [line for line in (LAUNCH / file).read_text().splitlines() if "docker run" in line]
        assert lines and all("--shm-size" in line for line in lines), file


def test_the_jobset_asks_for_whole_hosts_and_names_flags_that_exist():
    job = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    assert job["kind"] == "JobSet" and job["apiVersion"].startswith("jobset.x-k8s.io/")
    (replicated,) = job["spec"]["replicatedJobs"]
    inner = replicated["template"]["spec"]
    pod = inner["template"]["spec"]
    (container,) = pod["containers"]
    sizes = [int(n) for n in pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")]
    chips = sizes[0] * sizes[1] * sizes[2]
    assert inner["parallelism"] * container["resources"]["limits"]["google.com/tpu"] == chips
    assert inner["parallelism"] == inner["completions"]
    # A pod that was preempted and left with 0 would count as finished.
    assert "--stopped_exit_code=42" in container["args"] and inner["backoffLimit"] == 0
    (shared,) = container["volumeMounts"]
    check_shared_memory_of(pod["volumes"], shared)
    workdir = next(a for a in container["args"] if a.startswith("--workdir=")).split("=")[1]
    # What all hosts see without a mount, with what reads it in the image.
    assert workdir.startswith("gs://")
    assert ".[train,tpu,gcs]" in (LAUNCH / "Dockerfile.tpu").read_text()
    flags = (ROOT / "train.py").read_text()
    for argument in container["args"]:
        name = argument.removeprefix("--").split("=")[0].split(".")[0]
        assert f'"{name}"' in flags
    config = next(a for a in container["args"] if a.startswith("--config=")).split("=")[1]
    assert (ROOT / config.split(":")[0]).is_file()


def test_a_slurm_array_runs_the_trial_of_its_number(tmp_path):
    vosr = tmp_path / ".venv" / "bin" / "vosr"
    vosr.parent.mkdir(parents=True)
    vosr.write_text('#!/bin/bash\nprintf "%s " "$SLURM_ARRAY_TASK_ID" "$@" > "$STARTED"\n')
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/bash\nexec "$@"\n')
    for program in (vosr, srun):
        program.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "STARTED": str(tmp_path / "started"),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_ARRAY_TASK_ID": "7",
    }
    arguments = ["configs/sweeps/paper.py", "/shared/sweep", "--config.train.total_steps=9"]
    subprocess.run(["bash", LAUNCH / "sweep.sbatch", *arguments], env=environment, check=True)
    assert (tmp_path / "started").read_text().split() == [
        *("7", "sweep", "run", "configs/sweeps/paper.py", "--workdir", "/shared/sweep"),
        *("--array", "--config.train.total_steps=9"),
    ]


def test_the_sweep_job_has_an_index_for_every_trial_and_runs_that_alone(monkeypatch):
    job = yaml.safe_load((LAUNCH / "sweep_job.yaml").read_text())
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert container["command"] == ["vosr"]
    asked = []
    monkeypatch.setattr(running, "run_trials", lambda *given: asked.append(given) or [])
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "44")
    assert main(container["args"]) == 0
    ((chosen, workdir, _),) = asked
    trials = load_sweep(ROOT / container["args"][2]).trials
    assert chosen == [trials[44]]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == len(trials)
    mount, shared = container["volumeMounts"]
    assert str(workdir).startswith(mount["mountPath"] + "/")
    volumes = spec["template"]["spec"]["volumes"]
    assert mount["name"] == volumes[0]["name"]
    check_shared_memory_of(volumes, shared)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dockerfiles_copy_what_is_there_and_do_not_run_as_root(name):
    lines = (LAUNCH / name).read_text().splitlines()
    sources = [part for line in lines if line.startswith("COPY ") for part in line.split()[1:-1]]
    assert sources and all((ROOT / source).exists() for source in sources)
    assert re.match(r"FROM \S+:\S+", next(line for line in lines if line.startswith("FROM")))
    user = next(i for i, line in enumerate(lines) if line.startswith("USER "))
    entry = next(i for i, line in enumerate(lines) if line.startswith("ENTRYPOINT "))
    assert user < entry and '"train.py"' in lines[entry]
    assert not any(line.startswith("RUN") for line in lines[user:])
