"""The configuration: what is refused and how, where each range ends, and that every field is explained."""

import ast
import dataclasses
import inspect
import itertools
import math
import traceback
from pathlib import Path

import pytest
from full_config import FROM_RUN, FROM_STREAMS, FULL, FULL_OPTIONS, ONLY_FROM_RUN, ONLY_FROM_STREAMS, flatten

from fcn_jax.config import (
    CAFFE_INPUT,
    AugmentConfig,
    Config,
    DataConfig,
    DataOptions,
    InputConfig,
    ModelConfig,
    OptimConfig,
    RunOptions,
    images,
    network,
    training,
)
from fcn_jax.errors import InputError

MODULES = (network, images, training)
KINDS = (InputConfig, ModelConfig, DataConfig, AugmentConfig, OptimConfig, Config, DataOptions, RunOptions)
NAN, INF = math.nan, math.inf

# A value outside the range of each field, and parts of the message: the name of its flag, the value and the rule.
REFUSED = [
    (InputConfig, {"std": (1.0, 0.0, 1.0)}, r"model\.input\.std is \(1\.0, 0\.0, 1\.0\).* above 0"),
    (InputConfig, {"std": (1.0, 1.0, NAN)}, r"model\.input\.std is .*nan.* above 0"),
    (InputConfig, {"mean": (1.0,)}, r"model\.input\.mean has 1 values and model\.input\.std 3; give one of each"),
    (InputConfig, {"log": (3,)}, r"model\.input\.log is \(3,\); each must be the number of a channel, 0 to 2"),
    (InputConfig, {"channels": ()}, r"model\.input\.channels is \(\); give at least one input"),
    (ModelConfig, {"fc_features": 0}, r"model\.fc-features is 0.* at least 1"),
    (ModelConfig, {"fc_kernel": 4}, r"model\.fc-kernel is 4.* odd"),
    (ModelConfig, {"fc_kernel": -1}, r"model\.fc-kernel is -1.* odd and at least 1"),
    (
        ModelConfig,
        {"backbone": "resnet50", "head": "dilated", "output_stride": 16},
        r"model\.output-stride is 16 with the head dilated, which has 8 always; leave it out",
    ),
    (ModelConfig, {"backbone": "vgg19", "head": "dilated"}, r"model\.head is dilated .*vgg19.* only ResNets"),
    (ModelConfig, {"backbone": "vgg16", "output_stride": 8}, r"model\.output-stride is 8 .*vgg16.* 32 only"),
    (ModelConfig, {"backbone": "vgg16", "freeze_bn": True}, r"model\.freeze-bn .*vgg16 has no batch norm"),
    (ModelConfig, {"backbone": "resnet18", "padding": "reference"}, r"model\.padding is 'reference' .*resnet18"),
    (
        ModelConfig,
        {"weights": "a.pth", "init_from": Path("runs/b")},
        r"model\.weights is a\.pth .*model\.init-from is runs/b.* starts from one of them",
    ),
    (ModelConfig, {"init_streams": (Path("a"), Path("b"))}, r"model\.init-streams is given .*fusion early.* only late"),
    (
        ModelConfig,
        {"fusion": "late", "init_streams": (Path("a"),), "weights": "w"},
        r"model\.init-streams is given beside model\.weights or model\.init-from; a network starts from one",
    ),
    (
        ModelConfig,
        {"fusion": "late", "head": "dilated", "backbone": "resnet50"},
        r"model\.fusion is late with the head dilated; late fusion is of fcn32s",
    ),
    (DataConfig, {"hold_out": 1.0}, r"data\.hold-out is 1\.0.* below 1"),
    (AugmentConfig, {"crop": 0}, r"augment\.crop is 0.* at least 1"),
    (AugmentConfig, {"scale": (2.0, 0.5)}, r"augment\.scale is \(2\.0, 0\.5\).* smallest and the largest"),
    (AugmentConfig, {"scale": (0.0, 1.0)}, r"augment\.scale is \(0\.0, 1\.0\).* above 0"),
    (AugmentConfig, {"scale": (1.0, INF)}, r"augment\.scale is \(1\.0, inf\).* finite"),
    (AugmentConfig, {"scale": (NAN, 1.0)}, r"augment\.scale is \(nan, 1\.0\)"),
    (AugmentConfig, {"colour": 1.5}, r"augment\.colour is 1\.5.* 0 to 1"),
    (OptimConfig, {"learning_rate": 0.0}, r"optim\.learning-rate is 0\.0.* above 0"),
    (OptimConfig, {"learning_rate": NAN}, r"optim\.learning-rate is nan"),
    (OptimConfig, {"learning_rate": INF}, r"optim\.learning-rate is inf.* finite"),
    (OptimConfig, {"power": -1.0}, r"optim\.power is -1\.0.* at least 0"),
    (OptimConfig, {"momentum": 1.0}, r"optim\.momentum is 1\.0.* below 1"),
    (OptimConfig, {"weight_decay": -1e-4}, r"optim\.weight-decay is -0\.0001.* at least 0"),
    (OptimConfig, {"rate_cuts": (5, -1)}, r"optim\.rate-cuts are \(5, -1\); each must be .* at least 0"),
    (OptimConfig, {"warmup_steps": -1}, r"optim\.warmup-steps is -1.* at least 0"),
    (OptimConfig, {"clip_norm": -1.0}, r"optim\.clip-norm is -1\.0.* above 0 .* 0 for no clipping"),
    *[
        (OptimConfig, {name: INF}, rf"optim\.{name.replace('_', '-')} is inf.* finite")
        for name in ("power", "weight_decay", "auxiliary_weight", "bias_factor")
    ],
    (ModelConfig, {"skip_scales": (1.0, NAN)}, r"model\.skip-scales are \(1\.0, nan\).* finite"),
    (InputConfig, {"mean": (0.0, INF, 0.0)}, r"model\.input\.mean is \(0\.0, inf, 0\.0\).* finite"),
    (OptimConfig, {"clip_norm": math.inf}, r"optim\.clip-norm is inf.* finite"),
    (OptimConfig, {"feature_scale": math.inf}, r"optim\.feature-scale is inf.* above 0 and finite"),
    (OptimConfig, {"class_weights": (1.0, -1.0)}, r"optim\.class-weights are \(1\.0, -1\.0\).* at least 0"),
    (OptimConfig, {"class_weights": (1.0, NAN)}, r"optim\.class-weights are \(1\.0, nan\).* finite"),
    (OptimConfig, {"class_weights": ()}, r"optim\.class-weights are \(\).* for each class"),
    (OptimConfig, {"label_smoothing": 1.0}, r"optim\.label-smoothing is 1\.0.* below 1"),
    (OptimConfig, {"auxiliary_weight": -0.5}, r"optim\.auxiliary-weight is -0\.5.* at least 0"),
    (OptimConfig, {"rate_factors": (("a", 1.0), ("b", 0.0))}, r"optim\.rate-factors are .*'b', 0\.0.* optim\.frozen"),
    (OptimConfig, {"bias_factor": 0.0}, r"optim\.bias-factor is 0\.0.* above 0"),
    (Config, {"steps": -1}, r"^steps is -1.* at least 0"),
    *[
        (Config, {"steps": steps, "extend": extend}, rf"^extend is {text} after steps {steps}, .* above the one before")
        for steps, extend, text in (
            (8, (4,), "4"),
            (8, (8,), "8"),
            (8, (10, 9), "10 9"),
            (None, (0,), "0"),
            (0, (-1,), "-1"),
        )
    ],
    (Config, {"batch_size": 0}, r"^batch-size is 0.* at least 1"),
    (Config, {"accumulate": 0}, r"^accumulate is 0.* at least 1"),
    (Config, {"batch_size": 8, "accumulate": 3}, r"batch-size 8 cannot be split into 3 .* accumulate that divides"),
    (Config, {"seed": -1}, r"^seed is -1.* 0 to 2\^31 - 1"),
    (Config, {"staged": True, "model": ModelConfig("fcn32s")}, r"^staged .*model\.head is fcn32s.* fcn16s, fcn8s"),
    (Config, {"staged": True, "model": ModelConfig("dilated")}, r"^staged .*model\.head is dilated"),
    (Config, {"stage_factors": (1.0, 0.0, 1.0)}, r"^stage-factors are \(1\.0, 0\.0, 1\.0\).* above 0"),
    *[
        (RunOptions, {name: 0}, rf"^{name.replace('_', '-')} is 0.* at least 1")
        for name in ("eval_every", "checkpoint_every", "eval_batch_size", "keep", "log_every", "workers")
    ],
    (RunOptions, {"stuck_after": -1.0}, r"^stuck-after is -1\.0.* 0 for never"),
    (RunOptions, {"profile": -1}, r"^profile is -1.* 0 for no trace"),
]


@pytest.mark.parametrize(("kind", "values", "message"), REFUSED)
def test_a_value_outside_its_range_is_refused(kind, values, message):
    with pytest.raises(InputError, match=message):
        kind(**values)


def test_every_rule_is_broken_by_a_case_above():
    calls = {
        (module.__file__, node.lineno)
        for module in MODULES
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "require"
    }
    broken = set()
    for kind, values, _ in REFUSED:
        with pytest.raises(InputError) as caught:
            kind(**values)
        frames = traceback.extract_tb(caught.value.__traceback__)
        broken |= {(frame.filename, frame.lineno) for frame in frames if frame.name == "__post_init__"}
    assert len(calls) > 25
    assert calls == broken


# The last value that each range takes, and the first beyond it.
ENDS = [
    (InputConfig, "std", (math.ulp(0), 1.0, 1.0), (0.0, 1.0, 1.0)),
    (ModelConfig, "fc_features", 1, 0),
    (DataConfig, "hold_out", 0.0, -math.ulp(0)),
    (DataConfig, "hold_out", 1.0 - 2**-53, 1.0),
    (ModelConfig, "fc_kernel", 1, 0),
    (ModelConfig, "fc_kernel", 3, 2),
    (AugmentConfig, "crop", 1, 0),
    (AugmentConfig, "scale", (1.0, 1.0), (1.0, math.nextafter(1, 0))),
    (AugmentConfig, "scale", (math.ulp(0), 1.0), (0.0, 1.0)),
    (AugmentConfig, "colour", 0.0, -math.ulp(0)),
    (AugmentConfig, "colour", 1.0, math.nextafter(1, 2)),
    (OptimConfig, "learning_rate", math.ulp(0), 0.0),
    (OptimConfig, "power", 0.0, -math.ulp(0)),
    (OptimConfig, "warmup_steps", 0, -1),
    (OptimConfig, "momentum", 0.0, -math.ulp(0)),
    (OptimConfig, "momentum", math.nextafter(1, 0), 1.0),
    (OptimConfig, "weight_decay", 0.0, -math.ulp(0)),
    (OptimConfig, "clip_norm", 0.0, -math.ulp(0)),
    (OptimConfig, "feature_scale", math.ulp(0), 0.0),
    (OptimConfig, "class_weights", (0.0, 1.0), (-math.ulp(0), 1.0)),
    (OptimConfig, "label_smoothing", 0.0, -math.ulp(0)),
    (OptimConfig, "label_smoothing", math.nextafter(1, 0), 1.0),
    (OptimConfig, "auxiliary_weight", 0.0, -math.ulp(0)),
    (OptimConfig, "rate_factors", (("score", math.ulp(0)),), (("score", 0.0),)),
    (OptimConfig, "bias_factor", math.ulp(0), 0.0),
    (Config, "steps", 0, -1),
    (Config, "extend", (1, 2), (1, 1)),
    (Config, "batch_size", 1, 0),
    (Config, "accumulate", 1, 0),
    (Config, "seed", 0, -1),
    (Config, "seed", 2**31 - 1, 2**31),
    (Config, "stage_factors", (1.0, 1.0, math.ulp(0)), (1.0, 1.0, 0.0)),
    (RunOptions, "eval_every", 1, 0),
    (RunOptions, "checkpoint_every", 1, 0),
    (RunOptions, "keep", 1, 0),
    (RunOptions, "log_every", 1, 0),
    (RunOptions, "eval_batch_size", 1, 0),
    (RunOptions, "workers", 1, 0),
    (RunOptions, "profile", 0, -1),
]


@pytest.mark.parametrize(("kind", "name", "last", "beyond"), ENDS)
def test_a_range_ends_where_its_help_says(kind, name, last, beyond):
    kind(**{name: last})
    with pytest.raises(InputError, match=name.replace("_", "-")):
        kind(**{name: beyond})


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (ModelConfig, {"backbone": "vgg16", "padding": "reference"}),
        (ModelConfig, {"backbone": "alexnet", "padding": "reference"}),
        (ModelConfig, {"backbone": "googlenet_bn", "padding": "reference"}),
        (ModelConfig, {"backbone": "vgg16_bn", "freeze_bn": True}),
        (ModelConfig, {"backbone": "resnet50", "head": "dilated", "output_stride": 8, "freeze_bn": True}),
        (ModelConfig, {"init_from": Path("runs/a")}),
        (Config, {"batch_size": 6, "accumulate": 3}),
        (Config, {"accumulate": 3}),  # the batch size is open; fill_config checks it
        (Config, {"staged": True, "model": ModelConfig("fcn16s")}),
    ],
)
def test_values_that_fit_each_other_are_taken(kind, values):
    made = kind(**values)
    assert {name: getattr(made, name) for name in values} == values


def test_what_is_left_open_is_none_and_none_is_always_taken():
    config, options = Config(), RunOptions()
    left_open = {name for name, value in flatten(dataclasses.asdict(config)).items() if value is None}
    assert left_open == {
        "model.weights", "model.init_from", "model.input", "augment.crop", "augment.scale", "optim.learning_rate",
        "optim.warmup_steps", "optim.clip_norm", "optim.feature_scale", "optim.class_weights", "steps", "batch_size",
    }  # fmt: skip
    left_open = {name for name, value in flatten(dataclasses.asdict(options)).items() if value is None}
    assert left_open == {
        "data.dir", "data.cache", "data.classes", "data.val_split", "run_dir", "eval_every", "checkpoint_every",
        "eval_batch_size",
    }  # fmt: skip


def test_the_input_is_imagenets_rgb_where_nothing_else_is_said():
    # torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), for pixels of 0 to 1.
    default = ModelConfig().input_or_default
    assert default.order == "rgb"
    assert default.mean == pytest.approx([255 * value for value in (0.485, 0.456, 0.406)])
    assert default.std == pytest.approx([255 * value for value in (0.229, 0.224, 0.225)])
    assert ModelConfig(input=CAFFE_INPUT).input_or_default == CAFFE_INPUT
    # voc_layers.py of the reference: mean = (104.00699, 116.66877, 122.67892), of B, G, R; nothing is divided.
    assert InputConfig("bgr", (104.00699, 116.66877, 122.67892), (1.0, 1.0, 1.0)) == CAFFE_INPUT


@pytest.mark.parametrize(
    ("channels", "alone"),
    [
        ((("colour", 3),), True),
        ((("hha", 3),), False),
        ((("colour", 3), ("depth", 1)), False),
        ((("bands", 3),), False),
    ],
)
def test_any_photograph_is_an_image_where_colour_is_alone(channels, alone):
    given = InputConfig(mean=(0.0,) * 4, std=(1.0,) * 4, channels=channels)
    assert given.is_colour_alone is alone
    assert (given.colour == slice(0, 3)) is (channels[0][0] == "colour")


def test_the_full_examples_leave_no_default():
    for given, default, missing in (
        (FULL, Config(), ONLY_FROM_RUN | ONLY_FROM_STREAMS),
        (FULL_OPTIONS, RunOptions(), set()),
    ):
        given, default = flatten(dataclasses.asdict(given)), flatten(dataclasses.asdict(default))
        default.pop("model.input", None)  # it has no parts here, and parts there
        assert {name for name in default if given[name] == default[name]} == missing
    for given, only in ((FROM_RUN, ONLY_FROM_RUN), (FROM_STREAMS, ONLY_FROM_STREAMS)):
        given, default = flatten(dataclasses.asdict(given)), flatten(dataclasses.asdict(Config()))
        assert {name for name in default if given[name] != default[name]} >= only


def test_every_field_is_explained_on_one_line():
    """The help of a longer docstring has line breaks inside of sentences."""
    nodes = [node for module in MODULES for node in ast.parse(inspect.getsource(module)).body]
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    assert set(classes) == {kind.__name__ for kind in KINDS}
    for kind in KINDS:
        texts = {
            field.target.id: after.value.value
            for field, after in itertools.pairwise(classes[kind.__name__].body)
            if isinstance(field, ast.AnnAssign)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        }
        assert texts.keys() == {field.name for field in dataclasses.fields(kind) if field.type not in KINDS}, kind
        for name, text in texts.items():
            assert len(text.split()) > 2, (kind, name)
            assert "\n" not in text, (kind, name)
            field = next(field for field in dataclasses.fields(kind) if field.name == name)
            if field.default is None and name not in ("weights", "init_from"):
                assert "None: " in text, (kind, name)
        assert kind.__doc__.strip().endswith("."), kind


@pytest.mark.parametrize("kind", KINDS)
def test_configurations_are_frozen(kind):
    name = dataclasses.fields(kind)[0].name
    made = kind()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, name, getattr(made, name))
    assert hash(made) == hash(kind())


def test_no_name_is_both_in_the_configuration_and_the_options():
    """The command line has them side by side, and former runs are split by their names."""

    def names(config, options):
        return set(flatten(dataclasses.asdict(config))), set(flatten(dataclasses.asdict(options)))

    decide, conduct = names(FULL, FULL_OPTIONS)
    assert not decide & conduct
