"""The run directory: what is written, what a resume keeps, cuts off or refuses, and what TensorBoard will read."""

import dataclasses
import io
import json
import math
import re
import shutil
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import both_end_well, free_address
from tensorboardX.proto import event_pb2

from fcn_jax.config import Config, DataConfig, OptimConfig
from fcn_jax.data.dataset import Dataset
from fcn_jax.errors import InputError
from fcn_jax.runs import run_dir as module
from fcn_jax.runs.run_dir import Records, alone, open_run, start_or_resume, to_plain, write_whole

CONFIG = Config(steps=20, data=DataConfig(dir=Path("some/where"))).resolved()


def dataset(*names: str, contents: str = "abc") -> Dataset:
    colours = np.arange(3 * len(names), dtype=np.uint8).reshape(-1, 3)
    return Dataset("shapes", names, colours, {"train": 1}, (8, 8), Path("cache"), contents, lambda split: [])


DATASET = dataset("background", "cat", "dog")


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def events(folder: Path) -> list[event_pb2.Event]:
    """All events of a TensorBoard folder, read by the definition of a TFRecord."""
    found = []
    for file in sorted((folder / "tensorboard").iterdir()):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event()
            event.ParseFromString(data[12 : 12 + length])  # after a checksum of the length
            found.append(event)
            data = data[12 + length + 4 :]  # after a checksum of the data
    return found


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    return {
        (value.tag, event.step): value.simple_value
        for event in events(folder)
        for value in event.summary.value
        if value.WhichOneof("value") == "simple_value"
    }


# Starting and resuming.


def test_a_new_run_directory(tmp_path):
    folder = tmp_path / "runs" / "new"
    run = start_or_resume(folder, CONFIG, DATASET)
    assert run.folder == folder
    assert run.checkpoints == folder / "checkpoints"
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "lock"]
    stored = json.loads((folder / "config.json").read_text())
    assert stored["class_names"] == ["background", "cat", "dog"]
    assert stored["config"]["data"]["dir"] == "some/where"
    assert stored["versions"].keys() == set(module.PACKAGES)
    assert stored["versions"]["numpy"] == np.__version__


def test_an_opened_run_says_what_was_stored(tmp_path):
    started = start_or_resume(tmp_path / "run", CONFIG, DATASET)
    opened = open_run(tmp_path / "run")
    assert opened.config == CONFIG == started.config
    assert opened.class_names == DATASET.class_names
    assert opened.palette.dtype == np.uint8
    np.testing.assert_array_equal(opened.palette, DATASET.palette)


def test_an_empty_folder_may_become_a_run(tmp_path):
    assert start_or_resume(tmp_path, CONFIG, DATASET).folder == tmp_path
    assert (tmp_path / "config.json").is_file()


def test_the_same_configuration_resumes(tmp_path):
    start_or_resume(tmp_path, CONFIG, DATASET)
    (tmp_path / "metrics.jsonl").write_text("kept")
    moved = dataclasses.replace(CONFIG, data=DataConfig(dir=Path("else/where")), workers=1, run_dir=tmp_path)
    assert start_or_resume(tmp_path, moved, DATASET).config == moved
    assert (tmp_path / "metrics.jsonl").read_text() == "kept"
    assert open_run(tmp_path).config == moved


def test_another_configuration_is_refused_and_the_difference_shown(tmp_path):
    start_or_resume(tmp_path, CONFIG, DATASET)
    before = (tmp_path / "config.json").read_bytes()
    other = dataclasses.replace(CONFIG, seed=7, optim=dataclasses.replace(CONFIG.optim, momentum=0.5))
    with pytest.raises(InputError) as caught:
        start_or_resume(tmp_path, other, DATASET)
    text = str(caught.value)
    assert f"{tmp_path} holds a run with another configuration" in text
    assert "\n  optim.momentum: 0.9 -> 0.5\n" in text
    assert "\n  seed: 0 -> 7\n" in text
    assert "give the same flags, or another --run-dir" in text
    assert text.count(" -> ") == 2
    assert (tmp_path / "config.json").read_bytes() == before


def test_other_classes_are_refused(tmp_path):
    start_or_resume(tmp_path, CONFIG, DATASET)
    with pytest.raises(InputError, match="classes: background, cat, dog -> background, cow"):
        start_or_resume(tmp_path, CONFIG, dataset("background", "cow"))


def test_other_images_are_refused(tmp_path):
    start_or_resume(tmp_path, CONFIG, DATASET)
    with pytest.raises(InputError, match="data: its images or labels, by name and size, are not those the run was"):
        start_or_resume(tmp_path, CONFIG, dataset(*DATASET.class_names, contents="abd"))


def test_a_second_training_is_kept_out_until_the_first_is_gone(tmp_path):
    code = """
        import sys
        from pathlib import Path
        from fcn_jax.runs.run_dir import alone

        with alone(Path(sys.argv[1])):
            print("here", flush=True)
            input()
        """
    start_or_resume(tmp_path, CONFIG, DATASET)
    before = (tmp_path / "config.json").read_bytes()
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "here\n"
        message = f"another process trains in {tmp_path}; wait for it, or give another --run-dir"
        with pytest.raises(InputError, match=message), alone(tmp_path):
            pass
        # Neither does it touch what the first has written down.
        moved = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, dir=Path("/elsewhere")))
        with pytest.raises(InputError, match=message):
            start_or_resume(tmp_path, moved, DATASET)
        assert (tmp_path / "config.json").read_bytes() == before
    finally:
        first.kill()
        first.communicate()
    with alone(tmp_path):
        pass


def test_a_run_with_a_constant_rate_may_be_prolonged(tmp_path):
    constant = dataclasses.replace(CONFIG, optim=OptimConfig(learning_rate=0.1, schedule="constant"))
    start_or_resume(tmp_path, constant, DATASET)
    start_or_resume(tmp_path, dataclasses.replace(constant, steps=40), DATASET)
    assert open_run(tmp_path).config.steps == 40


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"holds files but is not a run directory; give a new or an empty --run-dir"):
        start_or_resume(tmp_path, CONFIG, DATASET)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_place_where_no_folder_can_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            InputError, match=rf"{re.escape(str(folder))} cannot be made a run directory \(.*\); give another --run-dir"
        ):
            start_or_resume(folder, CONFIG, DATASET)
    assert (tmp_path / "file").read_text() == "mine"


def test_no_run_directory(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            InputError, match=r"is not a run directory: it has no config\.json; give what `train --run-"
        ):
            open_run(folder)


def damaged() -> dict[str, str]:
    good = {"config": {"steps": 3}, "class_names": ["a"], "palette": [[0, 0, 0]]}
    return {
        "empty": "",
        "cut short": json.dumps(good)[:-20],
        "a list": "[1, 2]",
        "a number": "3",
        "no configuration": json.dumps({**good, "config": None}),
        "a text": json.dumps({**good, "config": "fcn8s"}),
        "a field missing": json.dumps({"config": {}, "palette": []}),
        "a value of another type": json.dumps({**good, "config": {"steps": "many"}}),
        "an unknown field": json.dumps({**good, "config": {"stepz": 3}}),
        "an invalid value": json.dumps({**good, "config": {"keep": 0}}),
        "no colour": json.dumps({**good, "palette": [[0, 0, 300]]}),
        "a ragged palette": json.dumps({**good, "palette": [[0, 0, 0], [1]]}),
        "binary": "\udcff\udcfe",
    }


@pytest.mark.parametrize("what", damaged())
def test_a_damaged_configuration_is_refused(tmp_path, what):
    content = damaged()[what].encode(errors="surrogateescape")
    (tmp_path / "config.json").write_bytes(content)
    message = r"config\.json is not the configuration of a run \(.+\); restore it or start a new run"
    with pytest.raises(InputError, match=message):
        open_run(tmp_path)
    with pytest.raises(InputError, match=message):
        start_or_resume(tmp_path, CONFIG, DATASET)
    assert (tmp_path / "config.json").read_bytes() == content


def test_an_unknown_field_is_named(tmp_path):
    (tmp_path / "config.json").write_text(damaged()["an unknown field"])
    with pytest.raises(InputError, match=r"configuration has \['stepz'\], which Config of this version does not know"):
        open_run(tmp_path)


def test_the_commit_is_noted(tmp_path):
    start_or_resume(tmp_path, CONFIG, DATASET)
    noted = json.loads((tmp_path / "config.json").read_text())["git"]
    here = Path(module.__file__).parent
    asked = shutil.which("git") and subprocess.run(
        ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    if asked and asked.returncode == 0:
        assert noted.rstrip("+") == asked.stdout.strip()
    else:
        assert noted is None


def test_without_git_no_commit_is_noted(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    start_or_resume(tmp_path / "run", CONFIG, DATASET)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["git"] is None


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_whole(file, "old")
    write = Path.write_text

    def full_disk(self, text):
        write(self, text[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, "new and longer")
    assert file.read_text() == "old"


# Lines of metrics.


def test_lines_and_scalars(tmp_path):
    records = Records(tmp_path, 0)
    records.add(1, "train", {"loss": 1.5, "learning_rate": np.float32(0.25)})
    # On the disk at once, for whoever looks or is killed.
    assert lines(tmp_path) == [{"step": 1, "split": "train", "loss": 1.5, "learning_rate": 0.25}]
    per_class = np.array([0.5, np.nan, 1.0])
    records.add(2, "val", {"loss": np.float64(0.75), "mean_iu": float("nan"), "per_class_iu": per_class})
    records.close()
    assert lines(tmp_path)[1:] == [
        {"step": 2, "split": "val", "loss": 0.75, "mean_iu": None, "per_class_iu": [0.5, None, 1.0]}
    ]
    assert list(lines(tmp_path)[0])[:2] == ["step", "split"]
    assert scalars(tmp_path) == {("train/loss", 1): 1.5, ("train/learning_rate", 1): 0.25, ("val/loss", 2): 0.75}


def test_the_picture_in_tensorboard_is_the_picture_given(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
    records = Records(tmp_path, 0)
    records.picture(5, "image, truth, prediction", image)
    records.close()
    pictures = [
        (event.step, value) for event in events(tmp_path) for value in event.summary.value if value.HasField("image")
    ]
    ((step, value),) = pictures
    assert step == 5
    assert "truth" in value.tag
    assert (value.image.height, value.image.width) == (9, 14)
    with Image.open(io.BytesIO(value.image.encoded_image_string)) as picture:
        np.testing.assert_array_equal(np.asarray(picture), image)


def fill(folder: Path, last: int, first: int = 0) -> None:
    records = Records(folder, first)
    for step in range(first + 1, last + 1):
        records.add(step, "train", {"loss": float(step)})
    records.add(last, "val", {"loss": 0.5})
    records.close()


@pytest.mark.parametrize(
    "tail",
    [
        "",
        '{"step": 7, "split": "tra',
        '{"step": 7',
        "{",
        '{"split": "train"}\n',
        '{"step": null}\n',
        '{"step": "seven"}\n',
        "7\n",
        "\0\0\0\0",
        "\udcff\udcfe\n",
    ],
)
def test_a_resume_cuts_off_what_a_lost_run_wrote_after_its_checkpoint(tmp_path, tail):
    fill(tmp_path, 6)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(tail.encode(errors="surrogateescape"))
    records = Records(tmp_path, 4)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]
    records.add(5, "train", {"loss": 50.0})
    records.close()
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 50)]


def test_a_resume_keeps_both_lines_of_its_own_step(tmp_path):
    fill(tmp_path, 6)
    before = (tmp_path / "metrics.jsonl").read_text()
    Records(tmp_path, 6).close()
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_a_start_from_nothing_cuts_everything(tmp_path):
    fill(tmp_path, 3)
    Records(tmp_path, 0).close()
    assert lines(tmp_path) == []


def test_a_resume_tells_tensorboard_to_drop_later_steps(tmp_path):
    fill(tmp_path, 6)
    fill(tmp_path, 6, first=4)
    starts = [
        event.step for event in events(tmp_path) if event.session_log.status == event_pb2.SessionLog.SessionStatus.START
    ]
    # TensorBoard drops all events of that step and later which were written before.
    assert 5 in starts


def test_to_plain_gives_strict_json():
    values = {
        "nan": float("nan"),
        "inf": -math.inf,
        "numpy": np.float32(0.5),
        "integer": np.int64(2**40),
        "flag": np.bool_(True),
        "array": np.array([[1.0, np.nan], [np.inf, 2.0]]),
        "counts": np.array([1, 2]),
        "nested": ({"a": np.nan}, [None, "text", 3]),
        "empty": np.zeros(0),
    }
    assert json.loads(json.dumps(to_plain(values), allow_nan=False)) == {
        "nan": None,
        "inf": None,
        "numpy": 0.5,
        "integer": 2**40,
        "flag": True,
        "array": [[1.0, None], [None, 2.0]],
        "counts": [1, 2],
        "nested": [{"a": None}, [None, "text", 3]],
        "empty": [],
    }


# Several hosts.


def test_of_two_processes_the_first_alone_writes(tmp_path):
    # A folder each, so that it is seen who wrote what.
    code = """
        import sys
        from pathlib import Path
        import jax
        import numpy as np

        address, number, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
        jax.distributed.initialize(address, 2, number, initialization_timeout=100)
        assert (jax.process_index(), jax.process_count()) == (number, 2)

        from fcn_jax.config import Config
        from fcn_jax.data.dataset import Dataset
        from fcn_jax.runs.run_dir import Records, start_or_resume

        colours = np.zeros((1, 3), np.uint8)
        data = Dataset("shapes", ("a",), colours, {"train": 1}, (8, 8), Path(), "abc", lambda split: [])
        run = start_or_resume(folder, Config().resolved(), data)
        assert run.folder == folder
        assert run.class_names == ("a",)
        (folder / "metrics.jsonl").write_text('{"step": 9}\\n')  # of a lost run
        records = Records(folder, 0)
        records.add(1, "train", {"loss": 1.5})
        records.picture(1, "picture", np.zeros((4, 5, 3), np.uint8))
        records.close()
        """
    address = free_address()
    command = [sys.executable, "-c", textwrap.dedent(code), address]
    made = [tmp_path / "0", tmp_path / "1"]
    processes = [
        subprocess.Popen(
            [*command, str(number), str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for number, folder in enumerate(made)
    ]
    both_end_well(processes, 120)
    first, second = (sorted(file.name for file in folder.iterdir()) for folder in made)
    assert first == ["config.json", "lock", "metrics.jsonl", "tensorboard"]
    assert lines(made[0]) == [{"step": 1, "split": "train", "loss": 1.5}]
    assert scalars(made[0]) == {("train/loss", 1): 1.5}
    # The second has a run as well, and leaves the files to the first.
    assert second == ["metrics.jsonl"]
    assert lines(made[1]) == [{"step": 9}]
