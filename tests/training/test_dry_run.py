"""What a dry run says, and that it leaves nothing behind."""

import re

import jax
import numpy as np
from small_runs import NORMED, folder_data

from fcn_jax.config import AugmentConfig, Config, DataConfig, DataOptions, RunOptions
from fcn_jax.models.fcn import FCN8s
from fcn_jax.training import setup
from fcn_jax.training.loop import train


def test_a_dry_run_describes_the_training_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "build", lambda model, classes: FCN8s(num_classes=classes, backbone=NORMED))
    config = Config(
        data=DataConfig(name="folder"), augment=AugmentConfig(crop=32, scale=(0.7, 1.4)), batch_size=8, steps=8
    )
    data = DataOptions(dir=folder_data(tmp_path / "data"), cache=tmp_path / "cache")
    (tmp_path / "data" / "classes.txt").write_text("sky\nsea\nsand\nfoam\n")
    said: list[str] = []
    assert train(config, RunOptions(data=data, dry_run=True), tmp_path / "run", said.append) is None
    assert not (tmp_path / "run").exists()
    assert said[0].startswith("warning: split train: the class foam: in no image")
    text = "\n".join(said)
    shapes = jax.eval_shape(
        FCN8s(num_classes=4, backbone=NORMED).init, jax.random.key(0), np.zeros((1, 32, 32, 3), "f")
    )
    count = sum(x.size for x in jax.tree.leaves(shapes["params"]))
    assert f"{count:,}" in text
    # Momentum is one float32 for each parameter.
    assert re.search(rf"while training {4 * count / 1e6:.1f} MB of momentum", text)
    for part in ("training step, 8 images, crops of 32x32", "GFLOP", "arguments", "temporaries", "evaluation"):
        assert part in text
