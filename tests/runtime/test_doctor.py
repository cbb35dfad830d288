"""What `fcn-jax doctor` says of a machine."""

import jax
import PIL

from fcn_jax.runtime import doctor
from fcn_jax.runtime.doctor import describe_system


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


def test_a_missing_package_is_named(machine, monkeypatch):
    monkeypatch.setattr(doctor, "FILES", ("pillow", "no_such_package"))
    assert dict(describe_system(machine / "cache", machine))["packages"].endswith("no_such_package missing")


def test_a_file_that_leaves_the_cache_meanwhile_does_no_harm(machine):
    (machine / "cache").mkdir()
    (machine / "cache" / "kept").write_bytes(bytes(2_500_000))
    (machine / "cache" / "gone").symlink_to("nothing")  # in the list of the folder, and not there
    assert ": 2.5 MB, " in dict(describe_system(machine / "cache", machine))["cache"]


def test_the_memory_of_a_container_is_told(machine):
    for name, text in (("memory.max", "3e9"), ("memory.current", "1e9")):
        file = machine / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(int(float(text))))
    (machine / "sys/fs/cgroup/memory.stat").write_text("inactive_file 0\nactive_file 0\n")
    (machine / "proc/self").mkdir()
    (machine / "proc/self/cgroup").write_text("0::/\n")
    lines = dict(describe_system(machine / "cache", machine))
    assert lines["memory"] == "4.10 GB of 16.38 GB free, and 2.00 GB in this container or job"


def test_an_accelerator_that_jax_does_not_use_is_warned_of(machine):
    (machine / "dev").mkdir()
    (machine / "dev" / "accel0").write_text("")
    lines = dict(describe_system(machine / "cache", machine))
    assert lines["accelerator"].startswith("tpu, ")
    assert "FCN_ACCELERATOR=tpu ./launch.sh" in lines["warning"]


def test_a_system_that_does_not_tell_its_memory(machine):
    (machine / "proc" / "meminfo").write_text("MemTotal: 16000000 kB\n")
    assert dict(describe_system(machine / "cache", machine))["memory"] == "not known on this system"
