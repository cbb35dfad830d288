"""Names of processors and accelerators."""

import re
import shutil
from types import SimpleNamespace

import jax
import pytest

from fcn_jax.runtime.machine import find_accelerator, name_machine


def put_device(machine, name: str, vendor: str, model: str) -> None:
    folder = machine / "sys" / "bus" / "pci" / "devices" / name
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(f"{vendor}\n")
    (folder / "device").write_text(f"{model}\n")


def test_the_machine_has_a_name(machine, monkeypatch):
    assert re.fullmatch(r"Some CPU @ 2 GHz, \d+ cores", name_machine(machine))
    device = SimpleNamespace(platform="gpu", device_kind="NVIDIA H200")
    monkeypatch.setattr(jax, "devices", lambda: [device, device])
    assert name_machine(machine) == "2 NVIDIA H200"


def test_an_accelerator_is_found_by_its_driver_and_its_bus(machine):
    (machine / "sys" / "bus" / "pci" / "devices" / "odd").mkdir(parents=True)
    assert find_accelerator(machine) == "cpu"
    put_device(machine, "0000:00:04.0", "0x1af4", "0x1000")
    assert find_accelerator(machine) == "cpu"
    put_device(machine, "0000:00:05.0", "0x1ae0", "0x0063")
    assert find_accelerator(machine) == "tpu"
    (machine / "proc" / "driver" / "nvidia").mkdir(parents=True)
    (machine / "proc" / "driver" / "nvidia" / "version").write_text("")
    assert find_accelerator(machine) == "cuda12"


@pytest.mark.parametrize("sign", ["accel0", "TPU_NAME", "nvidia-smi"])
def test_other_signs_of_an_accelerator(machine, monkeypatch, sign):
    if sign == "accel0":
        (machine / "dev").mkdir()
        (machine / "dev" / "accel0").write_text("")
    elif sign == "TPU_NAME":
        monkeypatch.setenv("TPU_NAME", "a-pod")
    else:
        monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert find_accelerator(machine) == ("cuda12" if sign == "nvidia-smi" else "tpu")
