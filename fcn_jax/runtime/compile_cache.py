"""What compiling leaves: programs, kept on the disk for the next start, and memory, given back."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import jax

LONG = 1.0  # seconds of compiling that leave something worth giving back
LIMIT = 4 << 30  # bytes of programs; one is 0.1 to 30 MB. Beyond it those that were written first go
ROOM = 256 << 20  # free bytes below which nothing is kept: half a file on a full disk would never be mended


def keep_compiled(cache: Path) -> None:
    """Lets JAX keep what it compiles in `<cache>/compiled`; to be called before anything is compiled.

    The results stay the same: a program is found again only for the same computation, versions of JAX and flags, and
    here also the same kind of processor and number of cores, which JAX does not ask for on CPUs. What JAX's own
    variables say (JAX_COMPILATION_CACHE_DIR, JAX_ENABLE_COMPILATION_CACHE) stays as it is. A folder that cannot be
    written or has no room costs the time to compile, nothing else.

    Args:
        cache: the folder of everything prepared.
    """
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or not jax.config.values["jax_enable_compilation_cache"]:
        return
    folder = cache / "compiled" / _host()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{os.getpid()}.trial").touch()
        (folder / f"{os.getpid()}.trial").unlink()
        if shutil.disk_usage(folder).free < ROOM:
            raise OSError("the disk is full")
        _prune(folder.parent)
    except OSError as error:
        print(f"compiled programs are not kept in {folder} ({error}): every start compiles anew", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


@functools.cache
def give_back_memory() -> None:
    """Gives memory back to the system whenever something has been compiled.

    A compiler leaves 0.4 GB, in pieces, with glibc's malloc (a step of FCN-8s on ResNet34), where no array fits in.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is None:  # another C library
        return

    def compiled(event: str, duration_secs: float, **kwargs: Any) -> None:
        if event.endswith("backend_compile_duration") and duration_secs > LONG:
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(compiled)


def _host() -> str:
    """Tells processors and numbers of cores apart: a program for one kind may not run, or differ, on another."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = [platform.processor()]
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}) or lines[:1]
    return hashlib.sha256(repr([platform.machine(), cores, kind]).encode()).hexdigest()[:16]


def _prune(folder: Path) -> None:
    """Removes what a crash of the machine left empty, and what was written first beyond the limit."""
    total = 0
    stats = [(file, file.stat()) for file in folder.glob("*/*") if file.is_file()]
    for file, stat in sorted(stats, key=lambda pair: -pair[1].st_mtime):
        total += stat.st_size
        if stat.st_size == 0 or total > LIMIT:
            file.unlink(missing_ok=True)
