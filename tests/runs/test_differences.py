"""What a resumed run may change, and runs that were written before `RunOptions` were apart from `Config`."""

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from full_config import FROM_RUN, FROM_STREAMS, FULL, ONLY_FROM_RUN, ONLY_FROM_STREAMS, flatten

from fcn_jax.config import Config, DataOptions, InputConfig, ModelConfig, OptimConfig, RunOptions
from fcn_jax.data.dataset import Dataset
from fcn_jax.data.defaults import fill_config, fill_options
from fcn_jax.data.tasks import Task
from fcn_jax.errors import InputError
from fcn_jax.presets import PRESETS
from fcn_jax.runs.differences import list_differences
from fcn_jax.runs.run_dir import open_for_training, open_run
from fcn_jax.runtime.json_values import to_json


def test_every_value_of_the_configuration_is_compared():
    default = flatten(to_json(Config()))
    default.pop("model.input")  # it has no parts here, and parts there
    parts = {f"model.input.{field.name}" for field in dataclasses.fields(InputConfig)}
    lines = list_differences(Config(), FULL)
    assert {line.split(": ")[0] for line in lines} == (set(default) | parts) - ONLY_FROM_RUN - ONLY_FROM_STREAMS - {
        "extend"
    }
    assert "model.head: fcn8s -> fcn16s" in lines
    assert "augment.scale: None -> [0.75, 1.5]" in lines
    assert "batch_size: None -> 12" in lines
    assert "model.input.order: None -> bgr" in lines
    assert "model.init_from: None -> runs/coarse" in list_differences(Config(), FROM_RUN)
    assert len(list_differences(FULL, Config())) == len(lines) + 1
    assert "extend: [70000, 80000] -> []" in list_differences(FULL, Config())


@pytest.mark.parametrize("config", [Config(), FULL, FROM_RUN, FROM_STREAMS])
def test_a_configuration_does_not_differ_from_itself(config):
    assert list_differences(config, copy.deepcopy(config)) == []


def test_a_constant_rate_may_be_prolonged_and_a_falling_one_not():
    constant, poly = (Config(optim=OptimConfig(schedule=schedule), steps=5) for schedule in ("constant", "poly"))
    assert list_differences(constant, dataclasses.replace(constant, steps=50)) == []
    assert list_differences(poly, dataclasses.replace(poly, steps=50)) == ["steps: 5 -> 50"]
    both = {"steps: 5 -> 50", "optim.schedule: constant -> poly"}
    assert set(list_differences(constant, dataclasses.replace(poly, steps=50))) == both
    assert "steps: 5 -> 50" in list_differences(poly, dataclasses.replace(constant, steps=50))


def test_a_run_may_be_extended_and_its_extensions_stay():
    once, twice = (Config(steps=5, extend=extend) for extend in ((50,), (50, 60)))
    assert list_differences(Config(steps=5), once) == list_differences(once, twice) == []
    assert list_differences(once, Config(steps=5)) == ["extend: [50] -> []"]
    assert list_differences(twice, Config(steps=5, extend=(60,))) == ["extend: [50, 60] -> [60]"]
    assert list_differences(once, Config(steps=6, extend=(50,))) == ["steps: 5 -> 6"]


def test_the_factors_of_stages_matter_only_with_stages():
    plain = Config()
    other = dataclasses.replace(plain, stage_factors=(1.0, 1.0, 1.0))
    assert list_differences(plain, other) == []
    staged, other = dataclasses.replace(plain, staged=True), dataclasses.replace(other, staged=True)
    assert list_differences(staged, other) == ["stage_factors: [1.0, 0.1, 0.1] -> [1.0, 1.0, 1.0]"]


def test_the_run_of_the_stage_before_may_have_been_moved():
    def start_from(place):
        return Config(model=ModelConfig(head="fcn16s", init_from=Path(place)))

    assert list_differences(start_from("/old/fcn32s"), start_from("/new/fcn32s")) == []
    assert list_differences(start_from("/old/other"), start_from("/new/other")) != []
    assert list_differences(start_from("/old/fcn32s"), start_from("/old/fcn16s")) != []
    assert list_differences(start_from("/old/fcn32s"), Config(model=ModelConfig(head="fcn16s"))) != []


# config.json as it was written by `fcn-jax train fcn8s --log-every 1` before `options` were apart.
FORMER = {
    "config": {
        "model": {
            "head": "fcn8s", "backbone": "resnet34", "fc_features": 4096, "fc_kernel": 7, "padding": "same",
            "skip_scales": [1.0, 1.0], "upsampling": "learned", "dtype": "float32", "output_stride": 32,
            "freeze_bn": False, "weights": None, "init_from": None, "allow": [],
            "input": {"order": "rgb", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]},
        },
        "data": {
            "name": "shapes", "dir": None, "cache": "/home/cache", "classes": None, "void": [],
            "train_split": "train", "val_split": "val", "decoded": "never",
        },
        "augment": {"crop": 80, "scale": [1.0, 1.0], "flip": True, "colour": 0.0},
        "optim": {
            "learning_rate": 0.1, "schedule": "poly", "power": 0.9, "warmup_steps": 0, "momentum": 0.9,
            "weight_decay": 0.0005, "clip_norm": None, "reduction": "mean", "class_weights": None,
            "label_smoothing": 0.0, "auxiliary_weight": 0.5, "frozen": [], "rate_factors": [], "bias_factor": 1.0,
        },
        "steps": 850, "batch_size": 8, "accumulate": 1, "seed": 0, "run_dir": "/home/runs/former", "eval_every": 425,
        "checkpoint_every": 425, "keep": 2, "log_every": 1, "eval_batch_size": 0, "workers": 4, "profile": 0,
        "dry_run": False, "staged": False, "stage_factors": [1.0, 0.1, 0.1],
    },
    "class_names": ["background", "disc", "square"],
    "palette": [[0, 0, 0], [128, 0, 0], [0, 128, 0]],
    "contents": "dde4f50c0f8514df",
    "versions": {"jax": "0.10.2", "flax": "0.12.8"},
    "python": "3.11.7",
    "git": "815ce22e31fb46aad554ddea03fb574e76d8e69c",
}  # fmt: skip


def write(folder: Path, **changes) -> Path:
    stored = copy.deepcopy(FORMER)
    stored["config"] |= changes
    (folder / "config.json").write_text(json.dumps(stored))
    return folder


def test_a_former_run_is_opened_as_what_its_command_is_now(tmp_path):
    run = open_run(write(tmp_path))
    config = fill_config(PRESETS["fcn8s"].config)
    assert run.config == config
    assert run.options == fill_options(
        RunOptions(data=DataOptions(cache=Path("/home/cache")), run_dir=Path("/home/runs/former"), log_every=1), config
    )
    assert run.options.eval_batch_size is None  # it was 0
    assert run.class_names == ("background", "disc", "square")
    np.testing.assert_array_equal(run.palette, FORMER["palette"])
    assert run.contents == FORMER["contents"]


def test_a_former_run_keeps_what_was_given(tmp_path):
    data = FORMER["config"]["data"] | {
        "name": "folder",
        "dir": "/d",
        "classes": "/n.txt",
        "void": [9],
        "decoded": "disk",
    }
    run = open_run(write(tmp_path, data=data, eval_batch_size=16, keep=5, workers=3, seed=7, steps=0))
    assert (run.config.data.name, run.config.data.void) == ("folder", (9,))
    assert (run.config.seed, run.config.steps) == (7, 0)
    assert run.options.data == DataOptions(Path("/d"), Path("/home/cache"), Path("/n.txt"), "", "val", "disk")
    assert (run.options.eval_batch_size, run.options.keep, run.options.workers) == (16, 5, 3)


def test_a_former_run_is_resumed_and_written_anew(tmp_path):
    folder = write(tmp_path)
    config, options = fill_config(PRESETS["fcn8s"].config), RunOptions(log_every=2)
    options = fill_options(options, config)
    colours = np.array(FORMER["palette"], np.uint8)
    dataset = Dataset(
        "shapes",
        (Task("", tuple(FORMER["class_names"]), colours),),
        {"train": 1},
        (8, 8),
        Path("c"),
        FORMER["contents"],
        lambda _: [],
    )
    with (
        pytest.raises(InputError, match="seed: 0 -> 1"),
        open_for_training(folder, dataclasses.replace(config, seed=1), options, dataset),
    ):
        pass
    with open_for_training(folder, config, options, dataset):
        stored = json.loads((folder / "config.json").read_text())
    assert stored["config"] == to_json(config)
    assert stored["options"] == to_json(options)
    assert (open_run(folder).config, open_run(folder).options) == (config, options)


def test_a_former_run_with_a_field_that_nobody_knows(tmp_path):
    with pytest.raises(InputError, match="nesterov"):
        open_run(write(tmp_path, nesterov=True))
