"""Keep compiled programs on the disk for the next start."""

import contextlib
import hashlib
import os
import platform
import re
import shutil
import sys
from pathlib import Path
from stat import S_ISREG

import jax

from fcn_jax.runtime.traced import keep_in

LIMIT = 4 << 30  # bytes of programs to keep, 0.1 to 30 MB each; beyond it the oldest are removed
HOST = re.compile(r"[0-9a-f]{16}")  # name of a subfolder
ROOM = 256 << 20  # free bytes below which no programs are kept: half a file on a full disk would stay for ever


def keep_compiled(cache: Path) -> None:
    """Keep compiled and traced programs in a subfolder of `cache`. Call this before anything is compiled.

    Results stay the same: JAX finds a program again only for the same computation, versions and flags. The subfolder
    adds what JAX does not compare on CPUs, the kind of processor and the number of cores.

    JAX's own variables (JAX_COMPILATION_CACHE_DIR, JAX_ENABLE_COMPILATION_CACHE) take precedence. If the folder cannot
    be written or the disk is full, a warning is printed and every start compiles anew.

    Args:
        cache: the folder of prepared data, downloads and compiled programs.
    """
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or not jax.config.values["jax_enable_compilation_cache"]:
        return
    folder = cache / "compiled" / _hash_host()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / f"{os.getpid()}.trial"
        trial.touch()
        trial.unlink(missing_ok=True)  # another process may have pruned it
        if shutil.disk_usage(folder).free < ROOM:
            raise OSError("the disk is full")
        _prune(folder.parent)
    except OSError as error:
        print(f"compiled programs are not kept in {folder} ({error}): every start compiles anew", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    keep_in(folder)


def _hash_host() -> str:
    """Hash the kind of processor and the number of cores. A program may not run, or may differ, on others."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = [platform.processor()]
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}) or lines[:1]
    return hashlib.sha256(repr([platform.machine(), cores, kind]).encode()).hexdigest()[:16]


def _prune(folder: Path) -> None:
    """Remove files that a crash of the machine left empty, and the oldest files beyond the limit."""
    total = 0
    stats = []
    for file in folder.glob("*/*"):
        if not HOST.fullmatch(file.parent.name):  # somebody else's
            continue
        with contextlib.suppress(FileNotFoundError):  # another process prunes, too
            stat = file.stat()
            if S_ISREG(stat.st_mode):  # XLA has folders of its own there
                stats.append((file, stat))
    for file, stat in sorted(stats, key=lambda pair: -pair[1].st_mtime):
        total += stat.st_size
        if stat.st_size == 0 or total > LIMIT:
            file.unlink(missing_ok=True)
