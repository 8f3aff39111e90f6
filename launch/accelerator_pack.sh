#!/usr/bin/env bash
# What a bare machine with a GPU lacks for accelerator_check.sh, in files small enough to carry there.
set -euo pipefail

usage() {
  echo "usage: $0 DIR [--photographs FOLDER] [--part MIB]" >&2
  echo "  DIR           gets part1/pack, part2/pack, ...; 60 MiB in all" >&2
  echo "  --photographs reduced until they fit, for the nano's training" >&2
  echo "  --part        the largest part, in MiB; 60 unless given" >&2
  exit 2
}

[[ $# -ge 1 && $1 != -* ]] || usage
dir=$(realpath -m "$1")
shift
photographs='' part=60
while [[ $# -gt 0 ]]; do
  case $1 in
    --photographs) photographs=$(realpath "${2:?--photographs needs a folder}"); shift 2 ;;
    --part) part=${2:?--part needs a number}; shift 2 ;;
    *) usage ;;
  esac
done

most_mib=60
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/pack"

# Of the packages that train.py needs: those that come with neither JAX's nor PyTorch's images. clu is
# of no use without TensorFlow, which is too large to carry; metrics.jsonl has what it would write.
packages=(grain array_record ml_collections portpicker cloudpickle importlib_resources)
wanted=()
for name in "${packages[@]}"; do
  wanted+=("$name==$("$python" -c "import importlib.metadata as m; print(m.version('$name'))")")
done
platforms=()
for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
  platforms+=(--platform "${tag}_x86_64")
done
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
  --implementation cp "${platforms[@]}" --dest "$work/pack/wheels" "${wanted[@]}"

"$python" -m benchmarks.accelerator.lpips_weights "$work/pack/vgg16.npz"

# The checkout brings tests/goldens itself; only folders that it leaves out travel.
if [[ -n ${VOSR_GOLDENS:-} ]]; then
  for kind in lightningdit dinov2 autoencoders samplers pipeline; do
    for folder in "$VOSR_GOLDENS/$kind"/*/; do
      [[ -d $folder ]] || continue
      name=$kind/$(basename "$folder")
      [[ -d tests/goldens/$name ]] && continue
      mkdir -p "$work/pack/goldens/$kind"
      cp -r "$folder" "$work/pack/goldens/$name"
    done
  done
fi

size_kib() { du -sk --apparent-size "$1" | cut -f1; }

if [[ -n $photographs ]]; then
  # tar and the file system round up; half a MiB is for that.
  left=$(awk -v m="$most_mib" -v k="$(size_kib "$work/pack")" 'BEGIN { print m - 0.5 - k / 1024 }')
  "$python" -m benchmarks.accelerator.photographs "$photographs" "$work/pack/photographs" \
    --mib "$left"
fi

tar -c -C "$work/pack" -f "$work/pack.tar" --sort=name --owner=0 --group=0 .
total=$(stat -c %s "$work/pack.tar")
if ((total > most_mib * 1024 * 1024)); then
  echo "error: the pack has $total bytes, more than $most_mib MiB" >&2
  exit 1
fi
rm -rf "$dir"/part[0-9]*
mkdir -p "$dir"
split -b "${part}M" --numeric-suffixes=1 -a 2 "$work/pack.tar" "$work/piece"
for piece in "$work"/piece[0-9]*; do
  place=$dir/part${piece##*piece}
  mkdir "$place"
  mv "$piece" "$place/pack"
done
for content in "$work"/pack/*; do
  printf '%8.1f MiB  %s\n' "$(awk -v k="$(size_kib "$content")" 'BEGIN { print k / 1024 }')" \
    "$(basename "$content")"
done
for piece in "$dir"/part*/pack; do
  printf '%8.1f MiB  %s\n' "$(awk -v b="$(stat -c %s "$piece")" 'BEGIN { print b / 1048576 }')" \
    "$piece"
done
