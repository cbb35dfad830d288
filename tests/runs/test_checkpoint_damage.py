"""Checkpoints that are damaged are refused; processes that are killed, and others that look on, damage none."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest
from small_checkpoints import SMALL, assert_same, folders, like, save_small

from fcn_jax.errors import InputError
from fcn_jax.runs.checkpoint import Checkpoints
from fcn_jax.runs.checkpoint_files import MANIFEST, SCORES, list_complete
from fcn_jax.runs.damage import set_aside_damaged


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pristine") / "checkpoints"
    save_small(folder, 1, 2, scores={1: 0.3, 2: 0.6})
    return folder


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


DAMAGES = {"a flipped bit": flip, "cut short": lambda content: content[: len(content) // 2], "emptied": lambda _: b""}


@pytest.mark.parametrize("damage", [*DAMAGES, "gone"])
def test_any_damage_to_any_file_is_refused(tmp_path, pristine, damage):
    names = [file.relative_to(pristine / "2") for file in sorted((pristine / "2").rglob("*")) if file.is_file()]
    assert len(names) > 8
    for number, name in enumerate(names):
        if damage == "gone" and str(name) == MANIFEST:
            continue  # a kill between a save and its checksums leaves this behind, see below
        folder = tmp_path / str(number)
        shutil.copytree(pristine, folder)
        file = folder / "2" / name
        if damage == "gone":
            file.unlink()
        else:
            file.write_bytes(DAMAGES[damage](file.read_bytes()))
        with pytest.raises(InputError) as caught, Checkpoints(folder) as checkpoints:
            checkpoints.restore(2, like(SMALL))
        text = str(caught.value)
        assert f"checkpoint {folder / '2'} is damaged: " in text
        if str(name) != MANIFEST or damage != "a flipped bit":  # a flip in the list of names can change any of them
            expected = "is missing" if damage == "gone" else "is not what was written"
            assert f": {name} {expected}; delete {folder / '2'} to use the checkpoint before it, or restore" in text
        # The remedy works.
        shutil.rmtree(folder / "2")
        with Checkpoints(folder) as checkpoints:
            assert checkpoints.latest() == checkpoints.best() == 1
            assert_same(checkpoints.restore(1, like(SMALL)), jax.tree.map(lambda x: x + 1, SMALL))


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"a": 1}', '{"1": "x"}', '{"1": {}}', '{"1": 1%s}' % ("0" * 400), "[" * 100_000]
)
def test_unreadable_scores_are_refused(tmp_path, pristine, content):
    shutil.copytree(pristine, tmp_path / "c")
    (tmp_path / "c" / SCORES).write_text(content)
    with pytest.raises(InputError, match=r"the scores of the checkpoints in .*/c cannot be read \(.*write {} into it"):
        Checkpoints(tmp_path / "c")
    (tmp_path / "c" / SCORES).write_text("{}")
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.best() == 2


@pytest.mark.parametrize("content", ["[" * 100_000, '{"custom_metadata": {"a": 1}, "unknown": 2}'])
def test_an_unreadable_description_of_a_checkpoint_is_refused(tmp_path, pristine, content):
    shutil.copytree(pristine, tmp_path / "c")
    (tmp_path / "c" / "1" / "_CHECKPOINT_METADATA").write_text(content)
    with pytest.raises(InputError, match=r"checkpoints in .*/c cannot be opened \(.*; remove the damaged one"):
        Checkpoints(tmp_path / "c")


def test_a_model_that_does_not_fit_is_refused(tmp_path, pristine):
    with Checkpoints(pristine, read_only=True) as checkpoints:
        kernel = SMALL["variables"]["params"]["kernel"]
        for other in (
            {"params": {"kernel": kernel, "bias": kernel}},
            {"params": {}},
            {"params": {"kernel": np.zeros((5, 3), np.float32)}},
        ):
            message = re.escape(f"checkpoint {pristine / '2'} is damaged or does not fit the model of its run: ")
            with pytest.raises(InputError, match=f"{message}(?s:.*)was it made by another version"):
                checkpoints.restore(2, like({"variables": other}))
        with pytest.raises(InputError, match=r"is damaged or does not fit the model of its run: .*optimizer"):
            checkpoints.restore(2, like({"optimizer": SMALL["variables"]}))


def test_the_checksums_are_of_all_files(pristine):
    noted = json.loads((pristine / "2" / MANIFEST).read_text())
    there = {str(file.relative_to(pristine / "2")) for file in (pristine / "2").rglob("*") if file.is_file()}
    assert noted.keys() == there - {MANIFEST}
    listing = "".join(f"{checksum}  {name}\n" for name, checksum in noted.items())
    if shutil.which("sha256sum"):
        command = ["sha256sum", "--check", "--strict", "-"]
        result = subprocess.run(command, input=listing, text=True, capture_output=True, cwd=pristine / "2", check=False)
        assert result.returncode == 0, result.stdout


# Processes that end early, and others that look on.


def test_an_error_in_the_loop_does_not_lose_the_save_under_way(tmp_path):
    def unlucky_training() -> None:
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(1, SMALL)
            raise KeyError("out of luck")

    with pytest.raises(KeyError, match="out of luck"):
        unlucky_training()
    assert (tmp_path / "1" / MANIFEST).is_file()
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore(1, like(SMALL)), SMALL)


def test_a_kill_between_a_save_and_its_checksums(tmp_path, pristine):
    shutil.copytree(pristine, tmp_path / "c")
    (tmp_path / "c" / "2" / MANIFEST).rename(tmp_path / "c" / "2" / f"{MANIFEST}.tmp")
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.latest() == 2
        assert_same(checkpoints.restore(2, like(SMALL)), jax.tree.map(lambda x: x + 2, SMALL))
    # They are made up for; and the half-written ones are no part of them.
    assert json.loads((tmp_path / "c" / "2" / MANIFEST).read_text()).keys() == (
        json.loads((pristine / "2" / MANIFEST).read_text()).keys()
    )
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.restore(2, like(SMALL))


def test_a_process_killed_while_it_saves_leaves_the_earlier_checkpoint(tmp_path):
    code = """
        import os, signal, sys
        from pathlib import Path
        import numpy as np
        from fcn_jax.runs.checkpoint import Checkpoints

        folder = Path(sys.argv[1])
        def items(size):
            values = np.random.default_rng(size).integers(0, 2**32, size, np.uint32)
            return {"variables": {"large": values}}
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(1, items(1000))
            checkpoints.note_score(1, 0.5)
        checkpoints = Checkpoints(folder)
        checkpoints.save(2, items(50_000_000))
        print(*os.listdir(folder), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    # It was caught in the middle: 200 MB take longer than a listing.
    (unfinished,) = set(result.stdout.split()) - {"1", SCORES}
    assert unfinished.startswith("2.")
    assert folders(tmp_path) == ["1", unfinished]

    expected = {"variables": {"large": np.random.default_rng(1000).integers(0, 2**32, 1000, np.uint32)}}
    # Whoever only looks leaves the remains alone: they could be another process at work.
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.steps() == [1]
    assert folders(tmp_path) == ["1", unfinished]
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1]
        assert (checkpoints.latest(), checkpoints.best()) == (1, 1)
        assert_same(checkpoints.restore(1, like(expected)), expected)
        checkpoints.save(2, expected)
        checkpoints.note_score(2, 0.7)
    assert folders(tmp_path) == ["1", "2"]


def test_a_reader_does_not_disturb_a_save_under_way(tmp_path):
    save_small(tmp_path, 1, scores={1: 0.5})
    large = {"variables": {"large": np.random.default_rng(0).integers(0, 2**32, 12 * 2**20, np.uint32)}}
    with Checkpoints(tmp_path) as training:
        training.save(2, large)
        training.note_score(2, 0.6)
        with Checkpoints(tmp_path, read_only=True) as reader:
            assert 1 in reader.steps()
            assert_same(reader.restore(1, like(SMALL)), jax.tree.map(lambda x: x + 1, SMALL))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1, 2]
        assert_same(checkpoints.restore(2, like(large)), large)


def test_a_last_checkpoint_that_may_not_have_reached_the_disk_is_set_aside(tmp_path, pristine, capsys):
    """As after a loss of power: the folder has its final name, and its files are empty."""
    run = tmp_path / "run"
    shutil.copytree(pristine, run / "checkpoints")
    (run / "config.json").write_text("{}")
    (run / "checkpoints" / "2" / MANIFEST).unlink()
    (run / "checkpoints" / "2" / "_CHECKPOINT_METADATA").write_bytes(b"")
    shutil.copytree(run, tmp_path / "other")
    set_aside_damaged(run)
    assert list_complete(run / "checkpoints") == [1]
    assert f"checkpoint 2 is damaged: it has no {MANIFEST}, so it may not have reached" in capsys.readouterr().err
    # Runs of a version that wrote no checksums, and a run that was killed in its first save, go on.
    (run / "checkpoints" / "1" / MANIFEST).unlink()
    set_aside_damaged(run)
    assert list_complete(run / "checkpoints") == [1]
    # It is better than one that is known to be damaged.
    (tmp_path / "other" / "checkpoints" / "1" / "_CHECKPOINT_METADATA").write_bytes(b"")
    set_aside_damaged(tmp_path / "other")
    assert list_complete(tmp_path / "other" / "checkpoints") == [1, 2]


def test_a_reader_writes_nothing(tmp_path, pristine):
    folder = tmp_path / "c"
    shutil.copytree(pristine, folder)
    (folder / "2" / MANIFEST).unlink()
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    with Checkpoints(folder, keep=1, read_only=True) as checkpoints:
        checkpoints.restore(2, like(SMALL))
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
    with Checkpoints(tmp_path / "none", read_only=True) as checkpoints:
        assert checkpoints.steps() == []
        assert checkpoints.best() is None
    assert os.listdir(tmp_path) == ["c"]
