"""Launch recipes: what of them can be checked without a cluster."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = ("tpu_pod.sh", "slurm.sbatch")


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_valid_bash_and_tell_their_usage(name):
    subprocess.run(["bash", "-n", LAUNCH / name], check=True)
    told = subprocess.run(["bash", LAUNCH / name], capture_output=True, text=True, check=False)
    assert told.returncode == 2 and "CONFIG WORKDIR" in told.stderr


def test_the_pod_script_runs_train_py_on_all_workers_with_the_overrides(tmp_path):
    gcloud = tmp_path / "gcloud"
    gcloud.write_text('#!/bin/bash\nprintf "%s\\n" "$*" >> "$CALLS"\n')
    gcloud.chmod(0o755)
    calls = tmp_path / "calls"
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls)}
    arguments = ["pod", "zone-a", "configs/vosr_1_4b.py:512", "gs://b/run", "--config.seed=3"]
    subprocess.run(["bash", LAUNCH / "tpu_pod.sh", *arguments], env=environment, check=True)
    said = calls.read_text().splitlines()
    assert all("pod" in line and "--worker=all" in line for line in said) and len(said) == 4
    assert (
        "train.py --distributed --config configs/vosr_1_4b.py:512 --workdir gs://b/run" in said[3]
    )
    assert said[3].endswith("--config.seed=3")


def test_slurm_gives_every_process_its_number_and_requeues_what_was_stopped(tmp_path):
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
    )
    python.chmod(0o755)
    (tmp_path / "vosr-77.log").write_text(
        "stopped at step 9 and saved; run the same command to go on\n"
    )
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "STARTED": str(tmp_path / "started"),
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
    assert (tmp_path / "requeued").read_text() == "requeue 77\n"


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
    flags = (ROOT / "train.py").read_text()
    for argument in container["args"]:
        name = argument.removeprefix("--").split("=")[0].split(".")[0]
        assert f'"{name}"' in flags
    config = next(a for a in container["args"] if a.startswith("--config=")).split("=")[1]
    assert (ROOT / config.split(":")[0]).is_file()


@pytest.mark.parametrize("name", ["Dockerfile.tpu", "Dockerfile.gpu"])
def test_dockerfiles_copy_what_is_there_and_do_not_run_as_root(name):
    lines = (LAUNCH / name).read_text().splitlines()
    sources = [part for line in lines if line.startswith("COPY ") for part in line.split()[1:-1]]
    assert sources and all((ROOT / source).exists() for source in sources)
    assert re.match(r"FROM \S+:\S+", next(line for line in lines if line.startswith("FROM")))
    user = next(i for i, line in enumerate(lines) if line.startswith("USER "))
    entry = next(i for i, line in enumerate(lines) if line.startswith("ENTRYPOINT "))
    assert user < entry and '"train.py"' in lines[entry]
    assert not any(line.startswith("RUN") for line in lines[user:])
