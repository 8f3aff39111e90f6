#!/usr/bin/env bash
# Train on a Cloud TPU slice over ssh.
#
#   launch/tpu_pod.sh create NAME ZONE TYPE RUNTIME    ask for a spot slice: v5p-128 v2-alpha-tpuv5
#   launch/tpu_pod.sh run NAME ZONE CONFIG WORKDIR [--config.key=value ...]
#   launch/tpu_pod.sh logs NAME ZONE                   follow what the first worker says
#   launch/tpu_pod.sh stop NAME ZONE                   save and leave
#
# run copies this checkout's last commit to every worker, installs it and starts train.py on all,
# which outlives the connection. After a preemption: create, then the same run, which goes on from
# the newest checkpoint. WORKDIR is one that all workers see: gs://BUCKET/FOLDER, or a folder on NFS.
# The slice's service account must be allowed to read and write the bucket.
set -euo pipefail

usage() {
  sed -n '4,7p' "$0" >&2
  exit 2
}

# All at once: in batches the first workers would wait for the last in vain.
on_all() {
  gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all --batch-size=all --command "$1"
}

create() {
  [[ $# -eq 2 ]] || usage
  gcloud compute tpus queued-resources create "$name" --node-id "$name" --zone "$zone" \
    --accelerator-type "$1" --runtime-version "$2" --spot
}

run() {
  [[ $# -ge 2 ]] || usage
  local here archive arguments
  here=$(cd "$(dirname "$0")/.." && pwd)
  archive=$(mktemp --suffix=.tar.gz)
  # shellcheck disable=SC2064
  trap "rm -f '$archive'" EXIT
  git -C "$here" archive --format=tar.gz -o "$archive" HEAD
  gcloud compute tpus tpu-vm scp "$archive" "$name":vosr_jax.tar.gz --zone "$zone" --worker=all
  # The images' own Python may be older than the package's oldest.
  on_all "set -e; mkdir -p vosr_jax; tar -xzf vosr_jax.tar.gz -C vosr_jax; cd vosr_jax
    PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install -q --user uv
    python3 -m uv venv -q --allow-existing --python 3.11 .venv
    python3 -m uv pip install -q --python .venv/bin/python '.[train,tpu,gcs]'"
  # Quoted once for the shell over there.
  printf -v arguments ' %q' --distributed --config "$1" --workdir "${@:2}"
  on_all "cd vosr_jax || exit 1
    nohup .venv/bin/python train.py$arguments >> ~/vosr.log 2>&1 < /dev/null &
    echo \$! > ~/vosr.pid"
}

logs() {
  gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=0 \
    --command "tail -n 100 -F vosr.log"
}

# One worker that is told is enough, and all may be.
stop() {
  on_all "kill -TERM \$(cat vosr.pid)"
}

[[ $# -ge 3 ]] || usage
action=$1 name=$2 zone=$3
shift 3
case $action in
  create | run | logs | stop) "$action" "$@" ;;
  *) usage ;;
esac
