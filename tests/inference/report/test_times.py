"""Times of a training, read from the files that TensorBoard's writer makes."""

import numpy as np
import pytest
from tensorboardX import SummaryWriter

from fcn_jax.inference.report.times import read_times


def write(folder, lines, suffix=""):
    """Write (time, step, tag) as a training does, with a picture after each evaluation."""
    with SummaryWriter(str(folder / "tensorboard"), filename_suffix=suffix) as board:
        for time, step, tag in lines:
            board.add_scalar(tag, 0.5, step, walltime=time)
            board.add_scalar(tag.replace("loss", "other"), 0.5, step, walltime=time)
            if tag == "val/loss":
                noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
                board.add_image("picture", noise, step, dataformats="HWC", walltime=time)


FIRST = [(100, 10, "train/loss"), (120, 20, "train/loss"), (190, 20, "val/loss"), (260, 30, "train/loss"),
         (280, 40, "train/loss"), (310, 50, "train/loss")]  # fmt: skip


def test_steps_are_timed_without_evaluations_and_starts_are_added(tmp_path):
    write(tmp_path, FIRST)
    write(tmp_path, [(9000, 60, "train/loss"), (9040, 80, "train/loss")], suffix=".second")
    times = read_times(tmp_path)
    assert times.step == 2  # the median of 2, 2, 3 and 2
    assert times.total == (310 - 100) + 40


def test_a_file_is_read_up_to_its_damage(tmp_path):
    write(tmp_path, FIRST)
    (file,) = (tmp_path / "tensorboard").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])  # cut short by a killed process
    assert read_times(tmp_path).total >= 180
    for content in (b"", whole[:30], b"\xff" * 100, whole[:12] + b"\xff" * (len(whole) - 12), whole[:5]):
        file.write_bytes(content)
        assert read_times(tmp_path) is None


@pytest.mark.parametrize("lines", [[], FIRST[:1]])
def test_too_few_lines_say_nothing(tmp_path, lines):
    write(tmp_path, lines)
    assert read_times(tmp_path) is None


def test_without_files_nothing_is_known(tmp_path):
    assert read_times(tmp_path) is None
