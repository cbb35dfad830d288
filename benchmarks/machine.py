"""The machine, environment, versions, commit and command that a measurement belongs to."""

import functools
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Files that a benchmark itself changes. They do not make the code differ from the commit.
WRITTEN = (":!benchmarks/history.csv", ":!benchmarks/RESULTS.md")
DEVICE = "import jax, json; device = jax.devices()[0]; print(json.dumps([device.platform, device.device_kind]))"


@functools.cache
def default_device() -> tuple[str, str]:
    """Return platform ("cpu", "gpu", "tpu") and name of JAX's default device.

    A new process asks JAX, because a process that has opened a GPU keeps memory on it, which the measurements need.
    """
    done = subprocess.run([sys.executable, "-c", DEVICE], stdout=subprocess.PIPE, text=True, check=True)
    platform_name, name = json.loads(done.stdout.splitlines()[-1])
    return platform_name, name


def has_gpu() -> bool:
    """Return whether JAX computes on a GPU by default."""
    return default_device()[0] == "gpu"


def describe_machine() -> str:
    """Name the accelerator, or else the processor, its vector instructions and its number of cores."""
    kind, name = default_device()
    return describe_processor() if kind == "cpu" else name


def describe_processor() -> str:
    """Name the processor, its vector instructions and its number of cores: "AMD EPYC (AVX2), 2 virtual cores"."""
    file = Path("/proc/cpuinfo")
    lines = (line.partition(":") for line in file.read_text().splitlines()) if file.is_file() else ()
    facts = {name.strip(): value.strip() for name, _, value in lines}
    flags = facts.get("flags", "").split()
    vectors = ["AVX-512"] if "avx512f" in flags else ["AVX2"] if "avx2" in flags else []
    vectors += ["AMX"] if "amx_tile" in flags else []
    name = facts.get("model name") or platform.processor() or platform.machine()
    name = name.replace("(R)", "") + (f" ({', '.join(vectors)})" if vectors else "")
    return f"{name}, {os.cpu_count()} {'virtual ' if 'hypervisor' in flags else ''}cores"


def describe_environment() -> str:
    """Name the settings of the process that change its speed: "huge pages", or nothing."""
    return "huge pages" if "glibc.malloc.hugetlb=1" in os.environ.get("GLIBC_TUNABLES", "") else ""


def describe_versions() -> str:
    """List the installed versions of JAX, the compiler for TPUs and PyTorch."""
    found = []
    for name in ("jax", "jaxlib", "libtpu", "torch"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def describe_commit() -> str:
    """Return the short hash of the commit, with "-dirty" behind it where files differ, or "unknown"."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        return commit + ("-dirty" if _git("diff", "--name-only", "HEAD", "--", ".", *WRITTEN) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def describe_command() -> str:
    """Return the command as typed in the repository's root. Absolute paths are cut to their last part."""
    arguments = iter(sys.argv[1:])
    typed = []
    for argument in arguments:
        if argument == "--history":
            next(arguments)
        elif not argument.startswith("--history="):
            flag, equals, value = ("", "", argument) if os.path.isabs(argument) else argument.rpartition("=")
            typed.append(flag + equals + (Path(value).name if os.path.isabs(value) else value))
    tunables = os.environ.get("GLIBC_TUNABLES")
    before = f"GLIBC_TUNABLES={shlex.quote(tunables)} " if tunables else ""
    return before + shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *typed])


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
