"""experiments/minimal: the loop learns, and takes from the package only what it says."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from xla_flags import FAST_COMPILE

SCRIPT = Path(__file__).parents[2] / "experiments" / "minimal" / "train.py"


@pytest.mark.slow
def test_the_loss_falls(tmp_path):
    command = [sys.executable, str(SCRIPT), "--steps", "10"]
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path),
        "XLA_FLAGS": FAST_COMPILE,
        "JAX_PLATFORMS": "cpu",
    }
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    losses = {int(step): float(loss) for step, loss in re.findall(r"step +(\d+)  loss ([\d.]+)", process.stdout)}
    assert list(losses) == [1, 10]
    assert losses[1] == pytest.approx(1.946, abs=1e-3)  # log 7: the scores start at zero
    assert losses[10] < 1.7
    accuracy, mean_iu = map(float, re.findall(r"pixel accuracy ([\d.]+), mean IU ([\d.]+)", process.stdout)[0])
    assert 0 < mean_iu < accuracy < 1


def test_it_takes_only_the_network_and_the_data_from_the_package():
    """The layers are allowed too."""
    tree = ast.parse(SCRIPT.read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }  # fmt: skip
    ours = {name for name in modules | names if name.split(".")[0] == "fcn_jax"}
    ours = {name for name in ours if not name.startswith("fcn_jax.layers")}
    assert ours == {"fcn_jax.FCN8s", "fcn_jax.data.dataset.prepare"}


def test_it_is_short():
    assert len(SCRIPT.read_text().splitlines()) <= 80
