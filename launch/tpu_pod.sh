#!/usr/bin/env bash
# Train on a Cloud TPU slice: copies this checkout to every worker, installs it, and runs train.py
# on all of them. Run it again after a preemption: the run goes on from its newest checkpoint.
#
#   launch/tpu_pod.sh NAME ZONE CONFIG WORKDIR [--config.key=value ...]
#
# NAME is a TPU VM that exists (gcloud compute tpus tpu-vm create, or a queued resource), WORKDIR a
# folder that all workers see, such as gs://bucket/run.
set -euo pipefail

if [[ $# -lt 4 ]]; then
  sed -n '2,9p' "$0" >&2
  exit 2
fi
name=$1 zone=$2 config=$3 workdir=$4
shift 4

here=$(cd "$(dirname "$0")/.." && pwd)
archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git -C "$here" archive --format=tar.gz -o "$archive" HEAD

on_all() {
  gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all --command "$1"
}

gcloud compute tpus tpu-vm scp "$archive" "$name":vosr_jax.tar.gz --zone "$zone" --worker=all
on_all "mkdir -p vosr_jax && tar -xzf vosr_jax.tar.gz -C vosr_jax"
on_all "cd vosr_jax && python3 -m venv .venv && .venv/bin/pip install -q '.[train,tpu]'"

# Quoted once for the shell over there.
printf -v overrides ' %q' "$@"
[[ $# -gt 0 ]] || overrides=""
printf -v run 'cd vosr_jax && .venv/bin/python train.py --distributed --config %q --workdir %q%s' \
  "$config" "$workdir" "$overrides"
on_all "$run"
