#!/usr/bin/env bash
# bash benchmarks/accelerator.sh [--quick]
#
# Measure what only an accelerator can tell: its name, the layers, and a training step against PyTorch.
# If OUT names a folder, rows go to $OUT/history.csv and the output to $OUT/accelerator.log; else rows go to
# benchmarks/history.csv.
# PYTHON names the interpreter; default: the project's .venv, else python3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=$(command -v python3)
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
history=()
if [ -n "${OUT:-}" ]; then
  history=(--history "$OUT/history.csv")
  exec > >(tee "$OUT/accelerator.log") 2>&1
fi

# Every benchmark imports fcn_jax, and a training step needs most of what fcn_jax depends on.
"$python" - <<'PYTHON' || exit 1
import importlib.metadata, re, sys, tomllib

def installed(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
needed = [re.match(r"[\w-]+", line)[0] for line in project["dependencies"]]
missing = [name for name in needed if installed(name) is None]
if missing:
    sys.exit(
        f"accelerator.sh: {', '.join(missing)} are not installed. Where there is a network: "
        f"pip install -c constraints.txt {' '.join(missing)}. Else fetch the wheels elsewhere with "
        f"pip download -c constraints.txt --only-binary=:all: -d wheels {' '.join(missing)}, bring the folder, and "
        "pip install --no-index --find-links wheels with the same names"
    )
if installed("torch") is None:
    print("PyTorch is not installed: the layers go without it, and the training step is left out.")
import jax
print("jax", jax.__version__, jax.devices())
if jax.default_backend() == "cpu":
    sys.exit("accelerator.sh: JAX finds no accelerator; install its build, such as jax[cuda12]")
PYTHON

"$python" benchmarks/layers.py "$@" "${history[@]}"
if "$python" -c 'import torch' 2>/dev/null; then "$python" benchmarks/train_step.py "$@" "${history[@]}"; fi
