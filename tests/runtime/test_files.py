"""Atomic writes, locks and checksums, with real processes that are killed."""

import contextlib
import errno
import hashlib
import inspect
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest

from fcn_jax.errors import InputError
from fcn_jax.runtime.files import (
    expand_home,
    lock_file,
    make_folder_atomically,
    replace_atomically,
    sha256,
    try_lock,
    try_lock_folder,
    write_atomically,
)

# The script says "in" while it is in the block, and stays there until it is killed or its input ends.
WRITE_HALF = """
import pathlib, sys
from fcn_jax.runtime.files import replace_atomically
with replace_atomically(pathlib.Path(sys.argv[1])) as temporary:
    temporary.write_text("half of the new")
    print("in", flush=True)
    sys.stdin.read()
"""
LOCK = """
import pathlib, sys
from fcn_jax.runtime.files import lock_file
with lock_file(pathlib.Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""
LOCK_FOLDER = LOCK.replace("lock_file(pathlib.Path(sys.argv[1]))", "try_lock_folder(pathlib.Path(sys.argv[1]), '')")
LOCK_FOLDER = LOCK_FOLDER.replace("import lock_file", "import try_lock_folder")


@contextlib.contextmanager
def other_process(script: str, file: Path) -> Iterator[subprocess.Popen]:
    """Runs a script in a process of its own until the block ends; entered once the script is in its block."""
    command = [sys.executable, "-c", script, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"in\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("content", "expected"), [("höhe\n", b"h\xc3\xb6he\n"), (b"\x00\xff", b"\x00\xff")])
def test_a_file_is_written_whole(tmp_path, content, expected):
    file = tmp_path / "file"
    file.write_bytes(b"what was there before, and is longer")
    write_atomically(file, content)
    assert file.read_bytes() == expected
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no space"), ValueError("of the writer"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file(tmp_path, error, sync):
    def write():
        with replace_atomically(file, sync) as temporary:
            temporary.write_text("half")
            assert file.read_text() == "old"
            raise error

    file = tmp_path / "file"
    file.write_text("old")
    with pytest.raises(type(error)) as caught:
        write()
    assert caught.value is error
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_of_several_writers_the_last_one_stays(tmp_path):
    file = tmp_path / "file"
    with replace_atomically(file, shared=True) as last:
        with replace_atomically(file, shared=True) as first:
            last.write_text("last")
            first.write_text("first")
        assert file.read_text() == "first"
    assert file.read_text() == "last"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("sync", [True, False])
def test_a_block_that_writes_nothing_is_an_error(tmp_path, sync):
    with pytest.raises(FileNotFoundError), replace_atomically(tmp_path / "file", sync):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(NotADirectoryError) as caught:
        write_atomically(tmp_path / "taken" / "file", "text")
    assert caught.value.filename == str(tmp_path / "taken" / "file")  # not the temporary name


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")
    with other_process(WRITE_HALF, file):
        assert file.read_text() == "old"
    assert file.read_text() == "old"
    write_atomically(file, "new")  # what the killed process left is not in the way, and does not stay
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_one_process_at_a_time(tmp_path, capsys):
    lock = tmp_path / "new" / "lock"
    with other_process(LOCK, lock) as other:
        before = time.monotonic()
        threading.Timer(0.3, other.kill).start()
        with lock_file(lock) as held:
            assert held
            assert time.monotonic() - before > 0.2
            assert other.wait(10)
    assert capsys.readouterr().err == f"waiting for another process that works in {lock.parent}\n"
    with lock_file(lock) as held:
        assert held
    assert capsys.readouterr().err == ""


def test_a_lock_is_refused_while_another_process_holds_it(tmp_path):
    lock = tmp_path / "lock"
    with other_process(LOCK, lock) as other:
        before = time.monotonic()
        with pytest.raises(InputError, match=r"^somebody is in there$"), try_lock(lock, "somebody is in there"):
            raise AssertionError
        assert time.monotonic() - before < 5
        assert other.poll() is None
    with try_lock(lock, "somebody is in there") as held:  # free again, as its holder was killed
        assert held
    with try_lock(lock, "somebody is in there") as held:  # and freed at the end of a block
        assert held


def test_a_folder_that_another_process_has_locked_is_refused(tmp_path):
    with (
        other_process(LOCK_FOLDER, tmp_path),
        pytest.raises(InputError, match=r"^in use$"),
        try_lock_folder(tmp_path, "in use"),
    ):
        raise AssertionError
    with try_lock_folder(tmp_path, "in use") as held:  # free again, as its holder was killed
        assert held
    assert list(tmp_path.iterdir()) == []
    with try_lock_folder(tmp_path / "none", "in use") as held:
        assert not held


def test_an_empty_folder_is_made_anew_and_stays_if_that_fails(tmp_path):
    def make():
        with make_folder_atomically(out) as folder:
            (folder / "file").touch()
            raise KeyboardInterrupt

    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(KeyboardInterrupt):
        make()
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]
    with make_folder_atomically(out) as folder:
        (folder / "file").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "file"]


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        (".", "is the working directory"),
        ("../in", "is the working directory"),
        ("../link", "cannot be made"),
        ("../broken", "is there already"),
    ],
)
def test_an_empty_folder_that_cannot_be_made_anew_is_refused_before_the_work(tmp_path, monkeypatch, out, reason):
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("out")
    (tmp_path / "broken").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path / "in")
    with pytest.raises(InputError, match=rf"^{out} {reason}.*; give "):
        make_folder_atomically(Path(out)).__enter__()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "in", "link", "out"]


def test_a_folder_that_another_program_makes_meanwhile_is_left(tmp_path):
    theirs = tmp_path / "out" / "theirs"
    with (
        pytest.raises(InputError, match=r"out cannot be made \(.*not empty\)"),
        make_folder_atomically(theirs.parent),
    ):
        theirs.mkdir(parents=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["out", "theirs"]


def test_a_lock_is_kept_out_of_the_way_of_the_same_process(tmp_path):
    with try_lock(tmp_path / "lock", "in use"):
        with pytest.raises(InputError, match="in use"), try_lock(tmp_path / "lock", "in use"):
            pass
        with try_lock(tmp_path / "other", "in use") as held:
            assert held


@pytest.mark.parametrize("lock", [lock_file, lambda file: try_lock(file, "in use")])
def test_a_file_system_without_locks_lets_everybody_in(tmp_path, monkeypatch, capsys, lock):
    def fail(descriptor, *, blocking):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(filelock, "lock_descriptor", fail)
    with lock(tmp_path / "lock") as outer, lock(tmp_path / "lock") as inner:
        assert (outer, inner) == (False, False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("lock", "flag"), [(lock_file, "--data.cache"), (lambda file: try_lock(file, "in use"), "--run-dir")]
)
def test_a_folder_that_cannot_be_written(tmp_path, lock, flag):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match=f"taken cannot be written .*{flag}"), lock(tmp_path / "taken" / "lock"):
        pass


def test_checksum_of_a_file(tmp_path):
    (tmp_path / "empty").touch()
    assert sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    data = bytes(range(256)) * 5000
    (tmp_path / "data").write_bytes(data)
    assert sha256(tmp_path / "data") == hashlib.sha256(data).hexdigest()


def test_what_is_no_path_is_refused():
    assert inspect.unwrap(expand_home)("a/b") == Path("a/b")
    with pytest.raises(InputError, match=r"None is no path; give a str or a pathlib\.Path"):
        inspect.unwrap(expand_home)(None)
