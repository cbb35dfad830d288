"""What a configuration leaves open is filled from its data set, and what is given stays."""

import dataclasses
import inspect
import re
import typing
from pathlib import Path

import pytest
from full_config import FROM_RUN, FULL, FULL_OPTIONS, flatten

from fcn_jax.config import CAFFE_INPUT, Config, DataConfig, DataOptions, InputConfig, ModelConfig, RunOptions
from fcn_jax.data.defaults import fill_config, fill_options
from fcn_jax.data.sources import SOURCES
from fcn_jax.data.sources.source import Defaults
from fcn_jax.errors import InputError
from fcn_jax.presets import PRESETS

# What the data set decides, and what the network decides.
FILLED = ("steps", "batch_size", "augment.crop", "augment.scale", "optim.learning_rate")
BY_NETWORK = {"optim.warmup_steps": 0, "optim.clip_norm": 0.0, "optim.feature_scale": 1.0}  # of a ResNet


def on(config: Config, name: str) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, name=name))


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_left_open_is_what_the_data_set_wants(name):
    before = flatten(dataclasses.asdict(on(Config(), name)))
    after = flatten(dataclasses.asdict(fill_config(on(Config(), name))))
    wants = dataclasses.asdict(SOURCES[name].defaults)
    for field in FILLED:
        assert before[field] is None
        assert after[field] == wants[field.split(".")[-1]]
    assert {field: after[field] for field in BY_NETWORK} == BY_NETWORK
    # Nothing else changes, but for the input of a network that starts from no weights.
    before.pop("model.input")
    assert {field for field, value in before.items() if after[field] != value} == {*FILLED, *BY_NETWORK}
    assert fill_config(on(Config(), name)).model.input == InputConfig()


@pytest.mark.parametrize("config", [FULL, FROM_RUN], ids=["weights", "run"])
@pytest.mark.parametrize("name", SOURCES)
def test_what_is_given_stays(name, config):
    assert fill_config(on(config, name)) == on(config, name)
    assert fill_options(FULL_OPTIONS, on(config, name)) == FULL_OPTIONS


@pytest.mark.parametrize("field", [*FILLED, *BY_NETWORK])
def test_each_value_is_filled_for_itself(field):
    """One of the values is open, the others are given."""
    values = dataclasses.asdict(SOURCES["camvid"].defaults)
    values |= {name.removeprefix("optim."): value for name, value in BY_NETWORK.items()}
    part, _, name = field.rpartition(".")
    if part:
        given = dataclasses.replace(FULL, **{part: dataclasses.replace(getattr(FULL, part), **{name: None})})
    else:
        given = dataclasses.replace(FULL, **{name: None}, accumulate=1)
    filled = flatten(dataclasses.asdict(fill_config(on(given, "camvid"))))
    expected = flatten(dataclasses.asdict(on(given, "camvid"))) | {field: values[name]}
    assert filled == expected


@pytest.mark.parametrize("name", SOURCES)
def test_filling_again_changes_nothing(name):
    config = fill_config(on(Config(), name))
    options = fill_options(RunOptions(), config)
    assert fill_config(config) == config
    assert fill_options(options, config) == options


SMALL_RESNETS = ("resnet18", "resnet34")
NORMED = ("googlenet_bn", "resnet50", "resnet101", "resnet152", "vgg16_bn", "vgg19_bn")


def test_the_kind_of_network_decides_the_rate_the_warm_up_and_the_clipping():
    """The table of docs/recipes.md."""
    for backbone in typing.get_args(typing.get_type_hints(ModelConfig)["backbone"]):
        config = fill_config(Config(model=ModelConfig(backbone=backbone)))
        optim = config.optim
        got = (optim.learning_rate, optim.warmup_steps, optim.clip_norm, optim.feature_scale)
        steady = (pytest.approx(0.1 if backbone in NORMED else 0.05), 85, 1.0, 1.0)
        assert got == ((0.1, 0, 0.0, 1.0) if backbone in SMALL_RESNETS else steady), backbone
    assert fill_config(Config(model=ModelConfig(backbone="vgg16"), steps=60)).optim.warmup_steps == 6
    assert fill_config(Config(model=ModelConfig(backbone="vgg16"), steps=5000)).optim.warmup_steps == 100


def test_the_size_of_the_features_follows_from_the_input():
    """Pixels of 0 to 255 have the mean deviation of ImageNet's three channels, 57.63."""
    waiting = Config(model=ModelConfig(backbone="vgg16", weights="a.caffemodel"))
    assert fill_config(waiting).optim.feature_scale is None
    known = dataclasses.replace(waiting, model=dataclasses.replace(waiting.model, input=CAFFE_INPUT))
    assert fill_config(fill_config(known)).optim.feature_scale == pytest.approx((58.395 + 57.12 + 57.375) / 3)
    normed = dataclasses.replace(known, model=dataclasses.replace(known.model, backbone="vgg16_bn"))
    assert fill_config(normed).optim.feature_scale == 1


@pytest.mark.parametrize("name", SOURCES)
def test_no_steps_are_given_steps(name):
    """0 steps only score a network; they are not the data set's number."""
    config = fill_config(on(Config(steps=0), name))
    assert config.steps == 0
    options = fill_options(RunOptions(), config)
    assert options.eval_every == options.checkpoint_every == 1


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (ModelConfig(), InputConfig()),
        (ModelConfig(weights="imagenet"), None),
        (ModelConfig(weights="a.pth"), None),
        (ModelConfig(init_from=Path("runs/a")), None),
        (ModelConfig(weights="a.pth", input=InputConfig("bgr")), InputConfig("bgr")),
        (ModelConfig(input=InputConfig("bgr")), InputConfig("bgr")),
    ],
)
def test_the_input_stays_open_for_weights_to_say(model, expected):
    assert fill_config(Config(model=model)).model.input == expected


def test_a_batch_size_of_the_data_set_that_cannot_be_split():
    assert SOURCES["shapes"].defaults.batch_size == 8
    with pytest.raises(InputError, match=r"batch-size 8 cannot be split into 3 equal parts"):
        fill_config(Config(accumulate=3))
    assert fill_config(Config(accumulate=4)).batch_size == 8


@pytest.mark.parametrize("name", SOURCES)
def test_intervals(name):
    on_val = DataOptions(val_split="val")

    def fill(config, **given):
        return fill_options(RunOptions(data=on_val, **given), config)

    def expect(eval_every, checkpoint_every):
        return RunOptions(data=on_val, eval_every=eval_every, checkpoint_every=checkpoint_every)

    wants = SOURCES[name].defaults
    config = fill_config(on(Config(), name))
    assert fill(config) == expect(wants.eval_every, wants.eval_every)
    # A short run is evaluated at its end.
    short = dataclasses.replace(config, steps=20)
    assert fill(short) == expect(20, 20)
    # Checkpoints follow evaluations unless they are given; an interval that is given may be longer than the run.
    assert fill(short, eval_every=30) == expect(30, 30)
    assert fill(short, checkpoint_every=7) == expect(20, 7)


def test_the_split_to_evaluate_on():
    def fill(hold_out, val_split):
        config = fill_config(Config(data=DataConfig(hold_out=hold_out)))
        return fill_options(RunOptions(data=DataOptions(val_split=val_split)), config).data.val_split

    assert [fill(0.0, None), fill(0.1, None), fill(0.1, "test")] == ["val", "held-out", "test"]


@pytest.mark.parametrize("name", SOURCES)
def test_the_defaults_of_a_data_set_make_a_whole_training(name):
    wants = SOURCES[name].defaults
    assert wants.steps % wants.eval_every == 0  # the last step is evaluated, and at no other interval
    assert min(wants.crop, wants.steps, wants.batch_size, wants.learning_rate, wants.eval_every) > 0
    assert 0 < wants.scale[0] <= 1 <= wants.scale[1]
    assert {field.name for field in dataclasses.fields(Defaults)} == {
        "eval_every", *(name.split(".")[-1] for name in FILLED),
    }  # fmt: skip


def test_a_data_set_that_is_not_there():
    with pytest.raises(InputError, match=r"no data set 'voc2021'.*did you mean 'voc2012'\?.*camvid"):
        fill_config(Config(data=DataConfig("voc2021")))
    with pytest.raises(InputError, match="no data set 'qqq'") as caught:
        fill_config(Config(data=DataConfig("qqq")))
    assert not re.search("did you mean", str(caught.value))


def test_what_is_no_configuration_is_refused():
    with pytest.raises(InputError, match=r"config is of type Preset; give a fcn_jax\.config\.Config, such as PRESETS"):
        inspect.unwrap(fill_config)(PRESETS["fcn8s"])
