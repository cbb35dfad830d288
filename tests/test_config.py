"""The configuration: what is refused and how, what is filled in, what survives JSON and what a resume sees."""

import ast
import dataclasses
import inspect
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fcn_jax import config as module
from fcn_jax.config import (
    CAFFE_INPUT,
    DATASETS,
    DESCRIPTIONS,
    PRESETS,
    AugmentConfig,
    Config,
    DataConfig,
    DatasetDefaults,
    InputConfig,
    ModelConfig,
    OptimConfig,
    averaged,
    differences,
    from_json,
    summed,
    to_json,
)
from fcn_jax.data import dataset as datasets
from fcn_jax.errors import InputError

PARTS = (InputConfig, ModelConfig, DataConfig, AugmentConfig, OptimConfig)

# Every field different from its default, so that nothing can get lost unseen.
FULL = Config(
    model=ModelConfig(
        head="fcn16s",
        backbone="resnet18",
        fc_features=64,
        fc_kernel=1,
        skip_scales=(0.5, 0.25),
        upsampling="fixed",
        dtype="bfloat16",
        output_stride=16,
        freeze_bn=True,
        weights="a.pth",
        allow=("backbone/fc6", "backbone/fc7"),
        input=CAFFE_INPUT,
    ),
    data=DataConfig("folder", Path("a b/c"), Path("/cache"), Path("names.txt"), (11, 12), "train2", "val2", "disk"),
    augment=AugmentConfig(64, (0.75, 1.5), False, 0.25),
    optim=OptimConfig(
        learning_rate=0.125,
        schedule="constant",
        power=2.0,
        warmup_steps=7,
        momentum=0.5,
        weight_decay=0.25,
        clip_norm=3.0,
        reduction="sum",
        class_weights=(1.0, 2.5),
        label_smoothing=0.125,
        auxiliary_weight=0.25,
        frozen=("backbone/conv1", "backbone/bn1"),
        rate_factors=(("score", 10.0), ("upscore", 0.5)),
        bias_factor=2.0,
    ),
    profile=3,
    dry_run=True,
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
    staged=True,
    stage_factors=(1.0, 0.5, 0.25),
)
# What excludes each other there: a network starts from a file or from a run; VGG has the padding, ResNets dilation.
FROM_RUN = dataclasses.replace(
    FULL, model=ModelConfig("fcn16s", "vgg16", padding="reference", init_from=Path("runs/coarse"))
)


def leaves(values: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in values.items():
        flat |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def test_the_full_example_leaves_no_default():
    given, default = leaves(dataclasses.asdict(FULL)), leaves(dataclasses.asdict(Config()))
    default.pop("model.input")  # which has no parts, and parts there
    assert {name for name in default if given[name] == default[name]} == {"model.init_from", "model.padding"}
    given = leaves(dataclasses.asdict(FROM_RUN))
    assert {"model.init_from", "model.padding"} <= {name for name in default if given[name] != default[name]}


@pytest.mark.parametrize(
    "config", [FULL, FROM_RUN, Config(), *PRESETS.values()], ids=["full", "from a run", "default", *PRESETS]
)
def test_json_round_trip(config):
    for variant in (config, config.resolved()):
        text = json.dumps(to_json(variant), allow_nan=False)
        back = from_json(Config, json.loads(text))
        assert back == variant
        # Types as well: 1 equals 1.0.
        for name, value in leaves(dataclasses.asdict(back)).items():
            assert type(value) is type(leaves(dataclasses.asdict(variant))[name]), name
        assert type(back.model.input) is type(variant.model.input)
        hash(back)


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
    (ModelConfig, {"backbone": "vgg16", "output_stride": 8}, r"model\.output-stride is 8; vgg16 has 32 alone, ResNets"),
    (ModelConfig, {"backbone": "vgg16", "freeze_bn": True}, r"model\.freeze-bn is set with vgg16; ResNets and"),
    (ModelConfig, {"head": "dilated", "backbone": "vgg19"}, r"model\.head is dilated, with vgg19; .* ResNets alone"),
    (
        ModelConfig,
        {"weights": "a.pth", "init_from": Path("runs/b")},
        r"model\.weights is a\.pth and model\.init-from runs/b; a network starts from one of",
    ),
    (InputConfig, {"std": (1.0, 0.0, 1.0)}, r"model\.input\.std is \(1\.0, 0\.0, 1\.0\); every value must be above 0"),
    (AugmentConfig, {"crop": -8}, r"augment\.crop is -8; it is a number of pixels, from 1"),
    (AugmentConfig, {"scale": (2.0, 0.5)}, r"augment\.scale is \(2\.0, 0\.5\); give the smallest and the largest"),
    (AugmentConfig, {"scale": (0.0, 1.0)}, r"augment\.scale is \(0\.0, 1\.0\); .* both above 0"),
    (AugmentConfig, {"scale": (-1.0, 1.0)}, r"augment\.scale is \(-1\.0, 1\.0\)"),
    (AugmentConfig, {"colour": 1.5}, r"augment\.colour is 1\.5; it lies within 0\.\.1"),
    (AugmentConfig, {"colour": -0.1}, r"augment\.colour is -0\.1; it lies within 0\.\.1"),
    (OptimConfig, {"learning_rate": -0.1}, r"optim\.learning-rate is -0\.1; give it above 0"),
    (OptimConfig, {"learning_rate": float("nan")}, r"optim\.learning-rate is nan"),
    (OptimConfig, {"learning_rate": float("inf")}, r"optim\.learning-rate is inf; give it above 0, and finite"),
    (AugmentConfig, {"scale": (1.0, float("inf"))}, r"augment\.scale is \(1\.0, inf\); .* and finite"),
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
    (OptimConfig, {"rate_factors": (("score", 0.0),)}, r"optim\.rate-factors are \(\('score', 0\.0\),\); .* above 0"),
    (OptimConfig, {"auxiliary_weight": -0.5}, r"optim\.auxiliary-weight is -0\.5; it must not be negative"),
    (OptimConfig, {"bias_factor": 0.0}, r"optim\.bias-factor is 0\.0; give it above 0"),
    (Config, {"steps": -2}, r"steps is -2; give 0, or more to train"),
    *[
        (Config, {name: -1}, rf"^{name.replace('_', '-')} is -1; give at least 1")
        for name in ("batch_size", "eval_every", "checkpoint_every", "eval_batch_size")
    ],
    *[
        (Config, {name: 0}, rf"^{name.replace('_', '-')} is 0; it must be at least 1")
        for name in ("accumulate", "keep", "log_every", "workers")
    ],
    (Config, {"batch_size": 8, "accumulate": 3}, r"batch-size 8 cannot be split into 3 equal parts; choose an accum"),
    (
        Config,
        {"staged": True, "model": ModelConfig("fcn32s")},
        r"staged trains coarser .* is fcn32s; .* fcn16s, fcn8s",
    ),
    (Config, {"stage_factors": (1.0, 0.0, 1.0)}, r"stage-factors are \(1\.0, 0\.0, 1\.0\); every factor must be above"),
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
    given = PRESETS[preset]
    config = dataclasses.replace(given, data=DataConfig(name=name))
    resolved = config.resolved()
    wants = DATASETS[name]
    assert resolved.steps == (given.steps if given.steps >= 0 else wants.steps)
    assert resolved.batch_size == (given.batch_size or wants.batch_size)
    assert resolved.eval_every == resolved.checkpoint_every == (given.eval_every or wants.eval_every)
    assert resolved.augment.crop == (given.augment.crop or wants.crop)
    assert resolved.augment.scale == (given.augment.scale if any(given.augment.scale) else wants.scale)
    assert resolved.optim.learning_rate == (given.optim.learning_rate or wants.learning_rate)
    # Nothing is left open, and filling in again changes nothing.
    assert resolved.resolved() == resolved
    # What makes the preset what it is stays.
    assert dataclasses.replace(resolved.model, input=None) == dataclasses.replace(given.model, input=None)
    if not given.model.weights:
        assert resolved.model.input == InputConfig()


def test_recipes_are_complete_and_general_presets_fit_every_data_set():
    for name, config in PRESETS.items():
        recipe = name.startswith("voc-")
        assert recipe == (config.data.name == "voc2012")
        assert recipe == bool(config.steps > 0 and config.batch_size and config.optim.learning_rate)


def test_the_rates_of_the_reference():
    # solver.prototxt of voc-fcn32s, voc-fcn16s, voc-fcn8s: base_lr 1e-10, 1e-12, 1e-14.
    config = PRESETS["voc-fcn8s"]
    rates = [config.optim.learning_rate * factor for factor in config.stage_factors]
    assert rates == pytest.approx([1e-10, 1e-12, 1e-14])
    assert config.staged
    assert not PRESETS["voc-fcn8s-atonce"].staged
    assert (config.optim.momentum, config.optim.weight_decay, config.optim.bias_factor) == (0.99, 5e-4, 2.0)


def test_a_sum_and_a_mean_take_the_same_steps():
    """Worked example: 1e-10 on the sum of a 500x500 image is 2.5e-5 on its mean; a step of each moves w alike."""
    of_sum, of_mean = PRESETS["voc-fcn8s"].optim, PRESETS["voc-fcn8s-mean"].optim
    assert (of_mean.learning_rate, of_mean.weight_decay) == pytest.approx((2.5e-5, 2e-9))
    back = summed(of_mean, 500 * 500)
    assert (back.learning_rate, back.weight_decay) == pytest.approx((1e-10, 5e-4))
    assert (back.reduction, of_mean.reduction) == ("sum", "mean")
    # Several steps with momentum and decay, the decay large enough to be seen.
    of_sum = dataclasses.replace(of_sum, learning_rate=1e-3, weight_decay=0.5)
    of_mean = averaged(of_sum, 40)
    gradients = np.random.default_rng(0).normal(size=(5, 40))

    def path(optim: OptimConfig, reduce: Callable[[np.ndarray], np.floating]) -> list[float]:
        weight, velocity, weights = 1.0, 0.0, []
        for gradient in gradients:
            velocity = optim.momentum * velocity + reduce(gradient) + optim.weight_decay * weight
            weight -= optim.learning_rate * velocity
            weights.append(weight)
        return weights

    assert path(of_mean, np.mean) == pytest.approx(path(of_sum, np.sum), rel=1e-12)


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
    "data.decoded",
    "run_dir",
    "eval_every",
    "checkpoint_every",
    "keep",
    "log_every",
    "eval_batch_size",
    "workers",
    "profile",
    "dry_run",
    "staged",
    "stage_factors",
}


def test_differences_name_decisive_changes_alone():
    default = leaves(to_json(Config()))
    expected = {name for name in {**default, **leaves(to_json(FULL))} if name not in DECIDE_NOTHING}
    expected -= {"model.init_from", "model.padding", "model.input"}
    lines = differences(Config(), FULL)
    assert {line.split(": ")[0] for line in lines} == expected
    assert "model.head: fcn8s -> fcn16s" in lines
    assert "augment.scale: [0.0, 0.0] -> [0.75, 1.5]" in lines
    assert "batch_size: 0 -> 12" in lines
    assert "model.input.order: None -> bgr" in lines
    assert "model.init_from: None -> runs/coarse" in differences(Config(), FROM_RUN)
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
        assert kind.__doc__.strip().endswith(".")
    for field in dataclasses.fields(DatasetDefaults):
        assert f"    {field.name}: " in DatasetDefaults.__doc__


@pytest.mark.parametrize("kind", [*PARTS, Config, DatasetDefaults])
def test_configurations_are_frozen(kind):
    assert kind.__dataclass_params__.frozen


def test_help_needs_neither_jax_nor_data_sets():
    code = "import sys, fcn_jax.config; print([m for m in ('jax', 'flax', 'tensorflow_datasets') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
