"""Name the processor and the accelerators of this machine."""

import contextlib
import os
import platform
import shutil
from pathlib import Path

import jax

# Vendor and devices of Google's TPUs on the PCI bus, v3 to v7x, as in launch.sh.
TPU_VENDOR, TPU_DEVICES = "0x1ae0", {f"0x00{device}" for device in ("27", "56", "5e", "62", "63", "6f", "76")}


def name_machine(root: Path = Path("/")) -> str:
    """Name the accelerators that JAX computes on, or else the processor and its number of cores.

    Args:
        root: folder of the system's files.
    """
    devices = jax.devices()
    if devices[0].platform == "cpu":
        return f"{name_processor(root)}, {os.cpu_count()} cores"
    return f"{len(devices)} {', '.join(sorted({d.device_kind for d in devices}))}"


def find_accelerator(root: Path = Path("/")) -> str:
    """Find which build of JAX fits the machine, as launch.sh does: "cuda12", "tpu" or "cpu".

    Args:
        root: folder of the system's files.
    """
    if (root / "proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):
        return "cuda12"
    for device in (root / "sys/bus/pci/devices").glob("*"):
        with contextlib.suppress(OSError):  # some devices of virtual machines lack the files
            vendor, model = ((device / name).read_text().strip() for name in ("vendor", "device"))
            if vendor == TPU_VENDOR and model in TPU_DEVICES:
                return "tpu"
    return "tpu" if list((root / "dev").glob("accel*")) or os.environ.get("TPU_NAME") else "cpu"


def name_processor(root: Path = Path("/")) -> str:
    """Name the processor.

    Args:
        root: folder of the system's files.
    """
    file = root / "proc/cpuinfo"
    for line in file.read_text().splitlines() if file.exists() else []:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()
