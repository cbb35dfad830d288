"""What `fcn-jax doctor` says of a machine."""

import re
from types import SimpleNamespace

import jax
import PIL
import pytest

from fcn_jax.runtime import doctor
from fcn_jax.runtime.doctor import describe_system, find_accelerator, name_machine


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without an accelerator, whose files lie in a folder."""
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.delenv("TPU_NAME", raising=False)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nprocessor\t: 1\n")
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 16000000 kB\nMemFree: 1 kB\nMemAvailable: 4000000 kB\n")
    return tmp_path


def put_device(machine, name: str, vendor: str, model: str) -> None:
    folder = machine / "sys" / "bus" / "pci" / "devices" / name
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(f"{vendor}\n")
    (folder / "device").write_text(f"{model}\n")


def test_the_system_is_described(machine):
    cache = machine / "cache"
    lines = dict(describe_system(cache, machine))
    assert lines["processor"].startswith("Some CPU @ 2 GHz, ")
    assert lines["memory"] == "4.10 GB of 16.38 GB free"
    packages = dict(package.split() for package in lines["packages"].split(", "))
    assert packages["jax"] == jax.__version__
    assert packages["pillow"] == PIL.__version__
    assert lines["extra plots"] == "installed"
    assert lines["devices"] == "8 of cpu: cpu"
    assert lines["accelerator"].startswith("cpu, ")
    assert "warning" not in lines
    assert lines["cache"] == f"{cache}: not made yet"


def test_the_machine_has_a_name(machine, monkeypatch):
    assert re.fullmatch(r"Some CPU @ 2 GHz, \d+ cores", name_machine(machine))
    device = SimpleNamespace(platform="gpu", device_kind="NVIDIA H200")
    monkeypatch.setattr(doctor.jax, "devices", lambda: [device, device])
    assert name_machine(machine) == "2 NVIDIA H200"


def test_the_cache_is_measured(machine):
    (machine / "cache" / "camvid" / "a").mkdir(parents=True)
    (machine / "cache" / "camvid" / "a" / "b").write_bytes(bytes(2_500_000))
    (machine / "cache" / "file").write_bytes(bytes(1_000_000))
    lines = dict(describe_system(machine / "cache", machine))
    assert lines["  camvid"] == "2.5 MB"
    assert ": 3.5 MB, " in lines["cache"]
    assert lines["cache"].endswith(" free")


def test_a_missing_extra_is_named(machine, monkeypatch):
    monkeypatch.setitem(doctor.EXTRAS, "plots", ("matplotlib", "no_such_package"))
    lines = dict(describe_system(machine / "cache", machine))
    assert lines["extra plots"] == "no_such_package missing: pip install 'fcn-jax[plots]'"


def test_an_accelerator_that_jax_does_not_use_is_warned_of(machine):
    put_device(machine, "0000:00:04.0", "0x1af4", "0x1000")
    assert find_accelerator(machine) == "cpu"
    put_device(machine, "0000:00:05.0", "0x1ae0", "0x0063")
    assert find_accelerator(machine) == "tpu"
    assert "FCN_ACCELERATOR=tpu ./launch.sh" in dict(describe_system(machine / "cache", machine))["warning"]
    (machine / "proc" / "driver" / "nvidia").mkdir(parents=True)
    (machine / "proc" / "driver" / "nvidia" / "version").write_text("")
    assert find_accelerator(machine) == "cuda12"


def test_files_that_a_machine_lacks(machine):
    (machine / "proc" / "meminfo").write_text("MemTotal: 16000000 kB\n")
    (machine / "sys" / "bus" / "pci" / "devices" / "odd").mkdir(parents=True)
    assert dict(describe_system(machine / "cache", machine))["memory"] == "not known on this system"
    assert find_accelerator(machine) == "cpu"


@pytest.mark.parametrize("sign", ["accel0", "TPU_NAME", "nvidia-smi"])
def test_other_signs_of_an_accelerator(machine, monkeypatch, sign):
    if sign == "accel0":
        (machine / "dev").mkdir()
        (machine / "dev" / "accel0").write_text("")
    elif sign == "TPU_NAME":
        monkeypatch.setenv("TPU_NAME", "a-pod")
    else:
        monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert find_accelerator(machine) == ("cuda12" if sign == "nvidia-smi" else "tpu")
