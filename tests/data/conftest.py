"""The data set that the tests of the data wing share."""

from pathlib import Path

import pytest
from drawn import make_folder


@pytest.fixture
def tree(tmp_path) -> Path:
    """Data for `folder`: splits train (a, b, c) and val (d), 6x9 pixels, classes ground, tree and water."""
    return make_folder(tmp_path / "own")
