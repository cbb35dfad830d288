#!/usr/bin/env bash
# ./launch.sh PRESET [flags]   makes .venv the first time, then runs `fcn-jax train PRESET [flags]`
# ./launch.sh test [flags]     adds the test tools, then runs the test suite; flags go to pytest
#
# FCN_ACCELERATOR=cuda12|cuda13|tpu|cpu   the build of JAX to install; default: what the host has
# FCN_PYTHON=/path/to/python3.12          the Python that .venv is made with; default: the first that fits
# FCN_EXTRAS=peers,plots                  further extras of pyproject.toml to install; default: none
# FCN_VENV=DIR                            the environment; default: .venv beside this file
set -euo pipefail
project=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${FCN_VENV:-$project/.venv}
[[ $venv == /* ]] || venv=$PWD/$venv
venv=${venv%/}

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

# Whether the host has a TPU: a PCI device of Google (0x1ae0), v3 to v7x. Newer ones have no /dev/accel*.
has_tpu() {
  local device
  for device in ${FCN_PCI_DEVICES:-/sys/bus/pci/devices}/*; do
    grep -qs 0x1ae0 "$device/vendor" && grep -qsE '^0x00(27|56|5e|62|63|6f|76)$' "$device/device" && return
  done
  compgen -G '/dev/accel*' >/dev/null || [ -n "${TPU_NAME:-}" ]
}

find_accelerator() {
  if [ -n "${FCN_ACCELERATOR:-}" ]; then echo "$FCN_ACCELERATOR"
  elif [ -e /proc/driver/nvidia/version ] || command -v nvidia-smi >/dev/null; then echo cuda12
  elif has_tpu; then echo tpu
  else echo cpu; fi
}

# Make the environment anew. One that FCN_VENV names may be somebody's own, so it has to have our mark, the file `made`.
make_environment() {
  local python
  [ ! -e "$venv" ] || [ -e "$venv/pyvenv.cfg" ] || fail "$venv is there and is no Python environment; move it away"
  [ -z "${FCN_VENV:-}" ] || [ ! -e "$venv" ] || [ -e "$venv/made" ] ||
    fail "$venv would have to be made anew, and was not made by launch.sh; move it away, or give another FCN_VENV"
  command -v uv >/dev/null || python=$(find_python)
  echo "setting up $venv; this is done once" >&2
  rm -rf "$venv"
  if command -v uv >/dev/null; then
    uv venv -q --seed --python "${FCN_PYTHON:->=3.11,<3.14}" "$venv" || fail "uv could not make $venv"
  else
    "$python" -m venv "$venv" || fail "$python could not make $venv; on Debian and Ubuntu install python3-venv"
  fi
  echo "by launch.sh" >"$venv/made"
}

# Install packages into the environment; the arguments are those of `pip install`.
install() {
  if command -v uv >/dev/null; then uv pip install -q --python "$venv/bin/python" "$@"
  else "$venv/bin/python" -m pip install -q --disable-pip-version-check "$@"; fi
}

# Whether packages can be added to the environment: a set-up that was stopped may have left one without pip.
is_usable() {
  if command -v uv >/dev/null; then [ -x "$venv/bin/python" ]
  else "$venv/bin/python" -m pip --version >/dev/null 2>&1; fi
}

# Set `extras` to those the environment has and those asked for ($2), and return whether it has all of them, for the
# accelerator ($1) and the present requirements.
# The file `installed` says what it has: a checksum of the requirements and of where the project and the environment are
# (neither can be moved), the accelerator, the extras.
is_set_up() {
  local had_checksum='' had_extras='' extra
  had_accelerator=''
  read -r checksum _ < <({ echo "$project $venv"; cat "$project/pyproject.toml" "$project/constraints.txt"; } | cksum)
  if [ -e "$venv/installed" ]; then read -r had_checksum had_accelerator had_extras <"$venv/installed" || true; fi
  [ "$had_accelerator" = "$1" ] || had_checksum='' had_extras=''
  extras=$had_extras
  for extra in ${2//,/ }; do
    [[ ,$extras, == *,$extra,* ]] || extras+=${extras:+,}$extra
  done
  [ "$had_checksum $had_extras" = "$checksum $extras" ] && [ -x "$venv/bin/fcn-jax" ]
}

# Hold a lock while the environment is changed: several hosts may share the disk. The system frees it when we end.
lock() {
  command -v flock >/dev/null || return 0
  mkdir -p "$(dirname "$venv")"
  exec 9>>"$venv.lock"
  local status=0
  flock -n 9 || status=$?
  [ "$status" -eq 1 ] || return 0  # 0: locked; other than 1: a disk without locks
  echo "waiting for another process that sets up $venv" >&2
  flock -w 3600 9 || fail "another process has been setting up $venv for an hour; end it, or give another FCN_VENV"
}

# Install the project for an accelerator ($1) with extras ($2, separated by commas), unless the environment has them.
# Extras are only ever added. Hosts that share a disk may differ, so an environment for another accelerator is kept, and
# that is an error. If FCN_ACCELERATOR is given, it is made anew, so that no JAX plugin stays behind.
set_up() {
  local accelerator=$1 checksum had_accelerator extras
  if is_set_up "$@"; then return; fi
  lock
  if is_set_up "$@"; then exec 9>&-; return; fi  # another process has done it meanwhile

  had_accelerator=${had_accelerator:-$accelerator}
  [ -n "${FCN_ACCELERATOR:-}" ] || [ "$had_accelerator" = "$accelerator" ] ||
    fail "$venv has JAX for $had_accelerator, and this host is found to have $accelerator; other hosts may be\
 training with this environment. Give FCN_ACCELERATOR=$had_accelerator to use it, FCN_ACCELERATOR=$accelerator to make it anew, or another\
 FCN_VENV"
  if [ "$had_accelerator" != "$accelerator" ] || ! is_usable; then make_environment; fi
  echo "installing the packages${extras:+ for $extras} in $venv" >&2
  echo "unfinished $accelerator" >"$venv/installed"
  local all=$accelerator,$extras
  all=${all#cpu,} all=${all%,}
  install -c "$project/constraints.txt" -e "$project${all:+[$all]}" ||
    fail "the packages could not be installed (see above); is there a network? Behind a mirror, set pip's index-url"
  echo "$checksum $accelerator $extras" >"$venv/installed"
  exec 9>&-  # so that the training does not hold the lock
}

# Run a program of the environment ($1) with its arguments in place of this script.
run() {
  [ -x "$venv/bin/python" ] ||
    fail "the Python of $venv is not on this host; install it again, move $venv away, or give another FCN_VENV"
  exec "$venv/bin/$1" "${@:2}"
}

# XLA allocates the buffers of every step anew. Without huge pages, page faults of 4 KiB take a fifth of a step on CPUs.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}

[ $# -gt 0 ] || fail "say what to do: ./launch.sh PRESET [flags] (fcn8s, fcn16s, fcn32s, ...) or ./launch.sh test"
accelerator=$(find_accelerator)
case $accelerator in
  cuda12 | cuda13 | tpu | cpu) ;;
  *) fail "FCN_ACCELERATOR is '$accelerator'; it may be cuda12, cuda13, tpu or cpu" ;;
esac

if [ "$1" = test ]; then
  shift
  set_up "$accelerator" "test,${FCN_EXTRAS:-}"
  cd "$project"
  run python -m pytest "$@"
fi
set_up "$accelerator" "${FCN_EXTRAS:-}"
run fcn-jax train "$@"
