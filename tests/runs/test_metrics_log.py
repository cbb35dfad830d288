"""The record of a run's numbers: lines, scalars and pictures, what a resume cuts off, and several hosts."""

import io
import json
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

from fcn_jax.errors import WriteFailed
from fcn_jax.runs.metrics_log import MetricsLog, is_logged


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


def close(log: MetricsLog) -> None:
    with log:
        pass


def test_lines_and_scalars(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.add(1, "train", {"loss": 1.5, "learning_rate": np.float32(0.25)})
    # On the disk at once, for whoever looks or is killed.
    assert lines(tmp_path) == [{"step": 1, "split": "train", "loss": 1.5, "learning_rate": 0.25}]
    per_class = np.array([0.5, np.nan, 1.0])
    log.add(2, "val", {"loss": np.float64(0.75), "mean_iu": float("nan"), "per_class_iu": per_class})
    close(log)
    assert lines(tmp_path)[1:] == [
        {"step": 2, "split": "val", "loss": 0.75, "mean_iu": None, "per_class_iu": [0.5, None, 1.0]}
    ]
    assert list(lines(tmp_path)[0])[:2] == ["step", "split"]
    assert scalars(tmp_path) == {("train/loss", 1): 1.5, ("train/learning_rate", 1): 0.25, ("val/loss", 2): 0.75}


def test_the_picture_in_tensorboard_is_the_picture_given(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
    log = MetricsLog(tmp_path, 0)
    log.add_picture(5, "image, truth, prediction", image)
    close(log)
    pictures = [
        (event.step, value) for event in events(tmp_path) for value in event.summary.value if value.HasField("image")
    ]
    ((step, value),) = pictures
    assert step == 5
    assert "truth" in value.tag
    assert (value.image.height, value.image.width) == (9, 14)
    with Image.open(io.BytesIO(value.image.encoded_image_string)) as picture:
        np.testing.assert_array_equal(np.asarray(picture), image)


FULL_FOR_A_MOMENT = """
import errno, sys, threading
from pathlib import Path
import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from fcn_jax.runs.metrics_log import MetricsLog

whole, failed = EventsWriter.write_event, threading.Event()

def write_event(self, event):
    if threading.current_thread() is not threading.main_thread() and not failed.is_set():
        failed.set()
        raise OSError(errno.ENOSPC, "No space left on device")
    return whole(self, event)

EventsWriter.write_event = write_event
with MetricsLog(Path(sys.argv[1]), 0) as log:
    for step in range(1, 41):
        log.add(step, "train", {"loss": float(step), "learning_rate": 0.1})
        log.add_picture(step, "a", np.zeros((4, 4, 3), np.uint8))
"""


def test_a_training_goes_on_when_tensorboard_cannot_be_written_for_a_moment(tmp_path):
    """The thread that writes it ends, and nobody empties its queue, which has room for ten values."""
    command = [sys.executable, "-c", FULL_FOR_A_MOMENT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == "warning: TensorBoard's file cannot be written (No space left on device)\n"
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 41))


def fill(folder: Path, last: int, first: int = 0) -> None:
    log = MetricsLog(folder, first)
    for step in range(first + 1, last + 1):
        log.add(step, "train", {"loss": float(step)})
    log.add(last, "val", {"loss": 0.5})
    close(log)


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
        '{"step": 1%s}\n' % ("0" * 400),
        "[" * 100_000,
        "7\n",
        "\0\0\0\0",
        "\udcff\udcfe\n",
    ],
)
def test_a_resume_cuts_off_what_a_lost_run_wrote_after_its_checkpoint(tmp_path, tail):
    fill(tmp_path, 6)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(tail.encode(errors="surrogateescape"))
    log = MetricsLog(tmp_path, 4)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]
    log.add(5, "train", {"loss": 50.0})
    close(log)
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 50)]


def test_a_resume_keeps_both_lines_of_its_own_step(tmp_path):
    fill(tmp_path, 6)
    before = (tmp_path / "metrics.jsonl").read_text()
    close(MetricsLog(tmp_path, 6))
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_a_start_from_nothing_cuts_everything(tmp_path):
    fill(tmp_path, 3)
    close(MetricsLog(tmp_path, 0))
    assert lines(tmp_path) == []


def test_a_resume_tells_tensorboard_to_drop_later_steps(tmp_path):
    fill(tmp_path, 6)
    fill(tmp_path, 6, first=4)
    starts = [
        event.step for event in events(tmp_path) if event.session_log.status == event_pb2.SessionLog.SessionStatus.START
    ]
    # TensorBoard drops all events of that step and later which were written before.
    assert 5 in starts


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

        from fcn_jax.config import Config, RunOptions
        from fcn_jax.data.defaults import fill_config, fill_options
        from fcn_jax.data.dataset import Dataset
        from fcn_jax.data.tasks import Task
        from fcn_jax.runs.metrics_log import MetricsLog, is_logged
        from fcn_jax.runs.run_dir import open_for_training

        colours = np.zeros((1, 3), np.uint8)
        data = Dataset("shapes", (Task("", ("a",), colours),), {"train": 1}, (8, 8), Path(), "abc", lambda split: [])
        config = fill_config(Config())
        with open_for_training(folder, config, fill_options(RunOptions(), config), data) as run:
            assert run.folder == folder
            assert run.class_names == ("a",)
            (folder / "metrics.jsonl").write_text('{"step": 9}\\n')  # of a lost run
            with MetricsLog(folder, 0) as log:
                log.add(1, "train", {"loss": 1.5})
                log.add_picture(1, "picture", np.zeros((4, 5, 3), np.uint8))
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


def test_a_line_that_cannot_be_written_is_named(tmp_path):
    log = MetricsLog(tmp_path, 0)
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(WriteFailed, match=r"metrics\.jsonl cannot be written \(Is a directory\); mend that"):
        log.add(1, "train", {"loss": 1.0})


def test_a_line_without_a_split_says_nothing_of_any(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 4}\n{"step": 4, "split": "val"}\n')
    assert is_logged(tmp_path, 4, "val")
    assert not is_logged(tmp_path, 4, "train")
