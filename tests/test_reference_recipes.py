"""The recipes of the reference: the presets of its folders resolve to the numbers of its files."""

import dataclasses
import re
from itertools import pairwise
from pathlib import Path

import jax.numpy as jnp
import pytest

from fcn_jax.config import CAFFE_INPUT, Config, OptimConfig
from fcn_jax.data.defaults import fill_config, fill_options
from fcn_jax.data.inputs import describe_inputs
from fcn_jax.data.sources import SOURCES, choose_inputs
from fcn_jax.models.build import build
from fcn_jax.models.fcn import FCN
from fcn_jax.models.reference import NETWORKS, JointFCN
from fcn_jax.presets import PRESETS, convert_to_mean
from fcn_jax.training.optim import make_schedule, mask_decayed, rate_factor
from fcn_jax.training.staged import list_stages

PAGE = Path(__file__).parents[1] / "docs" / "reference-recipes.md"
# The numbers of each folder's solver.prototxt. All have lr_policy "fixed".
SOLVERS = {
    "voc-fcn32s": "base_lr: 1e-10 momentum: 0.99 iter_size: 1 max_iter: 100000 weight_decay: 0.0005",
    "voc-fcn16s": "base_lr: 1e-12 momentum: 0.99 iter_size: 1 max_iter: 100000 weight_decay: 0.0005",
    "voc-fcn8s": "base_lr: 1e-14 momentum: 0.99 iter_size: 1 max_iter: 100000 weight_decay: 0.0005",
    "voc-fcn8s-atonce": "base_lr: 1e-10 momentum: 0.99 iter_size: 1 max_iter: 300000 weight_decay: 0.0005",
    "voc-fcn-alexnet": "base_lr: 1e-4 momentum: 0.9 iter_size: 20 max_iter: 100000 weight_decay: 0.0005",
    "pascalcontext-fcn32s": "base_lr: 1e-10 momentum: 0.99 iter_size: 1 max_iter: 300000 weight_decay: 0.0005",
    "pascalcontext-fcn16s": "base_lr: 1e-12 momentum: 0.99 iter_size: 1 max_iter: 300000 weight_decay: 0.0005",
    "pascalcontext-fcn8s": "base_lr: 1e-14 momentum: 0.99 iter_size: 1 max_iter: 300000 weight_decay: 0.0005",
    "siftflow-fcn32s": "base_lr: 1e-10 momentum: 0.99 iter_size: 1 max_iter: 300000 weight_decay: 0.0005",
    "siftflow-fcn16s": "base_lr: 1e-12 momentum: 0.99 iter_size: 1 max_iter: 300000 weight_decay: 0.0005",
    "siftflow-fcn8s": "base_lr: 1e-12 momentum: 0.99 iter_size: 1 max_iter: 300000 weight_decay: 0.0005",
    "nyud-fcn32s-color": "base_lr: 1e-10 momentum: 0.99 iter_size: 1 max_iter: 300000 weight_decay: 0.0005",
    "nyud-fcn32s-color-d": "base_lr: 1e-10 momentum: 0.99 iter_size: 1 max_iter: 300000 weight_decay: 0.0005",
    "nyud-fcn32s-hha": "base_lr: 1e-10 momentum: 0.99 iter_size: 1 max_iter: 300000 weight_decay: 0.0005",
    "nyud-fcn32s-color-hha": "base_lr: 1e-12 momentum: 0.99 iter_size: 1 max_iter: 300000 weight_decay: 0.0005",
}
# The loop of each solve.py, which counts the iterations.
LOOPS = {
    "voc": "for _ in range(25): solver.step(4000)",
    "voc-fcn8s-atonce": "for _ in range(75): solver.step(4000)",
    "pascalcontext": "for _ in range(50): solver.step(8000)",
    "siftflow": "for _ in range(50): solver.step(2000)",
    "nyud": "for _ in range(50): solver.step(2000)",
}
# From train.prototxt or trainval.prototxt, and the layers of data that they name.
DATA = {
    "voc": "split: train mean: 104.00699 116.66877 122.67892 num_output: 21 normalize: false",
    "voc-fcn-alexnet": "split: train mean: 104.00699 116.66877 122.67892 num_output: 21 normalize: true",
    "pascalcontext": "split: train mean: 104.007 116.669 122.679 num_output: 60 normalize: false",
    "siftflow": "split: trainval mean: 114.578 115.294 108.353 num_output: 33 3 normalize: false",
    "nyud": "split: trainval mean: 116.190 97.203 92.318 num_output: 40 normalize: false",
    "nyud-fcn32s-color-d": "split: trainval mean: 116.190 97.203 92.318 7.844 num_output: 40 normalize: false",
    "nyud-fcn32s-hha": "split: trainval mean: 132.431 94.076 118.477 num_output: 40 normalize: false",
}
# The parameters of each layer, kernel and bias. Caffe's defaults, where there is none, are 1 and 1.
LEARNED = "param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }"
LAYERS = {
    "voc-fcn-alexnet": {"backbone/conv1": "", "backbone/fc7": "", "score_fr": LEARNED},
    "others": {"backbone/conv1_1": LEARNED, "backbone/fc7": LEARNED, "score_fr": LEARNED, "score_pool4": LEARNED},
}


def find(table: dict, name: str):
    """Return the entry of a folder, or that of its data set."""
    return table.get(name) or table[name.split("-")[0]]


def parse(text: str) -> dict[str, list[str]]:
    """Parse the fields of a prototxt's text, each with its values."""
    parts = re.split(r"(\w+): ", text)[1:]
    return dict(zip(parts[::2], map(str.split, parts[1::2]), strict=True))


def resolve(name: str) -> Config:
    return fill_config(PRESETS[name].config)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_solver(name):
    solver = {field: float(value) for field, (value,) in parse(SOLVERS[name]).items()}
    stage, folder = list_stages(resolve(name), Path("run"))[-1] if resolve(name).staged else (resolve(name), None)
    rate = make_schedule(stage)
    for step in (0, 1, stage.steps // 2, stage.steps - 1):
        assert float(rate(step)) == pytest.approx(solver["base_lr"])
    assert (stage.optim.momentum, stage.optim.weight_decay) == (solver["momentum"], solver["weight_decay"])
    assert (stage.batch_size, stage.accumulate) == (solver["iter_size"], solver["iter_size"])
    assert (stage.optim.clip_norm, stage.optim.feature_scale) == (0, 1)
    times, iterations = map(int, re.findall(r"\d+", find(LOOPS, name)))
    assert stage.steps == times * iterations
    assert folder is None or folder.name == name.split("-", 1)[1]


@pytest.mark.parametrize("name", [name for name in SOLVERS if PRESETS[name].config.staged])
def test_a_stage_is_the_folder_before(name):
    """solve.py of 16s starts from the weights of 32s, and that of 8s from those of 16s."""
    stages = list_stages(resolve(name), Path("run"))
    data = name.split("-")[0]
    folders = [f"{data}-{folder.name}" for _, folder in stages]
    assert folders == [f"{data}-{head}" for head in ("fcn32s", "fcn16s", "fcn8s")][: len(stages)]
    for (stage, _), folder in zip(stages, folders, strict=True):
        assert stage.optim.learning_rate == pytest.approx(float(parse(SOLVERS[folder])["base_lr"][0]))
        assert stage.steps == resolve(folder).steps
    for (before, folder), (stage, _) in pairwise(stages):
        assert before.model.input == stage.model.input
        assert (stage.model.init_from.name, stage.model.weights) == (folder.name, None)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_data_and_the_loss(name):
    config, data, kind = resolve(name), parse(find(DATA, name)), name.split("-")[0]
    assert config.data.train_split == {"voc": "trainaug", "siftflow": "train"}.get(kind, data["split"][0])
    assert SOURCES[config.data.name].outline.num_classes == tuple(map(int, data["num_output"]))
    # Without an input of its own a preset takes that of the .caffemodel; late fusion takes those of its two networks.
    given, on_colour = config.model.input or CAFFE_INPUT, "hha" not in config.data.inputs
    if config.model.fusion != "late":
        assert (given.order, given.std) == ("bgr" if on_colour else "rgb", (1,) * len(given.mean))
        assert given.mean == pytest.approx(tuple(map(float, data["mean"])), abs=3e-4)  # PASCAL-Context's are rounded
    assert config.model.allow == (("input/mean",) if config.model.input and on_colour else ())
    assert config.optim.reduction == {"true": "mean", "false": "sum"}[data["normalize"][0]]
    # Whole images, as they are.
    assert (config.augment.scale, config.augment.flip, config.augment.colour) == ((1, 1), False, 0)
    assert config.augment.crop == {"nyud": 640, "siftflow": 256}.get(kind, 500)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_rates_and_decays_of_the_layers(name):
    optim, alexnet = resolve(name).optim, name == "voc-fcn-alexnet"
    for layer, text in LAYERS.get(name, LAYERS["others"]).items():
        given = re.findall(r"lr_mult: (\S+) decay_mult: (\S+)", text) or [(1, 1), (1, 1)]
        for parameter, (rate, decay) in zip(("kernel", "bias"), given, strict=True):
            assert rate_factor(optim, f"{layer}/{parameter}") == float(rate)
            is_decayed = mask_decayed({layer: {parameter: jnp.zeros(1)}})[layer][parameter]
            # The biases of AlexNet's backbone are decayed there, and not here.
            assert is_decayed == float(decay) or (alexnet and parameter == "bias")


@pytest.mark.parametrize("name", SOLVERS)
def test_the_network(name):
    """It is the one of `NETWORKS`, which is compared with what a peer computes from net.py."""
    config = resolve(name)
    source = SOURCES[config.data.name]
    given = describe_inputs(choose_inputs(source, config.data.inputs))  # its names of channels are the streams
    model = dataclasses.replace(config.model, input=given)
    network = NETWORKS[name]
    if isinstance(network, JointFCN):  # it only returns the scores of its tasks apart
        values = {field.name: getattr(network, field.name) for field in dataclasses.fields(network) if field.init}
        network = FCN(**{name: value for name, value in values.items() if name not in ("parent", "name")})
    assert build(model, *source.outline.num_classes) == network
    assert config.model.upsampling == "fixed"  # lr_mult: 0


def test_every_preset_of_a_folder_is_here():
    assert set(SOLVERS) == {name for name in PRESETS if name in NETWORKS}


def test_what_is_scored():
    """The reference scores on seg11valid, on PASCAL-Context's val and on NYUDv2's test."""
    splits = {name: fill_options(PRESETS[name].options, resolve(name)).data.val_split for name in SOLVERS}
    assert splits == {name: "test" if name.startswith("nyud-") else "val" for name in SOLVERS}


def read_table(heading: str) -> dict[str, list[str]]:
    """Read the first table below a heading of the page: the cells of each row by its first one."""
    section = PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*", section, re.M)]
    return {first: cells for first, *cells in rows[2:]}


def test_the_page_has_the_numbers_of_the_presets():
    table = read_table("Solvers")
    assert set(table) == set(SOLVERS)
    for name, (rates, momentum, decay, images, iterations, normalize) in table.items():
        config = resolve(name)
        stages = list_stages(config, Path("run")) if config.staged else [(config, None)]
        shown = [float(rate) for rate in rates.split(", ")]
        assert shown == pytest.approx([stage.optim.learning_rate for stage, _ in stages])
        assert (float(momentum), float(decay)) == (config.optim.momentum, config.optim.weight_decay)
        assert (int(images), int(iterations.replace(" ", ""))) == (config.batch_size, config.steps)
        assert {"true": "mean", "false": "sum"}[normalize] == config.optim.reduction
    crops = {names.rstrip("*"): int(crop) for names, (*_, crop) in read_table("Images").items()}
    for name in SOLVERS:
        assert resolve(name).augment.crop == crops[name.split("-")[0] + "-"]


def test_the_page_converts_rates_and_decay():
    for row, (*rates, decay) in read_table("From a summed loss to a mean").items():
        height, width = map(int, re.findall(r"\d+", row)[:2])
        for rate, base in zip(rates, (1e-10, 1e-12, 1e-14), strict=True):
            converted = convert_to_mean(OptimConfig(learning_rate=base, weight_decay=5e-4), height * width)
            assert float(rate) == pytest.approx(converted.learning_rate, rel=5e-3)
            assert float(decay) == pytest.approx(converted.weight_decay, rel=5e-3)


def test_the_page_names_the_scores_of_the_presets():
    for names, (scores, *_) in read_table("Published scores").items():
        names = [name.strip(" `") for name in names.split(",")]
        if scores:
            assert [PRESETS[name].published.split()[0] for name in names] == scores.split(", ")
        else:
            kinds = {preset.published for name, preset in PRESETS.items() if name.startswith(names[0].rstrip("*"))}
            assert kinds == {""}
