#!/usr/bin/env bash
# Everything that needs an accelerator, in one command of a few minutes; results in OUT.
set -euo pipefail

usage() {
  echo "usage: $0 OUT [--minutes 9] [--dry] [--pack DIR] [--official DIR]" >&2
  echo "  --dry       the same on a CPU with tiny sizes, three minutes" >&2
  echo "  --pack      what accelerator_pack.sh made, for a machine that lacks packages" >&2
  echo "  --official  a checkout of the official repository, timed beside ours" >&2
  exit 2
}

[[ $# -ge 1 && $1 != -* ]] || usage
started=$SECONDS
out=$(realpath -m "$1")
shift
pack='' minutes=9
arguments=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --dry) arguments+=(--dry); shift ;;
    --minutes) minutes=${2:?--minutes needs a number}; shift 2 ;;
    --pack) pack=$(realpath "${2:?--pack needs a folder}"); shift 2 ;;
    --official) arguments+=(--official "$(realpath "${2:?--official needs a folder}")"); shift 2 ;;
    *) usage ;;
  esac
done

cd "$(dirname "$0")/.."
if [[ -n ${PYTHON:-} ]]; then
  python=$PYTHON
elif [[ -x .venv/bin/python ]]; then
  python=.venv/bin/python
else
  python=python3
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

if [[ -n $pack ]]; then
  unpacked=$(mktemp -d)
  trap 'rm -rf "$unpacked"' EXIT
  cat "$pack"/part*/pack | tar -x -C "$unpacked"
  # Packages that the machine has stay as they are.
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
    --target "$unpacked/site" "$unpacked"/wheels/*.whl
  export PYTHONPATH="$PYTHONPATH:$unpacked/site"
  arguments+=(--unpacked "$unpacked")
fi

# Unpacking counts too: whoever lends the machine looks at the clock on the wall.
left=$(awk -v m="$minutes" -v s="$((SECONDS - started))" 'BEGIN { print m - s / 60 }')
mkdir -p "$out"
"$python" -m benchmarks.accelerator.check "$out" --minutes "$left" "${arguments[@]}"
