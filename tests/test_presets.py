"""The presets: each is complete on every data set, says where it comes from, and has the numbers of its source."""

import csv
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optax
import pytest

from fcn_jax.config import CAFFE_INPUT, Config, DataConfig, ModelConfig, OptimConfig, RunOptions
from fcn_jax.data.defaults import fill_config, fill_options
from fcn_jax.data.inputs import describe_inputs
from fcn_jax.data.sources import SOURCES, choose_inputs
from fcn_jax.models.build import build
from fcn_jax.presets import PRESETS, Preset, convert_to_mean
from fcn_jax.training.optim import make_optimizer
from fcn_jax.training.start import choose_input
from fcn_jax.weights.weights import Weights

ROOT = Path(__file__).parents[1]
OURS = [name for name in PRESETS if name.startswith("camvid-")]
# nyud-fcn32s-INPUTS of the reference: its inputs, its means and the score of the CVPR paper.
MEAN, HHA_MEAN = (116.190, 97.203, 92.318), (132.431, 94.076, 118.477)
ON_DEPTH = {
    "nyud-fcn32s-color-d": (("colour", "depth"), (*MEAN, 7.844), "30.5"),
    "nyud-fcn32s-hha": (("hha",), HHA_MEAN, "24.2"),
    "nyud-fcn32s-color-hha": (("colour", "hha"), None, "32.8"),
}
# siftflow-HEAD of the reference, on two tasks.
JOINT = ("siftflow-fcn32s", "siftflow-fcn16s", "siftflow-fcn8s")
RECIPES = [name for name in PRESETS if name.startswith(("voc-", "pascalcontext-", "nyud-")) and name not in ON_DEPTH]
GENERAL = [name for name in PRESETS if name not in (*RECIPES, *OURS, *ON_DEPTH, *JOINT)]


def test_the_names_of_the_design():
    assert list(PRESETS)[:4] == ["fcn32s", "fcn16s", "fcn8s", "fcn8s-atonce"]
    for name in ("fcn32s", "fcn16s", "fcn8s"):
        assert PRESETS[name].config == Config(model=ModelConfig(head=name))
    # The reference's net.py of voc-fcn8s-atonce: scale_pool4 with 0.01, scale_pool3 with 0.0001.
    assert PRESETS["fcn8s-atonce"].config == Config(model=ModelConfig(head="fcn8s", skip_scales=(0.01, 0.0001)))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_complete_on_every_data_set(name, source):
    given = PRESETS[name]
    config = fill_config(dataclasses.replace(given.config, data=DataConfig(name=source)))
    options = fill_options(given.options, config)
    assert None not in (config.steps, config.batch_size, config.augment.crop, config.augment.scale)
    assert None not in (config.optim.learning_rate, config.optim.clip_norm)
    waits_for_input = given.config.optim.feature_scale is None and config.model.input is None
    assert (config.optim.feature_scale is None) == (waits_for_input and not config.model.has_batch_norm)
    assert config.optim.warmup_steps < config.steps
    assert options.eval_every <= config.steps
    assert options.checkpoint_every == options.eval_every
    assert config.model.input or config.model.weights or config.model.init_streams
    # What makes the preset what it is stays.
    assert dataclasses.replace(config.model, input=None) == dataclasses.replace(given.config.model, input=None)
    assert (config.staged, config.stage_factors) == (given.config.staged, given.config.stage_factors)


@pytest.mark.parametrize("name", GENERAL)
def test_a_general_preset_leaves_the_data_set_to_decide(name):
    given = PRESETS[name]
    assert given.config.data == DataConfig()
    assert given.options == RunOptions()
    open_values = (given.config.steps, given.config.batch_size, given.config.augment.crop, given.config.augment.scale)
    assert open_values == (None, None, None, None)
    assert given.config.optim.learning_rate is None
    assert (given.source, given.published) == ("", "")  # none of them was published


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_numbers_source_and_score(name):
    given = PRESETS[name]
    data = {"voc": "voc2012", "pascalcontext": "pascal-context", "nyud": "nyud"}[name.split("-")[0]]
    assert given.config.data.name == data
    assert None not in (given.config.steps, given.config.batch_size, given.config.optim.learning_rate)
    assert given.config.model.weights is not None
    assert len(given.source.split()) > 2
    if given.published:  # the reference's README has no scores of PASCAL-Context
        score = re.match(r"(\d\d(\.\d)?)( to \d\d)? on (seg11valid|val|COCO's val|test)\b", given.published)
        assert score
        assert 25 < float(score[1]) < 70
    assert bool(given.published) == (data != "pascal-context")


@pytest.mark.parametrize("name", ON_DEPTH)
def test_recipes_on_depth_take_the_inputs_of_the_reference(name):
    preset, (inputs, mean, score) = PRESETS[name], ON_DEPTH[name]
    config = preset.config
    assert (config.data.name, config.data.train_split, config.data.inputs) == ("nyud", "trainval", inputs)
    assert preset.published.startswith(f"{score} on test")
    given = config.model.input
    if mean is None:  # the two networks bring their input
        assert config.model.fusion == "late"
        assert [file.name.split("-")[2] for file in config.model.init_streams] == ["color", "hha"]
    else:
        assert (given.mean, given.std) == (mean, (1.0,) * len(mean))
        assert given.log == ((3,) if "depth" in inputs else ())
        # VGG's colours are BGR with another mean, which `allow` lets differ.
        data = describe_inputs(choose_inputs(SOURCES["nyud"], inputs))
        chosen = choose_input(given, Weights({}, (), CAFFE_INPUT, "VGG16"), config.model.allow, data)
        assert (chosen.mean, chosen.channels) == (mean, data.channels)


@pytest.mark.parametrize("name", JOINT)
def test_recipes_of_both_tasks_take_the_input_of_the_reference(name):
    preset, config = PRESETS[name], PRESETS[name].config
    data = describe_inputs(choose_inputs(SOURCES["siftflow"], ()))
    chosen = choose_input(config.model.input, Weights({}, (), CAFFE_INPUT, "VGG16"), config.model.allow, data)
    assert (chosen.order, chosen.mean, chosen.std) == ("bgr", (114.578, 115.294, 108.353), (1.0,) * 3)
    assert ("39.5 on val" in preset.published, "94.3" in preset.published) == (name == "siftflow-fcn16s",) * 2


@pytest.mark.parametrize("name", OURS)
def test_a_recipe_of_ours_claims_what_its_experiment_measured(name):
    """The score is the mean of the seeds in results.csv, after the last step."""
    given = PRESETS[name]
    assert given.config.data == DataConfig("camvid")
    assert given.published == ""
    claim = re.match(r"(\d\d\.\d) on val, (\d) seeds?\b", given.measured)
    assert claim
    with (ROOT / "experiments" / "camvid" / "results.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["row"] == name.removeprefix("camvid-")]
    rows = [row for row in rows if int(row["step"]) == given.config.steps]
    assert int(claim[2]) == len({row["seed"] for row in rows}) == len(rows)
    assert float(claim[1]) == pytest.approx(100 * np.mean([float(row["mean_iu"]) for row in rows]), abs=0.051)


@pytest.mark.parametrize("name", OURS)
def test_a_camvid_preset_weighs_classes_by_their_frequency(name):
    """Square roots of SegNet's weights: the median frequency over that of the class, counted on train."""
    weights = PRESETS[name].config.optim.class_weights
    assert weights is not None
    np.testing.assert_allclose(
        np.square(weights), [0.279, 0.202, 4.787, 0.149, 1.0, 0.422, 3.847, 1.974, 0.789, 6.375, 8.859], rtol=0.03
    )


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("voc-fcn32s", 63.6),
        ("voc-fcn16s", 65.0),
        ("voc-fcn8s", 65.5),
        ("voc-fcn8s-atonce", 65.4),
        ("voc-fcn-alexnet", 48.0),
    ],
)
def test_the_scores_of_the_references_readme(name, score):
    assert PRESETS[name].published.startswith(f"{score} on seg11valid")
    assert "fcn.berkeleyvision.org" in PRESETS[name].source


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_describes_itself_in_one_line(name):
    given = PRESETS[name]
    line = str(given)
    assert "\n" not in line
    assert not re.search(r"; *;|[;.: ]$", line)
    for part in (given.description, given.source, given.published):
        assert part in line
    assert ("source: " in line, "published: " in line) == (bool(given.source), bool(given.published))
    assert len({str(preset) for preset in PRESETS.values()}) == len(PRESETS)


def test_a_preset_of_which_nothing_was_published():
    assert str(Preset("a net", Config())) == "a net"
    assert str(Preset("a net", Config(), published="50")) == "a net; published: 50"


@pytest.mark.parametrize("name", PRESETS)
def test_the_network_of_a_preset_can_be_built(name):
    model = build(PRESETS[name].config.model, 21)
    assert model.num_classes == 21


def test_converting_by_hand():
    """1e-10 and 5e-4 over the sum of 250 000 pixels are 2.5e-5 and 2e-9 over their mean."""
    of_sum = PRESETS["voc-fcn8s"].config.optim
    of_mean = PRESETS["voc-fcn8s-mean"].config.optim
    assert of_mean == dataclasses.replace(
        of_sum, learning_rate=of_mean.learning_rate, weight_decay=of_mean.weight_decay, reduction="mean"
    )
    assert (of_mean.learning_rate, of_mean.weight_decay) == pytest.approx((2.5e-5, 2e-9), rel=1e-12)
    for name in ("model", "data", "augment", "steps", "batch_size", "staged", "stage_factors"):
        assert getattr(PRESETS["voc-fcn8s-mean"].config, name) == getattr(PRESETS["voc-fcn8s"].config, name)


PIXELS = 40
# The decay is large enough to be seen.
OF_SUM = OptimConfig(learning_rate=1e-3, schedule="constant", momentum=0.9, weight_decay=0.5, reduction="sum")
GRADIENTS = np.random.default_rng(0).normal(size=(5, PIXELS))
OF_MEAN = convert_to_mean(OF_SUM, PIXELS)


def test_a_sum_and_a_mean_take_the_same_steps():
    """Some steps of one weight, by the formula of Caffe and by our optimizer."""

    def follow(optim: OptimConfig, reduce: Callable[[np.ndarray], np.floating]) -> list[float]:
        weight, velocity, weights = 1.0, 0.0, []
        for gradient in GRADIENTS:
            velocity = optim.momentum * velocity + reduce(gradient) + optim.weight_decay * weight
            weight -= optim.learning_rate * velocity
            weights.append(weight)
        return weights

    def train(optim: OptimConfig, reduce: Callable[[np.ndarray], np.floating]) -> list[float]:
        parameters = {"score": {"kernel": np.ones((1, 1, 1, 1), np.float32)}}
        optimizer, weights = make_optimizer(fill_config(Config(optim=optim, steps=5))), []
        state = optimizer.init(parameters)
        for gradient in GRADIENTS:
            gradients = {"score": {"kernel": np.full((1, 1, 1, 1), reduce(gradient), np.float32)}}
            updates, state = optimizer.update(gradients, state, parameters)
            parameters = optax.apply_updates(parameters, updates)
            weights.append(parameters["score"]["kernel"].item())
        return weights

    assert follow(OF_MEAN, np.mean) == pytest.approx(follow(OF_SUM, np.sum), rel=1e-12)
    assert train(OF_MEAN, np.mean) == pytest.approx(follow(OF_SUM, np.sum), rel=1e-6)
    assert train(OF_SUM, np.sum) == pytest.approx(follow(OF_SUM, np.sum), rel=1e-6)
