"""The configuration: what is refused and how, what is filled in, what survives JSON and what a resume sees."""

import ast
import dataclasses
import inspect
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fcn_jax import config as module
from fcn_jax import datasets
from fcn_jax.config import (
    DATASETS,
    DESCRIPTIONS,
    PRESETS,
    AugmentConfig,
    Config,
    DataConfig,
    DatasetDefaults,
    ModelConfig,
    OptimConfig,
    differences,
    from_json,
    to_json,
)
from fcn_jax.errors import InputError

PARTS = (ModelConfig, DataConfig, AugmentConfig, OptimConfig)

# Every field different from its default, so that nothing can get lost unseen.
FULL = Config(
    model=ModelConfig("fcn16s", "vgg16", 64, 1, "reference", (0.5, 0.25), "fixed", "bfloat16"),
    data=DataConfig("folder", Path("a b/c"), Path("/cache"), Path("names.txt"), (11, 12), "train2", "val2"),
    augment=AugmentConfig(64, (0.75, 1.5), False, 0.25),
    optim=OptimConfig(0.125, "constant", 2.0, 7, 0.5, 0.25, 3.0, "sum", (1.0, 2.5), 0.125),
    steps=11,
    batch_size=12,
    accumulate=3,
    seed=4,
    run_dir=Path("runs/x"),
    eval_every=5,
    checkpoint_every=6,
    keep=7,
    log_every=8,
    eval_batch_size=9,
    workers=10,
)


def leaves(values: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in values.items():
        flat |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def test_the_full_example_leaves_no_default():
    given, default = leaves(dataclasses.asdict(FULL)), leaves(dataclasses.asdict(Config()))
    assert [name for name in default if given[name] == default[name]] == []


@pytest.mark.parametrize("config", [FULL, Config(), *PRESETS.values()], ids=["full", "default", *PRESETS])
def test_json_round_trip(config):
    for variant in (config, config.resolved()):
        text = json.dumps(to_json(variant), allow_nan=False)
        back = from_json(Config, json.loads(text))
        assert back == variant
        # Types as well: 1 equals 1.0.
        for name, value in leaves(dataclasses.asdict(back)).items():
            assert type(value) is type(leaves(dataclasses.asdict(variant))[name]), name


def test_json_holds_plain_values_only():
    values = to_json(FULL)
    assert values["data"]["dir"] == "a b/c"
    assert values["data"]["void"] == [11, 12]
    assert values["augment"]["scale"] == [0.75, 1.5]
    assert to_json(Config())["run_dir"] is None


@pytest.mark.parametrize(("where", "kind"), [((), "Config"), (("optim",), "OptimConfig")])
def test_unknown_field(where, kind):
    values = to_json(Config())
    inner = values
    for name in where:
        inner = inner[name]
    inner["nesterov"] = True
    with pytest.raises(InputError, match=rf"configuration has \['nesterov'\], which {kind} of this version does not"):
        from_json(Config, values)


def test_fields_a_stored_configuration_lacks_take_their_defaults():
    assert from_json(Config, {"steps": 3}) == Config(steps=3)


INVALID = [
    (ModelConfig, {"fc_features": 0}, r"model\.fc-features is 0; it is a number of channels, from 1"),
    (ModelConfig, {"fc_kernel": 4}, r"model\.fc-kernel is 4; it must be odd"),
    (ModelConfig, {"fc_kernel": -1}, r"model\.fc-kernel is -1; it must be odd and from 1"),
    (AugmentConfig, {"crop": -8}, r"augment\.crop is -8; it is a number of pixels, from 1"),
    (AugmentConfig, {"scale": (2.0, 0.5)}, r"augment\.scale is \(2\.0, 0\.5\); give the smallest and the largest"),
    (AugmentConfig, {"scale": (0.0, 1.0)}, r"augment\.scale is \(0\.0, 1\.0\); .* both above 0"),
    (AugmentConfig, {"scale": (-1.0, 1.0)}, r"augment\.scale is \(-1\.0, 1\.0\)"),
    (AugmentConfig, {"colour": 1.5}, r"augment\.colour is 1\.5; it lies within 0\.\.1"),
    (AugmentConfig, {"colour": -0.1}, r"augment\.colour is -0\.1; it lies within 0\.\.1"),
    (OptimConfig, {"learning_rate": -0.1}, r"optim\.learning-rate is -0\.1; give it above 0"),
    (OptimConfig, {"learning_rate": float("nan")}, r"optim\.learning-rate is nan"),
    (OptimConfig, {"power": -1.0}, r"optim\.power is -1\.0; it must not be negative"),
    (OptimConfig, {"momentum": 1.0}, r"optim\.momentum is 1\.0; it lies within 0\.\.1, below 1"),
    (OptimConfig, {"momentum": -0.5}, r"optim\.momentum is -0\.5"),
    (OptimConfig, {"weight_decay": -1e-4}, r"optim\.weight-decay is -0\.0001; it must not be negative"),
    (OptimConfig, {"warmup_steps": -1}, r"optim\.warmup-steps is -1; it must not be negative"),
    (OptimConfig, {"clip_norm": 0.0}, r"optim\.clip-norm is 0\.0; give it above 0"),
    (OptimConfig, {"label_smoothing": 1.0}, r"optim\.label-smoothing is 1\.0; it lies within 0\.\.1, below 1"),
    (OptimConfig, {"label_smoothing": -0.1}, r"optim\.label-smoothing is -0\.1"),
    (OptimConfig, {"class_weights": (1.0, -1.0)}, r"optim\.class-weights are \(1\.0, -1\.0\); give one factor from 0"),
    (OptimConfig, {"class_weights": ()}, r"optim\.class-weights are \(\); give one factor .* for each class"),
    *[
        (Config, {name: -1}, rf"^{name.replace('_', '-')} is -1; give at least 1")
        for name in ("steps", "batch_size", "eval_every", "checkpoint_every", "eval_batch_size")
    ],
    *[
        (Config, {name: 0}, rf"^{name.replace('_', '-')} is 0; it must be at least 1")
        for name in ("accumulate", "keep", "log_every", "workers")
    ],
    (Config, {"batch_size": 8, "accumulate": 3}, r"batch-size 8 cannot be split into 3 equal parts; choose an accum"),
    (Config, {"seed": -1}, r"seed is -1; it lies within 0\.\.2\^31 - 1"),
    (Config, {"seed": 2**31}, r"seed is 2147483648"),
]


@pytest.mark.parametrize(("kind", "values", "message"), INVALID)
def test_invalid_values_are_refused(kind, values, message):
    with pytest.raises(InputError, match=message):
        kind(**values)


def test_values_at_the_edge_are_taken():
    assert OptimConfig(momentum=0.0, label_smoothing=0.0, weight_decay=0.0, class_weights=(0.0, 1.0)).momentum == 0
    assert AugmentConfig(crop=1, scale=(1.0, 1.0), colour=1.0).colour == 1
    assert ModelConfig(fc_kernel=1, fc_features=1).fc_kernel == 1
    assert Config(seed=2**31 - 1, batch_size=6, accumulate=3).seed == 2**31 - 1


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("preset", PRESETS)
def test_resolved_fills_everything_in(preset, name):
    config = dataclasses.replace(PRESETS[preset], data=DataConfig(name=name))
    resolved = config.resolved()
    wants = DATASETS[name]
    assert (resolved.steps, resolved.batch_size, resolved.eval_every) == (
        wants.steps,
        wants.batch_size,
        wants.eval_every,
    )
    assert (resolved.augment.crop, resolved.augment.scale) == (wants.crop, wants.scale)
    assert resolved.optim.learning_rate == wants.learning_rate
    assert resolved.checkpoint_every == wants.eval_every
    # Nothing is left open, and filling in again changes nothing.
    assert resolved.resolved() == resolved
    # What makes the preset what it is stays.
    assert resolved.model == config.model


@pytest.mark.parametrize("name", DATASETS)
def test_resolved_keeps_what_is_given(name):
    config = dataclasses.replace(FULL, data=dataclasses.replace(FULL.data, name=name))
    assert config.resolved() == config


def test_a_batch_size_of_the_data_set_that_cannot_be_split():
    with pytest.raises(InputError, match=r"batch-size 8 cannot be split into 3 equal parts"):
        Config(accumulate=3).resolved()


def test_a_short_run_is_evaluated_at_its_end():
    resolved = Config(steps=20).resolved()
    assert resolved.eval_every == resolved.checkpoint_every == 20


def test_checkpoints_follow_evaluations_unless_given():
    assert Config(eval_every=30).resolved().checkpoint_every == 30
    assert Config(eval_every=30, checkpoint_every=10).resolved().checkpoint_every == 10


def test_defaults_of_the_data_sets_are_valid():
    for wants in DATASETS.values():
        assert wants.steps % wants.eval_every == 0
        assert min(wants.crop, wants.steps, wants.batch_size, wants.learning_rate) > 0
        assert 0 < wants.scale[0] <= 1 <= wants.scale[1]


def test_unknown_data_set():
    with pytest.raises(
        InputError, match=r"data set 'voc2021' is unknown, there are .*camvid.*; did you mean 'voc2012'"
    ):
        Config(data=DataConfig(name="voc2021")).resolved()
    with pytest.raises(InputError, match=r"data set 'qqq' is unknown, there are [^?]*$"):
        Config(data=DataConfig(name="qqq")).resolved()


def test_data_sets_have_defaults_and_presets_a_description():
    assert set(DATASETS) == set(datasets.names())
    assert PRESETS.keys() == DESCRIPTIONS.keys()
    for name in ("fcn32s", "fcn16s", "fcn8s", "fcn8s-atonce"):
        assert PRESETS[name].model.head == name.split("-")[0]
    assert PRESETS["fcn8s-atonce"].model.skip_scales == (0.01, 0.0001)
    assert PRESETS["fcn8s"].model.skip_scales == (1.0, 1.0)


# What another value of each field changes: the numbers a run computes, or only where and how it goes on.
DECIDE_NOTHING = {
    "data.dir",
    "data.cache",
    "data.classes",
    "data.val_split",
    "run_dir",
    "eval_every",
    "checkpoint_every",
    "keep",
    "log_every",
    "eval_batch_size",
    "workers",
}


def test_differences_name_decisive_changes_alone():
    default = leaves(to_json(Config()))
    expected = {name for name in default if name not in DECIDE_NOTHING}
    lines = differences(Config(), FULL)
    assert {line.split(": ")[0] for line in lines} == expected
    assert "model.head: fcn8s -> fcn16s" in lines
    assert "augment.scale: [0.0, 0.0] -> [0.75, 1.5]" in lines
    assert "batch_size: 0 -> 12" in lines
    assert differences(FULL, FULL) == []


def test_where_things_are_may_change():
    moved = dataclasses.replace(
        FULL, data=dataclasses.replace(FULL.data, dir=Path("elsewhere"), cache=None), run_dir=None, workers=1, keep=1
    )
    assert differences(FULL, moved) == []


def test_a_constant_rate_may_be_prolonged_and_a_falling_one_not():
    constant, poly = (Config(optim=OptimConfig(schedule=schedule), steps=5) for schedule in ("constant", "poly"))
    assert differences(constant, dataclasses.replace(constant, steps=50)) == []
    assert differences(poly, dataclasses.replace(poly, steps=50)) == ["steps: 5 -> 50"]
    assert "steps: 5 -> 50" in differences(constant, dataclasses.replace(poly, steps=50))
    assert "steps: 5 -> 50" in differences(poly, dataclasses.replace(constant, steps=50))


def test_every_field_says_what_it_means():
    classes = {node.name: node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.ClassDef)}
    for kind in (*PARTS, Config):
        body = classes[kind.__name__].body
        documented = {
            field.target.id
            for field, after in itertools.pairwise(body)
            if isinstance(field, ast.AnnAssign)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
            and len(after.value.value) > 5
        }
        plain = {field.name for field in dataclasses.fields(kind) if field.type not in PARTS}
        assert documented == plain, kind
        assert kind.__doc__.endswith(".")
    for field in dataclasses.fields(DatasetDefaults):
        assert f"    {field.name}: " in DatasetDefaults.__doc__


@pytest.mark.parametrize("kind", [*PARTS, Config, DatasetDefaults])
def test_configurations_are_frozen(kind):
    assert kind.__dataclass_params__.frozen


def test_help_needs_neither_jax_nor_data_sets():
    code = "import sys, fcn_jax.config; print([m for m in ('jax', 'flax', 'tensorflow_datasets') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
