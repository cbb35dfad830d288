"""What a network starts from: coarser nets, other classes, inputs that must agree, and kernels of files."""

import dataclasses
import re
from pathlib import Path

import caffe_peer
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from three_classes import NAMES, weights_of

from fcn_jax.config import CAFFE_INPUT, InputConfig, ModelConfig
from fcn_jax.data.labels import palette
from fcn_jax.data.tasks import Task
from fcn_jax.errors import InputError
from fcn_jax.layers import bilinear_init
from fcn_jax.models.backbones.vgg import VGG
from fcn_jax.models.build import init_variables
from fcn_jax.models.fcn import FCN, FCN8s, FCN16s, FCN32s
from fcn_jax.models.feature_map import FeatureMap
from fcn_jax.training import start as start_module
from fcn_jax.training.start import choose_input, match_start, read_start
from fcn_jax.weights import ours
from fcn_jax.weights.merge import Match, match_weights

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
