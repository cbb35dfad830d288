"""Compiled programs that a second start finds again."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax

from fcn_jax.runtime import compile_cache

COMPILED = """
import sys
from pathlib import Path
from fcn_jax.runtime.compile_cache import keep_compiled
keep_compiled(Path(sys.argv[1]))
import jax, jax.numpy as jnp
print(float(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.arange(16.0).reshape(4, 4)).sum()))
"""


def start(cache: Path, **changes: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"JAX_PLATFORMS": "cpu", **changes}
    command = [sys.executable, "-c", COMPILED, str(cache)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment)


def test_a_second_start_compiles_nothing(tmp_path):
    first = start(tmp_path)
    programs = set(tmp_path.rglob("*-cache"))
    assert programs
    second = start(tmp_path)
    assert second.stdout == first.stdout
    assert set(tmp_path.rglob("*-cache")) == programs


def test_what_exported_programs_need_is_imported_meanwhile(tmp_path):
    wait = "import threading; [t.join() for t in threading.enumerate() if t is not threading.main_thread()]"
    code = f"{COMPILED.partition('import jax,')[0]}{wait}\nprint('scipy.linalg.cython_lapack' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_a_folder_that_cannot_be_written_costs_time_alone(tmp_path):
    (tmp_path / "compiled").write_text("in the way")
    done = start(tmp_path)
    assert float(done.stdout) == float(start(tmp_path / "other").stdout)
    assert "compiled programs are not kept" in done.stderr


def test_the_users_own_folder_stays(tmp_path):
    start(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "theirs"))
    assert not (tmp_path / "ours").exists()
    assert list((tmp_path / "theirs").iterdir())


def test_a_full_disk_keeps_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")  # so that nothing is set in this process
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1 << 40, (1 << 40) - 1, 1))
    before = jax.config.values["jax_compilation_cache_dir"]
    compile_cache.keep_compiled(tmp_path)
    assert "the disk is full" in capsys.readouterr().err
    assert jax.config.values["jax_compilation_cache_dir"] == before


HOSTS = ("0123456789abcdef", "fedcba9876543210")  # names of the folders of two kinds of hosts


def test_old_and_empty_programs_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(compile_cache, "LIMIT", 250)
    for age, (name, size) in enumerate([("newest", 100), ("empty", 0), ("new", 100), ("old", 100), ("oldest", 1)]):
        file = tmp_path / HOSTS[age % 2] / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(size))
        os.utime(file, (1e9 - age, 1e9 - age))
    for name in ("empty_folder", "old_folder"):  # as XLA makes for GPUs
        (tmp_path / HOSTS[0] / name).mkdir()
        os.utime(tmp_path / HOSTS[0] / name, (1e8, 1e8))
    (tmp_path / "package").mkdir()  # somebody else's
    (tmp_path / "package" / "__init__.py").touch()
    compile_cache._prune(tmp_path)
    assert {file.name for file in tmp_path.glob("*/*") if file.is_file()} == {"newest", "new", "__init__.py"}
    assert (tmp_path / HOSTS[0] / "old_folder").is_dir()


def test_programs_that_another_process_removes_meanwhile_do_no_harm(tmp_path, monkeypatch):
    (tmp_path / HOSTS[0]).mkdir()
    (tmp_path / HOSTS[0] / "kept").write_bytes(b"program")
    (tmp_path / HOSTS[0] / "gone").symlink_to("nothing")  # in the list of the folder, and not there
    compile_cache._prune(tmp_path)
    touch = Path.touch
    monkeypatch.setattr(Path, "touch", lambda file: (touch(file), file.unlink()))
    before = jax.config.values["jax_compilation_cache_dir"]
    try:
        compile_cache.keep_compiled(tmp_path)
        assert jax.config.values["jax_compilation_cache_dir"] != before
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
