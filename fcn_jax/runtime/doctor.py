"""Describe the machine and the installation, for a user who wonders why something does not work."""

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax

import fcn_jax
from fcn_jax.runtime.devices import require_devices
from fcn_jax.runtime.host_memory import read_free_memory
from fcn_jax.runtime.machine import find_accelerator, name_processor
from fcn_jax.runtime.memory import format_bytes
from fcn_jax.runtime.versions import PACKAGES, read_versions

FILES = ("pillow", "safetensors")  # packages that read and write files
EXTRAS = {
    "export": ("onnx", "onnxruntime"),
    "bucket": ("s3fs", "gcsfs"),
    "demo": ("gradio",),
    "bands": ("tifffile",),
    "plots": ("matplotlib",),
    "peers": ("torch", "torchvision"),
}


def describe_system(cache: Path, root: Path = Path("/")) -> Iterator[tuple[str, str]]:
    """Describe the system line by line: what is asked, and the answer. JAX's backends are started for it.

    Args:
        cache: folder of prepared data and compiled programs.
        root: folder of the system's files.

    Raises:
        InputError: JAX cannot start; what is independent of it is yielded before.
    """
    yield "fcn_jax", f"{fcn_jax.__version__} in {Path(__file__).parents[1]}"
    yield "Python", f"{platform.python_version()} on {platform.platform()}"
    yield "processor", f"{name_processor(root)}, {os.cpu_count()} cores"
    yield "memory", _describe_memory(root)
    yield "packages", ", ".join(map(_describe_package, (*PACKAGES, *FILES)))
    for extra, names in EXTRAS.items():
        missing = [name for name in names if importlib.util.find_spec(name) is None]
        install = f"{', '.join(missing)} missing: pip install 'fcn-jax[{extra}]'"
        yield f"extra {extra}", install if missing else "installed"
    require_devices()
    devices = jax.devices()
    yield "devices", f"{len(devices)} of {devices[0].platform}: {', '.join(sorted({d.device_kind for d in devices}))}"
    found = find_accelerator(root)
    yield "accelerator", f"{found}, by the drivers of this machine; launch.sh installs the build of JAX for it"
    if found != "cpu" and devices[0].platform == "cpu":
        yield (
            "warning",
            (
                f"JAX computes on CPUs, and the drivers are those of {found}: give "
                f"FCN_ACCELERATOR={found} ./launch.sh PRESET, or take JAX_PLATFORMS=cpu away"
            ),
        )
    yield "cache", f"{cache}: {_describe_folder(cache)}"
    for folder in sorted(cache.iterdir()) if cache.is_dir() else []:
        if folder.is_dir():
            yield f"  {folder.name}", _describe_folder(folder, with_room=False)


def _describe_memory(root: Path) -> str:
    file = root / "proc/meminfo"
    if not file.exists():
        return "not known on this system"
    lines = (line.split() for line in file.read_text().splitlines())
    kilobytes = {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1}
    if not {"MemAvailable", "MemTotal"} <= kilobytes.keys():
        return "not known on this system"
    free, whole = (format_bytes(1024 * kilobytes[name]) for name in ("MemAvailable", "MemTotal"))
    left = read_free_memory(root)
    limited = f", and {format_bytes(left)} in this container or job" if left < 1024 * kilobytes["MemAvailable"] else ""
    return f"{free} of {whole} free{limited}"


def _describe_package(name: str) -> str:
    try:
        return f"{name} {read_versions((name,))[name]}"
    except importlib.metadata.PackageNotFoundError:
        return f"{name} missing"


def _describe_folder(folder: Path, with_room: bool = True) -> str:
    if not folder.is_dir():
        return "not made yet"
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # another process may change the cache meanwhile
                size += Path(place, name).stat().st_size
    return format_bytes(size) + (f", {format_bytes(shutil.disk_usage(folder).free)} free" if with_room else "")
