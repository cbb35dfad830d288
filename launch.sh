#!/usr/bin/env bash
# ./launch.sh PRESET [flags]   sets up .venv once, then `fcn-jax train PRESET [flags]`
# ./launch.sh test [flags]     the same with the test tools, then the whole test suite; flags go to pytest
# FCN_ACCELERATOR=cuda12|cuda13|tpu|cpu   overrides which build of JAX is installed
# FCN_PYTHON=...                          overrides which Python makes .venv
set -euo pipefail
project=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=$project/.venv

fail() { echo "launch.sh: $*" >&2; exit 1; }

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

find_python() {
  local candidate
  for candidate in ${FCN_PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if fits "$candidate"; then command -v "$candidate"; return; fi
  done
  fail "needs Python 3.11, 3.12 or 3.13, and found $(${FCN_PYTHON:-python3} --version 2>&1 || true);" \
    "install one, or name it by FCN_PYTHON=/path/to/python3.12"
}

# A PCI device of Google's (0x1ae0) that is a TPU: v3 to v7x. Newer ones show no /dev/accel*.
has_tpu() {
  local device
  for device in ${FCN_PCI_DEVICES:-/sys/bus/pci/devices}/*; do
    grep -qs 0x1ae0 "$device/vendor" && grep -qsE '^0x00(27|56|5e|62|63|6f|76)$' "$device/device" && return
  done
  compgen -G '/dev/accel*' >/dev/null || [ -n "${TPU_NAME:-}" ]
}

accelerator() {
  if [ -n "${FCN_ACCELERATOR:-}" ]; then echo "$FCN_ACCELERATOR"
  elif [ -e /proc/driver/nvidia/version ] || command -v nvidia-smi >/dev/null; then echo cuda12
  elif has_tpu; then echo tpu
  else echo cpu; fi
}

# Installs the project with the given extras, unless .venv already holds just that.
set_up() {
  local extras=$1 stamp
  stamp="$extras $(cat "$project/pyproject.toml" "$project/constraints.txt" | cksum)"
  [ -x "$venv/bin/fcn-jax" ] && [ "$(cat "$venv/installed" 2>/dev/null)" = "$stamp" ] && return
  local python install
  echo "setting up $venv (${extras:-cpu}); this is done once" >&2
  if command -v uv >/dev/null; then
    [ -x "$venv/bin/python" ] || uv venv -q --python "${FCN_PYTHON:->=3.11,<3.14}" "$venv" || fail "uv could not make $venv"
    install=(uv pip install -q --python "$venv/bin/python")
  else
    python=$(find_python)
    # What a call that was stopped, or a Python without ensurepip, left behind has no pip: it is made anew.
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv" ||
      fail "$python could not make $venv; on Debian and Ubuntu install python3-venv"
    install=("$venv/bin/python" -m pip install -q --disable-pip-version-check)
  fi
  "${install[@]}" -c "$project/constraints.txt" -e "$project${extras:+[$extras]}" ||
    fail "the packages could not be installed (see above); is there a network? Behind a mirror, set pip's index-url"
  echo "$stamp" >"$venv/installed"
}

# XLA allocates a step's buffers anew; without huge pages a fifth of a step on CPUs goes into 4 KiB page faults.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}

[ $# -gt 0 ] || fail "say what to do: ./launch.sh PRESET [flags] (fcn8s, fcn16s, fcn32s, ...) or ./launch.sh test"
build=$(accelerator)
case $build in
  cuda12 | cuda13 | tpu) extras=$build ;;
  cpu) extras= ;;
  *) fail "FCN_ACCELERATOR is '$build'; it may be cuda12, cuda13, tpu or cpu" ;;
esac
if [ "$1" = test ]; then
  shift
  set_up "${extras:+$extras,}test${FCN_EXTRAS:+,$FCN_EXTRAS}"
  cd "$project"
  exec "$venv/bin/python" -m pytest "$@"
fi
# A test installation holds all that training needs.
[ -x "$venv/bin/fcn-jax" ] && grep -q "^${extras:+$extras,}test" "$venv/installed" 2>/dev/null &&
  extras=$(cut -d' ' -f1 "$venv/installed")
set_up "$extras"
exec "$venv/bin/fcn-jax" train "$@"
