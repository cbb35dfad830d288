"""`publish`: what the folder has, and that it is whole or not there."""

import dataclasses
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from fcn_jax.cli.train import read_flags
from fcn_jax.config import DataConfig, DataOptions, ModelConfig
from fcn_jax.errors import InputError
from fcn_jax.inference.card import list_classes, list_training
from fcn_jax.inference.publish import describe, list_flags, publish
from fcn_jax.models.build import build
from fcn_jax.runs.restore import restore_variables
from fcn_jax.runs.run_dir import open_run
from fcn_jax.weights import ours

SCORES = {"mean_iu": 0.25, "pixel_accuracy": 0.5, "mean_accuracy": 0.3, "frequency_weighted_iu": 0.4}


@pytest.fixture
def scored(run_dir, tmp_path):
    """A copy of the run that was scored after step 1, with one start, 90 seconds before its checkpoint."""
    folder = shutil.copytree(run_dir, tmp_path / "run")
    line = {"step": 1, "split": "val", **SCORES, "per_class_iu": [0.5, None, 0.0]}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n" + '{"step": 2, "sp')
    metadata = json.loads((folder / "checkpoints" / "1" / "_CHECKPOINT_METADATA").read_text())
    config = json.loads((folder / "config.json").read_text())
    began = metadata["commit_timestamp_nsecs"] // 10**9 - 90
    config["starts"] = [{"command": "fcn-jax train x", "machine": "a GPU", "time": began}]
    (folder / "config.json").write_text(json.dumps(config))
    return open_run(folder)


def test_a_published_folder_has_weights_scores_and_their_origin(scored, tmp_path):
    out = tmp_path / "out"
    publish(scored, out)
    names = ["README.md", "metrics.json", "metrics.jsonl", "model.safetensors"]
    assert sorted(file.name for file in out.iterdir()) == names
    weights = ours.read(out / "model.safetensors")
    variables, _ = restore_variables(scored, build(scored.config.model, 3), 1)
    expected = flatten_dict(variables, sep="/")
    assert weights.arrays.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(weights.arrays[path], np.asarray(array))
    assert weights.class_names == ("sky", "sea", "sand")
    metrics = json.loads((out / "metrics.json").read_text())
    assert {name: metrics[name] for name in SCORES} == SCORES
    assert metrics["per_class_iu"] == {"sky": 0.5, "sea": None, "sand": 0.0}
    assert metrics["commands"] == ["fcn-jax train x"]
    assert (metrics["machine"], metrics["step"], metrics["split"]) == ("a GPU", 1, "val")
    assert 89 <= metrics["seconds"] <= 91
    assert metrics["contents"] == scored.contents
    assert metrics["versions"]["numpy"] == np.__version__
    assert metrics["config"]["model"]["backbone"] == "resnet18"
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 1
    card = (out / "README.md").read_text()
    for text in ("| mean_iu | 25.00 |", "| 1 | sea | `#800000` |", "`fcn-jax train x`", "1.5 minutes", scored.contents):
        assert text in card


@pytest.mark.parametrize(
    ("start", "names"),
    [
        ({"weights": "/home/me/net.pth"}, {"weights": "net.pth"}),
        ({"init_from": Path("/home/me/runs/a")}, {"init_from": "a"}),
        (
            {"fusion": "late", "init_streams": (Path("/home/me/a"), Path("/home/me/b"))},
            {"init_streams": ["a", "b"]},
        ),
    ],
)
def test_the_folders_of_files_are_left_out(scored, start, names):
    """They say nothing on another machine. Only the commands are kept as they were given."""
    config = dataclasses.replace(scored.config, model=dataclasses.replace(scored.config.model, **start))
    described = describe(scored._replace(config=config), 1)
    assert "/home/me" not in json.dumps(described)
    assert {name: described["config"]["model"][name] for name in names} == names
    (name,) = names.values()
    assert described["weights"] == (" and ".join(name) if isinstance(name, list) else name)
    assert f"- Weights at the start: {described['weights']}." in list_training(scored._replace(config=config))


def test_what_is_not_known_is_none(scored):
    unscored = describe(scored, 2)
    assert all(unscored[name] is None for name in (*SCORES, "per_class_iu"))
    file = scored.folder / "config.json"
    config = json.loads(file.read_text())
    config["starts"] *= 2
    file.write_text(json.dumps(config))
    resumed = describe(scored, 1)
    assert (resumed["seconds"], len(resumed["commands"])) == (None, 2)
    del config["starts"]
    file.write_text(json.dumps(config))
    former = describe(scored, 1)
    assert (former["seconds"], former["machine"], former["commands"]) == (None, None, [])


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(),
        ModelConfig("fcn16s", "vgg16", 1024, 1, "reference", (0.01, 0.0001), "fixed", allow=("backbone/fc",)),
        ModelConfig("dilated", "resnet50", freeze_bn=True, weights="imagenet"),
        ModelConfig(output_stride=8, dtype="bfloat16", fusion="late"),
    ],
)
def test_the_command_of_the_card_makes_the_same_network(scored, tmp_path, model):
    data = dataclasses.replace(scored.config.data, inputs=("colour", "bands") if model.fusion == "late" else ())
    flags = list_flags(scored._replace(config=dataclasses.replace(scored.config, model=model, data=data)))
    _, config, *_ = read_flags(flags)
    assert Path(config.model.weights or "").name == "model.safetensors"
    assert dataclasses.replace(config.model, weights=None) == dataclasses.replace(model, weights=None, allow=())
    assert (config.data.name, config.data.inputs) == (data.name, data.inputs)


@pytest.mark.parametrize("starts", [5, [{"command": 3}], [{"command": "x", "machine": "y", "time": "z"}]])
def test_a_damaged_start_is_said_and_nothing_is_written(scored, tmp_path, starts):
    file = scored.folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"starts": starts}))
    with pytest.raises(InputError, match="does not say how the run was started"):
        publish(scored, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_log_is_said_and_nothing_is_written(scored, tmp_path):
    (scored.folder / "metrics.jsonl").write_text('{"step": 1, "split": "val", "mean_iu": 0.5}\n')
    with pytest.raises(InputError, match=r"is damaged \(KeyError.*metrics\.jsonl cannot be understood"):
        publish(scored, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_folder_in_use_is_left_alone(scored, tmp_path):
    with pytest.raises(InputError, match="is there already; give a new folder"):
        publish(scored, scored.folder)


def test_the_card_of_an_extended_run_has_all_of_its_steps(scored):
    config = dataclasses.replace(scored.config, steps=100, extend=(150,))
    assert any(", 150 steps of" in line for line in list_training(scored._replace(config=config)))
    assert describe(scored._replace(config=config), 1)["steps"] == 150


def test_the_command_of_the_card_has_the_flags_of_the_data(scored):
    data = DataConfig("folder", void=(7,), map=("255=1", "#800000=0"), train_split="all", hold_out=0.2)
    options = DataOptions(dir=Path("/d"), classes=Path("/c.txt"), label_suffix="_mask", val_split="test")
    run = scored._replace(
        config=dataclasses.replace(scored.config, data=data), options=dataclasses.replace(scored.options, data=options)
    )
    _, config, found, *_ = read_flags(shlex.split(" ".join(list_flags(run))))
    assert config.data == data
    assert (found.data.dir.name, found.data.classes.name) == ("DIR", "FILE")
    assert (found.data.label_suffix, found.data.val_split) == ("_mask", "test")


def test_names_of_classes_stay_in_their_cells(scored):
    names = ("a|b", "<i>wet", "a\nb")
    task = scored.tasks[0]._replace(class_names=names)
    rows = list_classes(scored._replace(tasks=(task,)))[-3:]
    assert [row.split(" | ")[1] for row in rows] == ["a\\|b", "&lt;i>wet", "a b"]
