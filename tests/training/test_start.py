"""What a network starts from: coarser nets, other classes, inputs that must agree, and stages that may be killed."""

import dataclasses
import json
import re
from pathlib import Path

import caffe_peer
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util
from PIL import Image

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
)
from fcn_jax.data.labels import palette
from fcn_jax.data.tasks import Task
from fcn_jax.errors import InputError, Stopped
from fcn_jax.layers import bilinear_init
from fcn_jax.models.backbones.vgg import VGG
from fcn_jax.models.build import init_variables
from fcn_jax.models.fcn import FCN, FCN8s, FCN16s, FCN32s
from fcn_jax.models.feature_map import FeatureMap, convolve, pool
from fcn_jax.training import loop, setup, staged
from fcn_jax.training import start as start_module
from fcn_jax.training.loop import train
from fcn_jax.training.start import choose_input, match_start, read_file_or_run, read_start
from fcn_jax.weights import ours
from fcn_jax.weights.merge import Match, match_weights
from fcn_jax.weights.weights import Weights

NAMES = ("sky", "sea", "sand")


def weights_of(variables: dict, **changes) -> Weights:
    arrays = {path: np.asarray(array) for path, array in traverse_util.flatten_dict(variables, sep="/").items()}
    return Weights(arrays, (), InputConfig(), "w", NAMES)._replace(**changes)


# The first prediction of a finer net.


class Maps(nn.Module):
    """A backbone that makes random maps of any image, with the cell centres of VGG or of ResNet."""

    on_pixels: bool

    @nn.compact
    def __call__(self, image: FeatureMap, train: bool = False) -> tuple[FeatureMap, FeatureMap, FeatureMap]:
        del train

        def random(stride: int) -> FeatureMap:
            shape = (1, *(-(-side // stride) for side in image.shape), len(NAMES))
            offset = 0.0 if self.on_pixels else (stride - 1) / 2
            return FeatureMap(jax.random.normal(jax.random.key(stride), shape), None, stride, offset)

        return random(8), random(16), random(32)


def coarse_and_finer(on_pixels: bool, finer, size=(160, 224)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores at stride 32, the coarse net's logits, and those of the finer one that starts from it."""
    image = jnp.zeros((1, *size, 3))
    coarse_net, finer_net = (kind(len(NAMES), Maps(on_pixels)) for kind in (FCN32s, finer))
    coarse = jax.jit(coarse_net.init)(jax.random.key(0), image)
    coarse["params"]["score_fr"]["kernel"] = jnp.eye(3)[None, None]
    fresh = jax.jit(finer_net.init)(jax.random.key(1), image)
    start = match_weights(fresh, weights_of(coarse), NAMES).merge_into(fresh)
    scores = jax.random.normal(jax.random.key(32), (1, 5, 7, 3))
    return tuple(np.asarray(x) for x in (scores, coarse_net.apply(coarse, image), finer_net.apply(start, image)))


@pytest.mark.parametrize("finer", [FCN16s, FCN8s])
def test_on_resnets_a_finer_net_first_predicts_exactly_what_the_coarse_one_does(finer):
    """Its cells are cells of the finer maps too, so twice bilinear is once bilinear."""
    _, coarse, fine = coarse_and_finer(True, finer)
    assert np.ptp(coarse) > 1
    np.testing.assert_allclose(fine, coarse, rtol=0, atol=1e-5)
    # Beyond the last coarse cell, 128 and 192 here, it may be that no finer one follows: scores fall off faster then.
    _, coarse, fine = coarse_and_finer(True, finer, (137, 201))
    np.testing.assert_allclose(fine[:, :129, :193], coarse[:, :129, :193], rtol=0, atol=1e-5)
    assert np.abs(fine - coarse).max() > 0.1


@pytest.mark.parametrize(("finer", "share"), [(FCN16s, 1 / 8), (FCN8s, 1 / 8 + 1 / 32)])
def test_on_vgg_it_differs_by_at_most_a_part_of_the_scores_bend(finer, share):
    """VGG's coarse cells lie between finer ones: twice bilinear cuts the corners of the interpolation.

    Of scores a, b, c in a row the corner at b is cut by |a - 2 b + c| / 8 for x2 then x16, and by another quarter of
    that for each further x2; on two axes the two add up.
    """
    scores, coarse, fine = coarse_and_finer(False, finer)
    bend = sum(np.abs(np.diff(scores, n=2, axis=axis)).max() for axis in (1, 2))
    inside = (slice(None), slice(16, -16), slice(16, -16))
    difference = np.abs(fine - coarse)[inside].max()
    assert 0.1 * share * bend < difference <= share * bend


# Inputs.


def written(file: Path, **changes) -> Path:
    ours.write(file, weights_of({"params": {"backbone": {"conv1": {"kernel": np.ones((1, 1))}}}}, **changes))
    return file


@pytest.mark.parametrize("given", [None, CAFFE_INPUT])
def test_the_input_is_that_of_the_weights(tmp_path, given):
    file = written(tmp_path / "w", input=CAFFE_INPUT)
    for model in (ModelConfig(weights=str(file)), ModelConfig(init_from=file)):
        weights = read_start(model, None)
        assert list(weights.arrays) == ["params/backbone/conv1/kernel"]
        assert choose_input(given, weights) == CAFFE_INPUT


def test_flags_that_contradict_the_weights_are_refused_and_the_difference_shown(tmp_path):
    weights = read_start(ModelConfig(weights=str(written(tmp_path / "w", input=CAFFE_INPUT))), None)
    given = dataclasses.replace(CAFFE_INPUT, order="rgb", std=(1.0, 2.0, 1.0))
    with pytest.raises(InputError) as refused:
        choose_input(given, weights)
    lines = str(refused.value).splitlines()
    assert lines[1:3] == ["  model.input.order: bgr -> rgb", "  model.input.std: (1.0, 1.0, 1.0) -> (1.0, 2.0, 1.0)"]
    assert "leave --model.input out" in lines[3]
    assert lines[3].endswith("--model.allow input/order input/std")


def test_an_input_is_allowed_to_differ_value_by_value(tmp_path):
    """As the reference trains VGG16 further with the mean of another data set."""
    weights = read_start(ModelConfig(weights=str(written(tmp_path / "w", input=CAFFE_INPUT))), None)
    given = dataclasses.replace(CAFFE_INPUT, mean=(116.19, 97.203, 92.318))
    assert choose_input(given, weights, ("input/mean",)) == given
    assert choose_input(given, weights, ("backbone/fc6", "input")) == given
    assert choose_input(None, weights, ("input",)) == CAFFE_INPUT
    with pytest.raises(InputError, match=r"says?:\n  model\.input\.order: bgr -> rgb\nweights"):
        choose_input(dataclasses.replace(given, order="rgb"), weights, ("input/mean",))
    with pytest.raises(InputError, match=r"--model\.allow input/mean$"):
        choose_input(given, weights, ("backbone",))


@pytest.mark.parametrize(("given", "expected"), [(None, InputConfig()), (CAFFE_INPUT, CAFFE_INPUT)])
def test_where_the_weights_do_not_tell_the_flags_decide(tmp_path, given, expected):
    weights = read_start(ModelConfig(weights=str(written(tmp_path / "w", input=None))), None)
    assert choose_input(given, weights) == expected
    assert choose_input(given, None) == expected


def test_from_scratch_nothing_is_read():
    assert read_start(ModelConfig(), None) is None


# Upsampling kernels of a file.


@pytest.fixture
def caffe_files(tmp_path) -> dict[str, Path]:
    """Caffe's FCN-16s with random upsampling kernels, and with the reference's bilinear ones."""
    net = caffe_peer.on_vgg(3, 16, small=True)
    blobs = net.random_weights()
    bilinear = {
        name: [np.asarray(bilinear_init(None, kernel.shape[2:] + kernel.shape[:2])).transpose(2, 3, 0, 1)]
        for name, (kernel, *_) in blobs.items()
        if name.startswith("upscore")
    }
    files = {kind: tmp_path / f"{kind}.caffemodel" for kind in ("learned", "bilinear")}
    files["learned"].write_bytes(caffe_peer.caffemodel(net, blobs))
    files["bilinear"].write_bytes(caffe_peer.caffemodel(net, blobs | bilinear))
    return files


def match_caffe(monkeypatch, file: Path, head: str = "fcn16s", names=NAMES, **changes) -> Match:
    """Match a file with a VGG as small as its own."""
    model = ModelConfig(head=head, backbone="vgg16", weights=str(file), **changes)

    def build(config: ModelConfig, num_classes: int) -> FCN:
        kind = {"fcn32s": FCN32s, "fcn16s": FCN16s, "fcn8s": FCN8s}[config.head]
        return kind(num_classes, VGG((1,) * 5, 16, name="backbone"), upsampling=config.upsampling)

    monkeypatch.setattr(start_module, "build", build)
    shapes = jax.eval_shape(lambda: init_variables(build(model, len(names)), 0))
    weights = read_start(model, None)
    assert weights is not None
    return match_start(model, shapes, weights, (Task("", tuple(names), palette(len(names))),))


def test_learned_kernels_of_a_file_are_not_left_out_silently(caffe_files, monkeypatch):
    with pytest.raises(InputError) as refused:
        match_caffe(monkeypatch, caffe_files["learned"], upsampling="fixed")
    lines = str(refused.value).splitlines()
    assert lines[0].startswith(
        "learned.caffemodel (Caffe) has learned upsampling kernels, and --model.upsampling fixed"
    )
    assert [line.split()[0] for line in lines[1:3]] == ["upscore16", "upscore2"]
    assert all(re.fullmatch(r"  upscore\d+ differs from bilinear by up to \d\.\d+", line) for line in lines[1:3])
    assert "--model.upsampling learned" in lines[3]
    assert lines[3].endswith("--model.allow upscore16 upscore2")
    with pytest.raises(InputError, match=r"fixed has no place for them:\n  upscore16 .*\n\("):
        match_caffe(monkeypatch, caffe_files["learned"], upsampling="fixed", allow=("upscore2/kernel",))
    allowed = match_caffe(monkeypatch, caffe_files["learned"], upsampling="fixed", allow=("upscore",))
    assert allowed.unused == ("params/upscore2/kernel", "params/upscore16/kernel")
    assert set(allowed.unused) <= set(match_caffe(monkeypatch, caffe_files["learned"], upsampling="learned").loaded)


@pytest.mark.parametrize(
    ("kind", "head", "names"),
    [
        ("bilinear", "fcn16s", NAMES),
        ("learned", "fcn32s", NAMES),  # whose only upsampling layer is not in the file
        ("learned", "fcn16s", ("cat", "dog")),  # whose scores start at zero
    ],
)
def test_kernels_are_left_out_if_the_network_is_the_same_without_them(caffe_files, monkeypatch, kind, head, names):
    match = match_caffe(monkeypatch, caffe_files[kind], head, names, upsampling="fixed")
    assert {"params/upscore2/kernel", "params/upscore16/kernel"} <= set(match.unused)


# Whole trainings.


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
