"""launch.sh: what it says when it cannot go on, and that it works from any directory."""

import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


def launch(project: Path, *words: str, path: str | None = None, **variables: str) -> subprocess.CompletedProcess:
    environment = {"PATH": path or os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}
    return subprocess.run(
        ["bash", str(project / "launch.sh"), *words],
        cwd="/", env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture
def clone(tmp_path) -> Path:
    """The files that launch.sh reads, without an environment."""
    for name in ("launch.sh", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((PROJECT / name).read_text())
    return tmp_path


def fake(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text("#!/bin/bash\n" + script)
    program.chmod(0o755)


def coreutils(folder: Path) -> None:
    """The shell tools that launch.sh uses, and no Python."""
    folder.mkdir(exist_ok=True)
    for name in ("bash", "cat", "cksum", "dirname", "flock", "grep", "mkdir", "rm", "sleep"):
        for place in ("/bin", "/usr/bin"):
            if (Path(place) / name).exists() and not (folder / name).exists():
                (folder / name).symlink_to(Path(place) / name)


def test_without_words_it_says_what_to_do(clone):
    result = launch(clone)
    assert result.returncode == 1
    assert "./launch.sh PRESET" in result.stderr
    assert "./launch.sh test" in result.stderr


def test_an_unknown_accelerator_is_refused(clone):
    result = launch(clone, "fcn8s", FCN_ACCELERATOR="cuda9")
    assert result.returncode == 1
    assert "'cuda9'; it may be cuda12, cuda13, tpu or cpu" in result.stderr


def test_no_python_is_said(clone):
    coreutils(clone / "bin")
    result = launch(clone, "fcn8s", path=str(clone / "bin"), FCN_ACCELERATOR="cpu")
    assert result.returncode == 1
    assert "needs Python 3.11, 3.12 or 3.13" in result.stderr
    assert not (clone / ".venv").exists()


def test_a_wrong_python_is_said(clone):
    coreutils(clone / "bin")
    fake(clone / "bin", "python3", 'if [ "$1" = --version ]; then echo Python 3.9.2; else exit 1; fi')
    result = launch(clone, "fcn8s", path=str(clone / "bin"), FCN_ACCELERATOR="cpu")
    assert result.returncode == 1
    assert "found Python 3.9.2" in result.stderr


def record(clone: Path) -> str:
    """A stand-in for Python that writes down what it was asked for, and makes an environment of itself."""
    return f"""
echo "$@" >>{clone}/asked
case "$*" in
  *version_info*) exit 0 ;;
  "-m venv "*) mkdir -p "$3/bin"; touch "$3/pyvenv.cfg"; cp "$0" "$3/bin/python" ;;
  "-m pip install"*) [ -e {clone}/offline ] && exit 1
    bin=${{0%/*}}; printf '#!/bin/bash\\necho train "$@"' >$bin/fcn-jax; chmod +x $bin/fcn-jax ;;
esac
"""


@pytest.fixture
def recorded(clone) -> Path:
    coreutils(clone / "bin")
    for name in ("touch", "cp", "chmod"):
        (clone / "bin" / name).symlink_to(
            next(p / name for p in map(Path, ("/bin", "/usr/bin")) if (p / name).exists())
        )
    fake(clone / "bin", "python3", record(clone))
    return clone


@pytest.mark.parametrize(
    ("build", "extras"), [("cpu", ""), ("cuda12", "[cuda12]"), ("cuda13", "[cuda13]"), ("tpu", "[tpu]")]
)
def test_the_build_decides_what_is_installed_once(recorded, build, extras):
    first = launch(recorded, "fcn8s", "--steps", "3", path=str(recorded / "bin"), FCN_ACCELERATOR=build)
    assert first.returncode == 0, first.stderr
    assert first.stdout == "train train fcn8s --steps 3\n"
    asked = (recorded / "asked").read_text()
    assert f"-c {recorded}/constraints.txt -e {recorded}{extras}\n" in asked
    second = launch(recorded, "fcn8s", path=str(recorded / "bin"), FCN_ACCELERATOR=build)
    assert second.stdout == "train train fcn8s\n"
    assert second.stderr == ""
    assert (recorded / "asked").read_text() == asked


def test_test_installs_the_test_tools_and_training_needs_no_more(recorded):
    launch(recorded, "test", path=str(recorded / "bin"), FCN_ACCELERATOR="cpu")
    asked = (recorded / "asked").read_text()
    assert f"-e {recorded}[test]\n" in asked
    assert asked.endswith("-m pytest\n")
    result = launch(recorded, "fcn8s", path=str(recorded / "bin"), FCN_ACCELERATOR="cpu")
    assert result.stdout == "train train fcn8s\n"
    assert (recorded / "asked").read_text() == asked


def test_extras_are_added_and_kept(recorded):
    path = str(recorded / "bin")
    launch(recorded, "test", path=path, FCN_ACCELERATOR="cpu")
    launch(recorded, "test", "-m", "peers", path=path, FCN_ACCELERATOR="cpu", FCN_EXTRAS="peers")
    asked = (recorded / "asked").read_text()
    assert asked.count("-m venv") == 1
    assert f"-e {recorded}[test,peers]\n" in asked
    launch(recorded, "test", path=path, FCN_ACCELERATOR="cpu")
    assert (recorded / "asked").read_text() == asked + "-m pytest\n"


def test_new_requirements_are_installed_with_the_extras_that_were_there(recorded):
    path = str(recorded / "bin")
    launch(recorded, "test", path=path, FCN_ACCELERATOR="cpu")
    (recorded / "constraints.txt").write_text("jax==0.10.2\n")
    launch(recorded, "fcn8s", path=path, FCN_ACCELERATOR="cpu")
    asked = (recorded / "asked").read_text()
    assert asked.count(f"-e {recorded}[test]\n") == 2
    assert asked.count("-m venv") == 1


def test_another_accelerator_gets_a_new_environment(recorded):
    """The plugins of JAX for the old one would stay behind."""
    path = str(recorded / "bin")
    launch(recorded, "test", path=path, FCN_ACCELERATOR="cuda12")
    launch(recorded, "fcn8s", path=path, FCN_ACCELERATOR="cuda13")
    asked = (recorded / "asked").read_text()
    assert asked.count(f"-m venv {recorded}/.venv\n") == 2
    assert f"-e {recorded}[cuda12,test]\n" in asked
    assert f"-e {recorded}[cuda13]\n" in asked


def test_an_environment_for_another_kind_of_host_is_kept(recorded):
    """Hosts that share a disk may differ, and trainings may run from the environment."""
    path = str(recorded / "bin")
    launch(recorded, "fcn8s", path=path, FCN_ACCELERATOR="cuda13")
    asked = (recorded / "asked").read_text()
    fake(recorded / "bin", "nvidia-smi", "exit 0")  # this host has cuda12
    result = launch(recorded, "fcn8s", path=path)
    assert result.returncode == 1
    assert f"{recorded}/.venv has JAX for cuda13, and this host is found to have cuda12" in result.stderr
    assert "FCN_ACCELERATOR=cuda13 to use it" in result.stderr
    assert (recorded / "asked").read_text() == asked
    assert launch(recorded, "fcn8s", path=path, FCN_ACCELERATOR="cuda13").stdout == "train train fcn8s\n"


def test_an_environment_of_another_checkout_gets_this_one(recorded):
    """The project is installed in place, so another checkout would run the code of the first one."""
    path, venv = str(recorded / "bin"), str(recorded / "shared")
    launch(recorded, "fcn8s", path=path, FCN_ACCELERATOR="cpu", FCN_VENV=venv)
    other = recorded / "other"
    other.mkdir()
    for name in ("launch.sh", "pyproject.toml", "constraints.txt"):
        (other / name).write_bytes((recorded / name).read_bytes())
    (other / "launch.sh").chmod(0o755)
    launch(other, "fcn8s", path=path, FCN_ACCELERATOR="cpu", FCN_VENV=venv)
    asked = (recorded / "asked").read_text()
    assert asked.count(f"-e {recorded}\n") == asked.count(f"-e {other}\n") == 1
    assert asked.count("-m venv") == 1


@pytest.mark.parametrize("given", ["absolute", "relative"])
def test_the_environment_can_be_elsewhere(recorded, given):
    folder = recorded / "elsewhere"
    named = str(folder) if given == "absolute" else os.path.relpath(folder, "/")
    launch(recorded, "fcn8s", path=str(recorded / "bin"), FCN_ACCELERATOR="cpu", FCN_VENV=named)
    assert (folder / "installed").exists()
    assert not (recorded / ".venv").exists()


def test_a_driver_chooses_cuda(recorded):
    fake(recorded / "bin", "nvidia-smi", "exit 0")
    launch(recorded, "fcn8s", path=str(recorded / "bin"))
    assert f"-e {recorded}[cuda12]\n" in (recorded / "asked").read_text()


@pytest.mark.parametrize(
    ("vendor", "device", "extras"), [("0x1ae0", "0x0063", "[tpu]"), ("0x1ae0", "0x0042", ""), ("0x10de", "0x0063", "")]
)
def test_googles_tpu_chooses_tpu_and_its_network_card_does_not(recorded, vendor, device, extras):
    for name, text in (("vendor", vendor), ("device", device)):
        (recorded / "pci" / "0000:00:05.0").mkdir(parents=True, exist_ok=True)
        (recorded / "pci" / "0000:00:05.0" / name).write_text(text + "\n")
    launch(recorded, "fcn8s", path=str(recorded / "bin"), FCN_PCI_DEVICES=str(recorded / "pci"))
    assert f"-e {recorded}{extras}\n" in (recorded / "asked").read_text()


def test_no_network_is_said_and_nothing_counts_as_installed(recorded):
    (recorded / "offline").touch()
    result = launch(recorded, "fcn8s", path=str(recorded / "bin"), FCN_ACCELERATOR="cpu")
    assert result.returncode == 1
    assert "is there a network?" in result.stderr
    (recorded / "offline").unlink()
    assert launch(recorded, "fcn8s", path=str(recorded / "bin"), FCN_ACCELERATOR="cpu").stdout == "train train fcn8s\n"


def test_an_environment_without_pip_is_made_anew(recorded):
    """What a set-up that was stopped leaves behind."""
    fake(recorded / ".venv", "pyvenv.cfg", "")
    fake(recorded / ".venv" / "bin", "python", "exit 1")
    result = launch(recorded, "fcn8s", path=str(recorded / "bin"), FCN_ACCELERATOR="cpu")
    assert result.stdout == "train train fcn8s\n", result.stderr
    assert f"-m venv {recorded}/.venv\n" in (recorded / "asked").read_text()


def test_an_environment_of_somebody_else_is_left_alone(recorded):
    venv = recorded / "work"
    fake(venv, "pyvenv.cfg", "")
    fake(venv / "bin", "python", "exit 1")  # it has no pip
    result = launch(recorded, "fcn8s", path=str(recorded / "bin"), FCN_ACCELERATOR="cpu", FCN_VENV=str(venv))
    assert result.returncode == 1
    assert f"{venv} would have to be made anew, and was not made by launch.sh; move it away" in result.stderr
    assert sorted(file.name for file in venv.iterdir()) == ["bin", "pyvenv.cfg"]


def test_an_environment_whose_python_is_gone_is_said(recorded):
    path = str(recorded / "bin")
    launch(recorded, "fcn8s", path=path, FCN_ACCELERATOR="cpu")
    (recorded / ".venv" / "bin" / "python").rename(recorded / "elsewhere")
    result = launch(recorded, "fcn8s", path=path, FCN_ACCELERATOR="cpu")
    assert result.returncode == 1
    assert f"the Python of {recorded}/.venv is not on this host; install it again" in result.stderr


def test_a_folder_that_is_no_environment_is_left_alone(recorded):
    fake(recorded / "work", "thesis.txt", "")
    result = launch(recorded, "fcn8s", path=str(recorded / "bin"), FCN_VENV=str(recorded / "work"))
    assert result.returncode == 1
    assert "is no Python environment" in result.stderr
    assert [file.name for file in (recorded / "work").iterdir()] == ["thesis.txt"]


def test_uv_is_used_where_it_is(recorded):
    fake(recorded / "bin", "uv", f"""
echo "uv $@" >>{recorded}/asked
case "$*" in venv*) for last; do :; done; mkdir -p "$last/bin"; cp {recorded}/bin/python3 "$last/bin/python" ;;
  pip*) printf '#!/bin/bash\\necho train "$@"' >{recorded}/.venv/bin/fcn-jax; chmod +x {recorded}/.venv/bin/fcn-jax ;;
esac
""")  # fmt: skip
    result = launch(recorded, "fcn8s", path=str(recorded / "bin"), FCN_ACCELERATOR="cpu")
    assert result.stdout == "train train fcn8s\n", result.stderr
    asked = (recorded / "asked").read_text()
    assert "uv venv -q --seed --python >=3.11,<3.14" in asked  # with pip, which the pages use
    assert f"-c {recorded}/constraints.txt -e {recorded}\n" in asked
    assert "-m pip" not in asked


@pytest.mark.skipif(shutil.which("flock") is None, reason="this system has no flock")
def test_of_several_at_once_one_makes_the_environment(recorded):
    """As on hosts that share a disk. Training does not hold the lock."""
    slow = (recorded / "bin" / "python3").read_text().replace("bin=${0%/*}", "sleep 1; bin=${0%/*}")
    slow = slow.replace('echo train "$@"', 'echo train "$@"; [ -e /dev/fd/9 ] && echo holds the lock')
    fake(recorded / "bin", "python3", slow.removeprefix("#!/bin/bash\n"))
    with ThreadPoolExecutor() as pool:
        results = list(
            pool.map(
                lambda number: launch(recorded, f"{number}", path=str(recorded / "bin"), FCN_ACCELERATOR="cpu"),
                range(4),
            )
        )
    assert [result.stdout for result in results] == [f"train train {number}\n" for number in range(4)], results
    waited = f"waiting for another process that sets up {recorded}/.venv\n"
    assert sorted(result.stderr == waited for result in results) == [False, True, True, True]
    asked = (recorded / "asked").read_text()
    assert (asked.count("-m venv"), asked.count("-m pip install")) == (1, 1)


@pytest.mark.skipif(shutil.which("flock") is None, reason="this system has no flock")
def test_a_set_up_that_is_killed_frees_the_lock(recorded):
    waits = (recorded / "bin" / "python3").read_text().replace("bin=${0%/*}", "exec sleep 60")
    fake(recorded / "bin", "python3", waits.removeprefix("#!/bin/bash\n"))
    environment = {"PATH": str(recorded / "bin"), "FCN_ACCELERATOR": "cpu"}
    with subprocess.Popen(
        ["bash", str(recorded / "launch.sh"), "fcn8s"], env=environment, start_new_session=True
    ) as other:
        while "-m pip install" not in ((recorded / "asked").read_text() if (recorded / "asked").exists() else ""):
            time.sleep(0.05)
        os.killpg(other.pid, signal.SIGKILL)
    for folder, name in ((recorded / "bin", "python3"), (recorded / ".venv" / "bin", "python")):
        fake(folder, name, record(recorded))
    result = launch(recorded, "fcn8s", path=str(recorded / "bin"), FCN_ACCELERATOR="cpu")
    assert result.stdout == "train train fcn8s\n", result.stderr
    assert "waiting" not in result.stderr
