"""Hostile files give an answer or a clear error: no crash, no hang, no flood of memory, nothing written elsewhere.

The short form runs with the suite. The long form tries more than 50,000 files, and prints how they ended:
`./launch.sh test -m slow -n 0 -s tests/faults/test_faults.py`
"""

import logging

import pytest
from faults import (
    archive_surfaces,
    image_surfaces,
    matlab_surfaces,
    outline_surfaces,
    run_surfaces,
    weight_surfaces,
)
from faults.harness import Surface, TimeIsUpError, attack, describe, limit_memory, limit_time, spread, try_file

from fcn_jax.errors import InputError

SURFACES = [
    *image_surfaces.SURFACES,
    *matlab_surfaces.SURFACES,
    *outline_surfaces.SURFACES,
    *weight_surfaces.SURFACES,
    *archive_surfaces.SURFACES,
    *run_surfaces.SURFACES,
]
SHORT, LONG = 1_000, 60_000
# Tasks of Orbax that fail after another one are reported when it has ended.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)
by_name = pytest.mark.parametrize("name", [surface.name for surface in SURFACES])


@pytest.fixture(autouse=True)
def quiet():
    """Orbax and asyncio log damaged checkpoints as errors."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def run(name: str, count: int, folder, seed: int) -> None:
    surface, number = next(pair for pair in spread(SURFACES, count) if pair[0].name == name)
    print(f"{name}: {describe(attack(surface, number, folder / 'files', seed))}")


@by_name
def test_some_hostile_files(name, tmp_path):
    run(name, SHORT, tmp_path, seed=0)


@pytest.mark.slow
@by_name
def test_many_hostile_files(name, tmp_path):
    run(name, LONG, tmp_path, seed=1)


def refuse(file):
    raise InputError("no")


def write_elsewhere(file):
    (file.parents[1] / "elsewhere").write_text("x")


def wait_for_ever(file):
    while True:
        pass


def take_everything(file):
    return bytearray(10 << 30)


@pytest.mark.parametrize(
    ("read", "says"),
    [
        (write_elsewhere, r"made \['elsewhere'\] outside of its folder"),
        (wait_for_ever, "ended in TimeIsUpError"),
        (take_everything, "ended in MemoryError"),
        (lambda file: 1 / 0, "ended in ZeroDivisionError"),
    ],
)
def test_the_harness_notices(read, says, tmp_path, monkeypatch):
    monkeypatch.setattr("faults.harness.SECONDS", 0.2)
    with pytest.raises(AssertionError, match=says) as caught:
        try_file(Surface("x", [], read), b"abc", tmp_path / "files")
    (kept,) = tmp_path.glob("hostile-*")
    assert kept.read_bytes() == b"abc"
    assert str(kept) in str(caught.value)


def test_answers_and_errors_are_told_apart(tmp_path):
    assert try_file(Surface("x", [], refuse), b"", tmp_path / "a") == "InputError"
    assert try_file(Surface("x", [], lambda file: None), b"", tmp_path / "a") == "answer"


def test_the_limits_end_with_their_blocks():
    with pytest.raises(TimeIsUpError), limit_time(0.05):
        wait_for_ever(None)
    with pytest.raises(MemoryError), limit_memory(1 << 28):
        bytearray(1 << 30)
    assert len(bytearray(1 << 29)) == 1 << 29
