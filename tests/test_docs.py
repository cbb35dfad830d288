"""The pictures of the documentation are what its scripts draw."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_drawings_of_upsampling_are_what_the_script_draws(tmp_path):
    """The same bytes, as far as matplotlib is the same: its releases write paths and fonts differently."""
    matplotlib = pytest.importorskip("matplotlib")
    kept = sorted((PROJECT / "docs" / "images").glob("*.svg"))
    drawn_by = {re.search(r"Matplotlib v([^,]+)", file.read_text())[1] for file in kept}
    if drawn_by != {matplotlib.__version__}:
        pytest.skip(f"docs/images was drawn by matplotlib {drawn_by}, here is {matplotlib.__version__}")
    script = shutil.copy(PROJECT / "docs" / "upsampling.py", tmp_path)
    env = os.environ | {"PYTHONPATH": str(PROJECT), "MPLCONFIGDIR": str(tmp_path / "matplotlib")}
    subprocess.run([sys.executable, script], env=env, check=True)
    assert [file.name for file in kept] == sorted(file.name for file in (tmp_path / "images").iterdir())
    for file in kept:
        assert file.read_bytes() == (tmp_path / "images" / file.name).read_bytes(), file.name
