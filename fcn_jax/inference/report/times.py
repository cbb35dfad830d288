"""The speed of a training, from the times at which it wrote to TensorBoard's files."""

import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

LARGEST = 1 << 16  # bytes of an event with numbers; those with pictures are larger, and are skipped
LATEST = 1e11  # seconds since 1970, as a time may be


class Times(NamedTuple):
    """The time that a training took.

    Attributes:
        step: seconds for each step: the median over the intervals between lines, without those with an evaluation.
        total: seconds from the first line of each start of the training to its last one, added up.
    """

    step: float
    total: float


def read_times(folder: Path) -> Times | None:
    """Read how long a run took; None if its TensorBoard files are gone or too short to say."""
    spans, steps = [], []
    for file in sorted(folder.glob("tensorboard/events.out.tfevents.*")):
        events = [event for event in _read_events(file) if event.tag in ("train/loss", "val/loss")]
        moments = [event.time for event in events]
        spans += [max(moments) - min(moments)] if moments else []
        for before, after in pairwise(events):
            if before.tag == after.tag == "train/loss" and after.step > before.step:
                steps.append((after.time - before.time) / (after.step - before.step))
    return Times(float(np.median(steps)), sum(spans)) if steps else None


class _Event(NamedTuple):
    time: float
    step: int
    tag: str


def _read_events(file: Path) -> Iterator[_Event]:
    """Read time in seconds, step and tag of each number, up to the first damage.

    A file is a sequence of records: length (8 bytes), checksum (4), content, checksum (4). The content is an `Event` of
    TensorFlow's event.proto.
    """
    from google.protobuf.message import DecodeError
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

    size = file.stat().st_size
    with file.open("rb") as stream:
        while len(header := stream.read(12)) == 12:
            (length,) = struct.unpack_from("<Q", header)
            if stream.tell() + length + 4 > size:
                return
            if length > LARGEST:
                stream.seek(length + 4, 1)
                continue
            try:
                event = Event.FromString(stream.read(length))
            except DecodeError:
                return
            stream.seek(4, 1)
            if not 0 <= event.wall_time < LATEST:  # NaN, too
                return
            for value in event.summary.value:
                yield _Event(event.wall_time, event.step, value.tag)
