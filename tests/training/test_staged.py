"""Whole trainings that start from others: stages, which may be killed, and files of weights."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util
from PIL import Image
from three_classes import NAMES, weights_of

from fcn_jax.config import (
    CAFFE_INPUT,
    AugmentConfig,
    Config,
    DataConfig,
    DataOptions,
    ModelConfig,
    OptimConfig,
    RunOptions,
)
from fcn_jax.errors import Diverged, InputError, Stopped
from fcn_jax.models.fcn import FCN, FCN8s, FCN16s, FCN32s
from fcn_jax.models.feature_map import FeatureMap, convolve, pool
from fcn_jax.training import loop, setup, staged
from fcn_jax.training import start as start_module
from fcn_jax.training.loop import train
from fcn_jax.training.start import read_file_or_run
from fcn_jax.weights import ours


class Tiny(nn.Module):
    """A backbone of three layers, with a batch norm."""

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> tuple[FeatureMap, FeatureMap, FeatureMap]:
        x = convolve(nn.Conv(4, (8, 8), 8, padding=0, name="conv1"), x)
        pool3 = x.map(nn.BatchNorm(not train, name="bn1")).map(jax.nn.relu)
        pool4 = pool(pool3, 2, 2, ceil=True)
        top = convolve(nn.Conv(4, (2, 2), 2, padding=0, name="conv2"), pool4)
        return pool3, pool4, top


def small(model: ModelConfig, num_classes: int) -> FCN:
    kind = {"fcn32s": FCN32s, "fcn16s": FCN16s, "fcn8s": FCN8s}[model.head]
    return kind(num_classes, Tiny(name="backbone"))


@pytest.fixture
def settings(tmp_path, monkeypatch) -> tuple[Config, RunOptions]:
    """A training of a small network on images of three classes."""
    for module in (setup, start_module):
        monkeypatch.setattr(module, "build", small)
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
        for index in range(2):
            label = generator.integers(0, 3, (36, 40)).astype(np.uint8)
            image = generator.integers(0, 255, (36, 40, 3)).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / "data" / "images" / split / f"{index}.png")
            Image.fromarray(label).save(tmp_path / "data" / "labels" / split / f"{index}.png")
    (tmp_path / "data" / "classes.txt").write_text("\n".join(NAMES))
    options = RunOptions(
        data=DataOptions(dir=tmp_path / "data", cache=tmp_path / "cache"), log_every=1, checkpoint_every=1
    )
    augment = AugmentConfig(crop=32, scale=(1.0, 1.0))
    optim = OptimConfig(learning_rate=0.05)
    model = ModelConfig(head="fcn16s")
    return Config(model, DataConfig("folder"), augment, optim, steps=3, batch_size=8), options


def lines(run: Path) -> list[dict]:
    """What a run computed, whatever it waited for its input."""
    written = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "input_wait"} for line in written]


def variables_of(run: Path) -> dict[str, np.ndarray]:
    return read_file_or_run(run).arrays


def interrupt(monkeypatch, after: int) -> None:
    """Ends the process' training as a kill does, at the `after`-th step from now on that is looked at."""
    steps = iter(range(after))

    find = loop.find_first_bad

    def look(metrics):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return find(metrics)

    monkeypatch.setattr(loop, "find_first_bad", look)


@pytest.mark.slow
def test_stages_that_are_killed_end_where_undisturbed_ones_do(settings, tmp_path, monkeypatch):
    config, options = settings
    config = dataclasses.replace(config, staged=True, stage_factors=(1.0, 0.5, 0.1))
    said: list[str] = []
    staged.train_staged(config, options, tmp_path / "whole", said.append)
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == ["fcn16s", "fcn32s"]
    text = "\n".join(said)
    assert f"weights of {tmp_path}/whole/fcn32s (run, step 3):" in text
    assert "  new          4  score_pool4 2, upscore16, upscore2" in text
    assert "  unused       1  upscore\n" in text + "\n"
    rates = [lines(tmp_path / "whole" / head)[0]["learning_rate"] for head in ("fcn32s", "fcn16s")]
    assert rates == pytest.approx([0.05, 0.025])

    run = tmp_path / "killed"
    for after in (2, 3):  # within 32s; within 16s, when 32s has two steps to go
        with monkeypatch.context() as patch:
            interrupt(patch, after)
            with pytest.raises(KeyboardInterrupt):
                staged.train_staged(config, options, run)
    said.clear()
    assert staged.train_staged(config, options, run, said.append) is not None
    assert any("all of its 3 steps" in line for line in said)
    for head in ("fcn32s", "fcn16s"):
        assert lines(run / head) == lines(tmp_path / "whole" / head)
        expected = variables_of(tmp_path / "whole" / head)
        found = variables_of(run / head)
        assert found.keys() == expected.keys()
        for path, array in found.items():
            np.testing.assert_array_equal(array, expected[path], err_msg=path)
    said.clear()
    assert staged.train_staged(config, options, run, said.append) is None
    assert not any("weights of" in line for line in said)


def test_groups_of_later_stages_are_dropped_also_in_streams(tmp_path):
    names = ("score_pool3/kernel", "colour/score_pool4", "colour/backbone", "upscore16")
    optim = OptimConfig(learning_rate=0.1, frozen=names, rate_factors=tuple((name, 2.0) for name in names))
    stages = staged.list_stages(Config(ModelConfig(head="fcn8s"), optim=optim), tmp_path)
    kept = [stage.optim.frozen for stage, _ in stages]
    assert kept == [("colour/backbone",), ("colour/score_pool4", "colour/backbone", "upscore16"), names]
    assert [tuple(name for name, _ in stage.optim.rate_factors) for stage, _ in stages] == kept


def test_a_stage_that_diverges_says_what_its_rate_is(settings, tmp_path, monkeypatch):
    def train(stage, options, run, say):
        if stage.model.head == "fcn16s":
            raise Diverged("loss nan; give --optim.learning-rate 0.0005")

    monkeypatch.setattr(staged, "train", train)
    config = dataclasses.replace(settings[0], staged=True)
    with pytest.raises(Diverged, match=r"rate 0\.0005\. In this stage the rate is 0\.1 times the flag"):
        staged.train_staged(config, settings[1], tmp_path / "run")


def test_a_stage_that_was_stopped_is_not_gone_past(settings, tmp_path, monkeypatch):
    calls = []

    def train(stage, options, run, say):
        calls.append(stage.model.head)
        raise Stopped("after step 2")

    monkeypatch.setattr(staged, "train", train)
    config, options = settings
    with pytest.raises(Stopped, match="after step 2"):
        staged.train_staged(dataclasses.replace(config, staged=True), options, tmp_path / "run")
    assert calls == ["fcn32s"]


def test_stages_are_what_the_configuration_says(settings, tmp_path):
    model = ModelConfig(head="fcn8s", weights="w.pth", backbone="resnet18")
    groups = (("backbone", 0.1), ("score_pool4", 10.0), ("upscore8", 2.0))
    optim = OptimConfig(learning_rate=0.5, rate_factors=groups, frozen=("score_pool3",))
    config = dataclasses.replace(
        settings[0], model=model, optim=optim, extend=(90,), staged=True, stage_factors=(1.0, 0.1, 0.02)
    )
    made = staged.list_stages(config, tmp_path)
    assert [folder.name for _, folder in made] == ["fcn32s", "fcn16s", "fcn8s"]
    assert [stage.model.head for stage, _ in made] == ["fcn32s", "fcn16s", "fcn8s"]
    assert [stage.model.weights for stage, _ in made] == ["w.pth", None, None]
    assert [stage.model.init_from for stage, _ in made] == [None, tmp_path / "fcn32s", tmp_path / "fcn16s"]
    assert [stage.optim.learning_rate for stage, _ in made] == pytest.approx([0.5, 0.05, 0.01])
    assert not any(stage.staged for stage, _ in made)
    assert [stage.extend for stage, _ in made] == [(), (), (90,)]  # a stage stays what the next one started from
    fused = dataclasses.replace(config, model=ModelConfig(fusion="late", init_streams=(Path("a"), Path("b"))))
    assert [bool(stage.model.init_streams) for stage, _ in staged.list_stages(fused, tmp_path)] == [True, False, False]
    # A group of layers begins with the stage that has them.
    assert [stage.optim.rate_factors for stage, _ in made] == [groups[:1], groups[:2], groups]
    assert [stage.optim.frozen for stage, _ in made] == [(), (), ("score_pool3",)]


@pytest.mark.slow
def test_a_run_starts_from_a_file_and_goes_on_without_it(settings, tmp_path):
    """With a rate of almost nothing it stays where it started: at the file's values."""
    model = small(ModelConfig(head="fcn16s"), 3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    generator = np.random.default_rng(3)
    variables = jax.tree.map(lambda s: np.abs(generator.normal(size=s.shape)).astype(np.float32) / 10, shapes)
    file = tmp_path / "w.safetensors"
    ours.write(file, weights_of(variables, input=CAFFE_INPUT))
    config, options = settings
    config = dataclasses.replace(
        config,
        model=ModelConfig(head="fcn16s", weights=str(file)),
        optim=OptimConfig(learning_rate=1e-12, schedule="constant"),
        steps=1,
    )
    said: list[str] = []
    train(config, options, tmp_path / "run", said.append)
    assert any("weights of" in line and "loaded" in line and "new" not in line for line in said)
    started = variables_of(tmp_path / "run")
    for path, array in traverse_util.flatten_dict(variables, sep="/").items():
        if path.startswith("params"):
            np.testing.assert_allclose(started[path], array, rtol=0, atol=1e-8, err_msg=path)
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert stored["model"]["input"] == json.loads(json.dumps(dataclasses.asdict(CAFFE_INPUT)))
    assert stored["model"]["weights"] == str(file)

    file.unlink()
    longer = dataclasses.replace(config, steps=2)
    assert train(longer, options, tmp_path / "run", said.append) is not None
    other = dataclasses.replace(longer, model=ModelConfig(head="fcn16s", weights="other"))
    with pytest.raises(InputError, match=rf"model\.weights: {file} -> other\n"):
        train(other, options, tmp_path / "run")
    # A new run needs the file, and what does not fit leaves no run directory behind.
    with pytest.raises(InputError, match=r"w\.safetensors cannot be read"):
        train(config, options, tmp_path / "new")
    ours.write(file, weights_of({"params": {"backbone": {}, "score_fr": variables["params"]["score_fr"]}}))
    with pytest.raises(InputError, match=r"batch_stats/backbone/.* is not in the file"):
        train(config, options, tmp_path / "new")
    assert not (tmp_path / "new").exists()
