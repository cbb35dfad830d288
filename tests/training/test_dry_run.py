"""What a dry run says, that it leaves nothing behind, and that it needs neither images nor weights."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from small_runs import NORMED, PLAIN, folder_data

from fcn_jax.config import AugmentConfig, Config, DataConfig, DataOptions, ModelConfig, RunOptions
from fcn_jax.errors import InputError
from fcn_jax.models.fcn import FCN8s, FCN16s, FCN32s
from fcn_jax.models.reference import LateFusion
from fcn_jax.presets import PRESETS
from fcn_jax.runtime import traced
from fcn_jax.training import setup
from fcn_jax.training.loop import train
from fcn_jax.training.staged import train_staged
from fcn_jax.training.start import is_at_hand


def test_a_dry_run_describes_the_training_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "build", lambda model, classes: FCN8s(num_classes=classes, backbone=NORMED))
    config = Config(
        data=DataConfig(name="folder"), augment=AugmentConfig(crop=32, scale=(0.7, 1.4)), batch_size=8, steps=8
    )
    data = DataOptions(dir=folder_data(tmp_path / "data"), cache=tmp_path / "cache")
    (tmp_path / "data" / "classes.txt").write_text("sky\nsea\nsand\nfoam\n")
    # As after a start of the command line: a program that is read from a file has no operations to count.
    monkeypatch.setattr(traced, "is_single_device", lambda: True)
    monkeypatch.setattr(traced, "_is_known", lambda value: True)
    (tmp_path / "traced").mkdir()
    token, said = traced._folder.set(tmp_path / "traced"), []
    assert train(config, RunOptions(data=data, dry_run=True), tmp_path / "run", said.append) is None
    traced._folder.reset(token)
    assert not list((tmp_path / "traced").iterdir())
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


HEADS = {"fcn32s": FCN32s, "fcn16s": FCN16s, "fcn8s": FCN8s}


def test_a_recipe_needs_neither_its_images_nor_its_weights(tmp_path, monkeypatch):
    """In stages, with the reference's window of 500x500 and a small network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setup, "build", lambda model, classes: HEADS[model.head](classes, PLAIN, upsampling="fixed"))
    config = dataclasses.replace(PRESETS["pascalcontext-fcn16s"].config, batch_size=8)  # for eight devices
    options = RunOptions(DataOptions(cache=tmp_path / "cache"), dry_run=True)
    said: list[str] = []
    assert train_staged(config, options, tmp_path / "run", said.append) is None
    assert list(tmp_path.iterdir()) == []
    assert [line for line in said if line.startswith("fcn")] == ["fcn32s:", "fcn16s:"]
    text = "\n".join(said)
    classes = "pascal-context was not read: its 60 classes and images of up to 500x500 are assumed"
    assert text.count(classes) == 2
    # A later stage starts from the one before it.
    assert text.count(f"the weights {config.model.weights} were not read") == 1
    assert text.count("training step, 8 images, crops of 500x500: ") == 2
    assert "1 × 1 × 8 × 60" in text


@pytest.mark.slow
def test_the_weights_of_late_fusion_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = LateFusion(FCN32s(40, PLAIN, upsampling="fixed"))
    monkeypatch.setattr(setup, "build", lambda model, classes: network)
    config = PRESETS["nyud-fcn32s-color-hha"].config
    config = dataclasses.replace(config, batch_size=8, augment=dataclasses.replace(config.augment, crop=32))
    said: list[str] = []
    train(
        config, RunOptions(DataOptions(cache=tmp_path, val_split="test"), dry_run=True), tmp_path / "run", said.append
    )
    names = "nyud-fcn32s-color-heavy.caffemodel and nyud-fcn32s-hha-heavy.caffemodel"
    assert f"the weights {names} were not read, so it is open whether they fit" in "\n".join(said)


def test_images_that_are_given_are_read(tmp_path):
    config = Config(data=DataConfig("nyud", train_split="trainval"), batch_size=8)
    with pytest.raises(InputError, match=r"does not hold NYUDv2"):
        train(config, RunOptions(DataOptions(dir=tmp_path, cache=tmp_path), dry_run=True), tmp_path / "run")
    with pytest.raises(InputError, match=r"nyud has no split 'val2' here; it has trainval, test, train, val: choose"):
        train(config, RunOptions(DataOptions(val_split="val2", cache=tmp_path), dry_run=True), tmp_path / "run")


def test_weights_that_are_given_are_read(tmp_path):
    file = tmp_path / "vgg.caffemodel"
    model = ModelConfig(backbone="vgg16", weights=str(file))
    assert not is_at_hand(model)
    file.write_bytes(b"no weights")
    assert is_at_hand(model)
    with pytest.raises(InputError, match=r"vgg\.caffemodel"):
        train(Config(model=model, data=DataConfig("voc2012")), RunOptions(dry_run=True), tmp_path / "run")
    assert not is_at_hand(dataclasses.replace(model, weights="imagenet"))
    assert is_at_hand(ModelConfig())
    assert not is_at_hand(ModelConfig(init_from=tmp_path / "run"))
    assert is_at_hand(ModelConfig(init_from=tmp_path))
