"""One folder and one trained run for the tests of all commands."""

import os
from pathlib import Path

import pytest
from command_line import Place, draw_folder_data
from filelock import FileLock


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Place:
    """A folder with a data set, the same for all processes of a test session."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cli"
    with FileLock(root.with_suffix(".lock")):
        if not root.exists():
            draw_folder_data(root / "data")
    return Place(root)


@pytest.fixture(scope="session")
def undisturbed(place) -> tuple[Path, str]:
    """A run that was trained to its end, which no test changes, and what its training printed."""
    folder = place.root / "undisturbed"
    output = folder.with_suffix(".txt")
    with FileLock(folder.with_suffix(".lock")):
        if not output.exists():
            output.write_text(place.run(*place.train_words(folder.name)))
    return folder, output.read_text()
