"""Runs in a bucket: what is copied when, what counts as complete, and who writes.

The bucket is fsspec's, in memory. Checkpoints are folders with a few files, since the mirror reads none but the scores.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import jax
import numpy as np
import pytest

from fcn_jax.errors import Diverged, InputError, Stopped, WriteFailed
from fcn_jax.runs import mirror
from fcn_jax.runs.checkpoint import Checkpoints
from fcn_jax.runs.checkpoint_files import MANIFEST
from fcn_jax.runs.mirror import Mirror, copy_for_reading, open_mirror
from fcn_jax.runtime import bucket

URL = "memory://bucket/run"


@pytest.fixture
def store(monkeypatch) -> Iterator[fsspec.AbstractFileSystem]:
    monkeypatch.setattr(bucket, "STORES", ("memory",))
    monkeypatch.setattr(mirror, "PAUSES", (0, 0))
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    yield memory
    memory.store.clear()


def write(file: Path, text: str = "{}") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def save(run: Path, *steps: int) -> None:
    """Writes what a training has after some steps, of which the first is the best."""
    write(run / "config.json", '{"steps": 9}')
    write(run / "metrics.jsonl", "".join(f'{{"step": {step}, "split": "val"}}\n' for step in steps))
    write(run / "checkpoints/scores.json", json.dumps({step: 1 / step for step in steps}))
    write(run / "tensorboard/events.1", f"{steps}")
    write(run / "lock", "")
    for step in steps:
        write(run / f"checkpoints/{step}/variables/d/{step}", f"variables {step}")
        write(run / f"checkpoints/{step}" / MANIFEST)


def claim(folder: Path, *steps: int) -> Mirror:
    """A training that has saved some steps and claims its run."""
    folder.mkdir()
    training = Mirror(URL, folder)
    save(folder, *steps)
    training.claim()
    return training


def tree(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def objects(store: fsspec.AbstractFileSystem) -> dict[str, str]:
    return {name.removeprefix("/bucket/run/"): store.cat(name).decode() for name in store.find("/bucket/run")}


def test_the_bucket_has_all_but_the_lock_and_another_machine_goes_on_from_it(store, tmp_path):
    claim(tmp_path / "one", 4, 8)
    expected = tree(tmp_path / "one")
    del expected["lock"]
    there = objects(store)
    assert there.pop("trainer")
    assert there == expected
    (tmp_path / "two").mkdir()
    Mirror(URL, tmp_path / "two")
    del expected["tensorboard/events.1"]  # TensorBoard reads several files
    assert tree(tmp_path / "two") == expected


def test_a_checkpoint_whose_upload_was_cut_short_does_not_count(store, tmp_path, monkeypatch):
    training = claim(tmp_path / "one", 4)
    save(tmp_path / "one", 4, 8)
    put_file, uploads = type(store).put_file, []

    def fail(self, local, *args, **kwargs):
        uploads.append(local)
        if local.endswith(MANIFEST):
            raise ConnectionError("the network is down")
        put_file(self, local, *args, **kwargs)

    monkeypatch.setattr(type(store), "put_file", fail)
    with pytest.raises(WriteFailed, match=rf"^{URL} cannot be written \(the network is down\); mend that"):
        training.upload()
    assert len(uploads) == 2 * (1 + len(mirror.PAUSES))  # each attempt has uploaded the variables first
    monkeypatch.undo()
    monkeypatch.setattr(bucket, "STORES", ("memory",))

    assert "checkpoints/8/variables/d/8" in objects(store)
    (tmp_path / "two").mkdir()
    Mirror(URL, tmp_path / "two")
    assert not (tmp_path / "two/checkpoints/8").exists()
    training.upload()
    (tmp_path / "three").mkdir()
    Mirror(URL, tmp_path / "three")
    assert (tmp_path / "three/checkpoints/8" / MANIFEST).exists()


def test_checkpoints_that_are_gone_here_are_removed_there(store, tmp_path):
    training = claim(tmp_path / "one", 4, 8)
    store.pipe_file("/bucket/run/checkpoints/6/variables/half", b"of a killed process")
    shutil.rmtree(tmp_path / "one/checkpoints/4")
    save(tmp_path / "one", 8, 12)
    training.upload()
    assert {name.split("/")[1] for name in objects(store) if name.startswith("checkpoints/")} == {
        "8",
        "12",
        "scores.json",
    }
    assert objects(store)["checkpoints/12/variables/d/12"] == "variables 12"


def test_only_what_is_new_is_uploaded(store, tmp_path, monkeypatch):
    training = claim(tmp_path / "one", 4)
    written = []
    pipe_file = type(store).pipe_file
    monkeypatch.setattr(
        type(store), "pipe_file", lambda self, name, *a, **k: (written.append(name), pipe_file(self, name, *a, **k))
    )
    training.upload()
    write(tmp_path / "one/tensorboard/events.2", "more")
    training.upload()
    assert [name.split("/run/")[1] for name in written] == [
        "metrics.jsonl",
        "tensorboard/events.2",
        "metrics.jsonl",
    ]


def test_a_later_training_takes_over(store, tmp_path):
    first = claim(tmp_path / "one", 4)
    second = claim(tmp_path / "two", 4, 8)
    save(tmp_path / "one", 4, 99)
    with pytest.raises(InputError, match=rf"^another training has taken {URL} over"):
        first.upload()
    assert not any("99" in name for name in objects(store))
    second.upload()


def test_a_training_that_began_before_another_claimed_the_run_is_refused(store, tmp_path):
    (tmp_path / "one").mkdir()
    first = Mirror(URL, tmp_path / "one")
    claim(tmp_path / "two", 4)
    with pytest.raises(InputError, match="another process has trained this run meanwhile"):
        first.claim()


def test_nothing_is_written_before_the_claim(store, tmp_path):
    with open_mirror(URL, tmp_path, print) as training:
        save(training.folder, 4)
    assert not objects(store)


def test_the_rest_is_uploaded_at_the_end_and_what_a_killed_training_left_is_not(store, tmp_path):
    with contextlib.suppress(KeyboardInterrupt), open_mirror(URL, tmp_path, print) as training:
        training.claim()
        save(training.folder, 4)
        raise KeyboardInterrupt
    assert "checkpoints/4/sha256.json" in objects(store)
    save(training.folder, 4, 8)
    with open_mirror(URL, tmp_path, print) as training:
        assert not (training.folder / "checkpoints/8").exists()
        text = f"^another process of this machine trains in {URL}"
        with pytest.raises(InputError, match=text), open_mirror(URL, tmp_path, print):
            pass


def test_errors_about_the_copy_name_the_bucket(store, tmp_path):
    with pytest.raises(InputError, match=f"^{URL}/checkpoints is bad$"), open_mirror(URL, tmp_path, print) as training:
        raise InputError(f"{training.folder}/checkpoints is bad")


def test_a_bucket_that_fails_does_not_hide_why_a_training_ended(store, tmp_path, monkeypatch, capsys):
    def fail(mirror: Mirror) -> None:
        raise WriteFailed("the bucket is gone")

    monkeypatch.setattr(Mirror, "upload", fail)
    with pytest.raises(Diverged, match="loss nan at step 7"), open_mirror(URL, tmp_path, print):
        raise Diverged("loss nan at step 7")
    assert "warning: the bucket is gone" in capsys.readouterr().err
    with pytest.raises(WriteFailed, match="the bucket is gone"), open_mirror(URL, tmp_path, print):
        raise Stopped("stopped after step 7, which is saved")  # it is not


def test_what_a_bucket_does_not_take_is_kept(store, tmp_path, monkeypatch):
    def fail(self, *args, **kwargs):
        raise ConnectionError("the network is down")

    expected = {}

    def train() -> None:
        with open_mirror(URL, tmp_path, print) as training:
            save(training.folder, 4)
            training.claim()
            monkeypatch.setattr(type(store), "pipe_file", fail)
            save(training.folder, 4, 8)
            expected.update(tree(training.folder))

    with pytest.raises(WriteFailed, match="the network is down") as failed:
        train()
    monkeypatch.undo()
    monkeypatch.setattr(bucket, "STORES", ("memory",))
    kept = Path(str(failed.value).rpartition("Later checkpoints are kept in the run directory ")[2])
    assert tree(kept) == expected
    assert "checkpoints/8/variables/d/8" in expected
    with open_mirror(URL, tmp_path, print) as two:
        assert not (two.folder / "checkpoints/8").exists()
    assert tree(kept) == expected


def test_what_ctrl_c_leaves_of_the_last_upload_is_kept(store, tmp_path, monkeypatch, capsys):
    def stop(training: Mirror) -> None:
        raise KeyboardInterrupt

    def train() -> None:
        with open_mirror(URL, tmp_path, print) as training:
            save(training.folder, 4)
            monkeypatch.setattr(Mirror, "upload", stop)

    with pytest.raises(KeyboardInterrupt):
        train()
    said = capsys.readouterr().err.strip()
    kept = Path(said.rpartition("warning: Later checkpoints are kept in the run directory ")[2])
    assert tree(kept)["checkpoints/4/variables/d/4"] == "variables 4"


def test_a_checkpoint_that_a_training_removes_meanwhile_gives_way_to_a_later_one(store, tmp_path, monkeypatch):
    claim(tmp_path / "one", 4, 8)  # 4 is the best
    get = type(store).get

    def remove(self, names, *arguments, **keywords):
        if any("checkpoints/4/" in name for name in names):
            store.rm("/bucket/run/checkpoints/4", recursive=True)
            raise FileNotFoundError(names[0])
        return get(self, names, *arguments, **keywords)

    monkeypatch.setattr(type(store), "get", remove)
    with copy_for_reading(Path(URL)) as folder:
        assert tree(folder)["checkpoints/8/variables/d/8"] == "variables 8"
        assert not (folder / "checkpoints/4").exists()


def test_a_bucket_that_is_not_there_is_named(store, monkeypatch):
    def find(self, *args, **kwargs):
        raise FileNotFoundError("the bucket does not exist")

    monkeypatch.setattr(type(store), "find", find)
    with pytest.raises(InputError, match="the bucket does not exist"), copy_for_reading(Path(URL)):
        pass


def test_a_folder_of_other_files_is_refused(store, tmp_path):
    store.pipe_file("/bucket/run/photo.png", b"")
    with pytest.raises(InputError, match=rf"^{URL} holds files but is not a run directory"):
        Mirror(URL, tmp_path)


@pytest.mark.parametrize(("step", "expected"), [(None, 4), (8, 8)])
def test_one_checkpoint_is_copied_for_reading(store, tmp_path, step, expected):
    claim(tmp_path / "one", 4, 8)
    before = objects(store)
    with copy_for_reading(Path(URL), step) as folder:
        names = tree(folder)
        assert names[f"checkpoints/{expected}/variables/d/{expected}"] == f"variables {expected}"
        assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [str(expected), "scores.json"]
    assert not folder.exists()
    assert objects(store) == before


def test_what_cannot_be_read_from_a_bucket(store, tmp_path):
    with pytest.raises(InputError, match=rf"^{URL} is not a run directory"), copy_for_reading(Path(URL)):
        pass
    claim(tmp_path / "one", 4, 8)
    with (
        pytest.raises(InputError, match=rf"^{URL} has no checkpoint 6; there are: 4, 8;"),
        copy_for_reading(Path(URL), 6),
    ):
        pass


def test_the_stages_of_a_staged_training_are_copied_for_a_report(store, tmp_path):
    for head, steps in (("fcn32s", (4,)), ("fcn8s", (4, 8))):
        (tmp_path / head).mkdir()
        training = Mirror(f"{URL}/{head}", tmp_path / head)
        save(tmp_path / head, *steps)
        training.claim()
    write(tmp_path / "config.json", '{"steps": 9}')
    store.put_file(str(tmp_path / "config.json"), "/bucket/run/fcn16s/config.json")  # a stage that has just begun
    with copy_for_reading(Path(URL), for_report=True) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["fcn16s", "fcn32s", "fcn8s"]
        assert tree(folder / "fcn16s") == {"config.json": '{"steps": 9}'}
        assert tree(folder / "fcn8s")["checkpoints/4/variables/d/4"] == "variables 4"
    with (
        pytest.raises(InputError, match=f"^{URL} has the stages of a staged training; give one, as {URL}/fcn8s$"),
        copy_for_reading(Path(URL)),
    ):
        pass


def test_a_run_without_a_checkpoint_is_copied_for_a_report(store, tmp_path):
    claim(tmp_path / "one")
    with copy_for_reading(Path(URL), for_report=True) as folder:
        assert sorted(tree(folder)) == ["checkpoints/scores.json", "config.json", "metrics.jsonl"]


@pytest.mark.parametrize("name", ["²", "best", "07"])
def test_folders_that_are_not_named_by_a_step_are_no_checkpoints(store, tmp_path, name):
    training = claim(tmp_path / "one", 4, 8)
    store.store[f"/bucket/run/checkpoints/{name}/{MANIFEST}"] = store.store["/bucket/run/config.json"]
    write(tmp_path / f"one/checkpoints/{name}" / MANIFEST)
    training.upload()
    with copy_for_reading(Path(URL)) as folder:
        assert [file.name for file in (folder / "checkpoints").iterdir() if file.is_dir()] == ["4"]
    with pytest.raises(InputError, match=r"has no checkpoint 7; there are: 4, 8;"), copy_for_reading(Path(URL), 7):
        pass


def test_names_that_lead_out_of_the_run_are_refused(store, tmp_path):
    claim(tmp_path / "one", 4)
    store.store["/bucket/run/checkpoints/4/../../../evil"] = store.store["/bucket/run/config.json"]
    with (
        pytest.raises(InputError, match=r"object 'checkpoints/4/\.\./\.\./\.\./evil', whose name leads out"),
        copy_for_reading(Path(URL)),
    ):
        pass
    (tmp_path / "two").mkdir()
    with pytest.raises(InputError, match="leads out"):
        Mirror(URL, tmp_path / "two")
    assert not list((tmp_path / "two").iterdir())


def test_a_local_run_is_read_where_it_is(tmp_path):
    with copy_for_reading(tmp_path) as folder:
        assert folder == tmp_path


def test_real_checkpoints_are_uploaded_once_they_are_whole_and_restored_elsewhere(store, tmp_path):
    tree = {"variables": {"kernel": np.arange(6, dtype=np.float32)}}
    (tmp_path / "one").mkdir()
    training = Mirror(URL, tmp_path / "one")
    write(tmp_path / "one/config.json")
    training.claim()
    with Checkpoints(tmp_path / "one/checkpoints", keep=1, after_save=training.upload) as checkpoints:
        for step in (4, 8):
            checkpoints.save(step, tree)
    (tmp_path / "two").mkdir()
    Mirror(URL, tmp_path / "two")
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), tree)
    with Checkpoints(tmp_path / "two/checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [8]
        np.testing.assert_array_equal(checkpoints.restore(8, like)["variables"]["kernel"], tree["variables"]["kernel"])
    claim(tmp_path / "three", 12)
    with Checkpoints(tmp_path / "one/checkpoints", after_save=training.upload) as checkpoints:
        checkpoints.save(16, tree)
        with pytest.raises(InputError, match="another training has taken"):
            checkpoints.wait()
