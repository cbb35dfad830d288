"""The reference's networks against its Caffe nets, with weights from a .caffemodel."""

import os
from pathlib import Path

import caffe_peer
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from random_variables import draw_variables

from fcn_jax.config import ModelConfig
from fcn_jax.errors import InputError
from fcn_jax.models.backbones.vgg import VGG
from fcn_jax.models.build import build
from fcn_jax.models.fcn import FCN8s, alignment
from fcn_jax.models.feature_map import FeatureMap
from fcn_jax.models.reference import NETWORKS, JointFCN, LateFusion
from fcn_jax.weights import caffe

LAST = {"siftflow-fcn8s": ("score_sem", "score_geo")}


def network(kind: str, small: bool):
    """Make our network with learned upsampling, as in the file, and small if its peer is."""
    model = NETWORKS[kind]
    fcn = model.network if isinstance(model, LateFusion) else model
    fcn = fcn.clone(upsampling="learned")
    if small:
        fcn = fcn.clone(backbone=fcn.backbone.clone(fc_features=16) if "alexnet" in kind else SMALL_VGG)
    return LateFusion(fcn) if isinstance(model, LateFusion) else fcn


SMALL_VGG = VGG(depths=(1,) * 5, fc_features=16, padding="reference")


def nest(arrays: dict[str, np.ndarray]):
    return traverse_util.unflatten_dict(arrays, sep="/")


def images(net: caffe_peer.Net, height: int, width: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(height)
    return {name: generator.normal(0, 50, (1, c, height, width)).astype(np.float32) for name, c in net.inputs.items()}


def ours(model, arrays, inputs) -> list[np.ndarray]:
    x = np.concatenate(list(inputs.values()), axis=1).transpose(0, 2, 3, 1)
    logits = jax.jit(model.apply)(nest(arrays), x)
    return [np.asarray(value).transpose(0, 3, 1, 2) for value in jax.tree.leaves(logits)]


def assert_same_scores(got: list[np.ndarray], expected: list[np.ndarray], tolerance: float) -> float:
    worst = 0.0
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.shape == theirs.shape
        assert theirs.std() > 0.1
        worst = max(worst, float(np.abs(mine - theirs).max() / np.abs(theirs).max()))
    assert worst < tolerance
    return worst


@pytest.mark.peers
@pytest.mark.parametrize("kind", caffe_peer.REFERENCE)
def test_scores_are_those_of_the_caffe_net(kind, tmp_path):
    net = caffe_peer.REFERENCE[kind](True)
    weights, inputs = net.random_weights(), images(net, 45, 78)
    (tmp_path / "net.caffemodel").write_bytes(caffe_peer.caffemodel(net, weights))
    read = caffe.read(tmp_path / "net.caffemodel")
    assert read.unknown == ()
    model = network(kind, small=True)
    wanted = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, sum(net.inputs.values()))))
    chex.assert_trees_all_equal_shapes_and_dtypes(nest(read.arrays), wanted)
    tops = caffe_peer.run_torch(net, weights, inputs)
    assert_same_scores(ours(model, read.arrays, inputs), [tops[top] for top in LAST.get(kind, ("score",))], 1e-5)


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_the_crops_are_those_of_the_reference(stride):
    """19 for FCN-32s; 5 and 27 for FCN-16s; 5, 9 and 31 for FCN-8s, counted from cell 0 of the coarser map."""
    image = FeatureMap(jnp.zeros((1, 375, 500, 3)))
    pool3, pool4, top = jax.eval_shape(lambda: SMALL_VGG.init_with_output(jax.random.key(0), image)[0])
    low = lambda x, to: alignment(x, to)[2][0][0]  # noqa: E731
    if stride == 32:
        assert low(top, image) == 19
        return
    # `alignment` crops the upsampled map, the reference the finer one.
    assert -low(top, pool4) == 5
    if stride == 16:
        assert low(pool4, image) == 5 * 16 + 27
        return
    assert 2 * 5 - low(pool4, pool3) == 9
    assert low(pool3, image) == 9 * 8 + 31


@pytest.mark.slow
def test_image_on_a_canvas_scores_as_alone():
    model = FCN8s(4, SMALL_VGG)
    canvas = np.random.default_rng(1).normal(size=(2, 40, 57, 3)).astype(np.float32)
    sizes = np.array([(40, 57), (1, 35)], np.int32)
    variables = draw_variables(model, canvas, fan_in_of_vectors=50)
    apply = jax.jit(model.apply)
    together, alone = apply(variables, canvas, sizes), apply(variables, canvas[1:, :1, :35])
    assert np.abs(alone).max() > 1e-4
    np.testing.assert_allclose(together[1:, :1, :35], alone, atol=1e-5 * np.abs(alone).max(), rtol=1e-3)


def test_a_configuration_builds_it():
    for backbone in ("vgg16", "alexnet"):
        model = build(ModelConfig(backbone=backbone, padding="reference", fc_features=8), 21)
        assert (model.backbone.padding, model.backbone.fc_features) == ("reference", 8)
        assert build(ModelConfig(backbone=backbone), 21).backbone.padding == "same"
    assert build(ModelConfig(backbone="googlenet_bn"), 21).backbone.with_bn
    with pytest.raises(InputError, match=r"model\.padding is 'reference' with .*resnet34; ResNets have no other"):
        ModelConfig(backbone="resnet34", padding="reference")


def test_tasks_must_share_out_the_classes():
    with pytest.raises(ValueError, match=r"tasks are \(33, 4\); they must be at least 1 and add up to num_classes, 36"):
        JointFCN(36, SMALL_VGG, tasks=(33, 4)).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("kind", caffe_peer.REFERENCE)
def test_scores_are_those_opencv_computes(kind, tmp_path):
    """At full size, and from the reference's own prototxt where FCN_REFERENCE says where a clone of it is."""
    python = caffe_peer.opencv_python()
    net = caffe_peer.REFERENCE[kind](False)
    weights = net.random_weights()
    (tmp_path / "net.caffemodel").write_bytes(caffe_peer.caffemodel(net, weights))
    del weights
    read = caffe.read(tmp_path / "net.caffemodel")
    model = network(kind, small=False)
    tops = LAST.get(kind, ("score",))
    for height, width in ((375, 500), (37, 211), (226, 161)):
        inputs = images(net, height, width)
        text, theirs_of = caffe_peer.prototxt(net, inputs), inputs
        if folder := os.environ.get("FCN_REFERENCE"):
            text, theirs_of = caffe_peer.reference_prototxt(Path(folder) / kind, inputs)
        expected = caffe_peer.run_opencv(python, tmp_path, text, None, theirs_of, tops)
        got = ours(model, read.arrays, inputs)
        worst = assert_same_scores(got, [expected[top] for top in tops], 2e-5)
        print(f"{kind} at {height}x{width}: largest difference {worst:.1e} of the largest score")


@pytest.mark.parametrize("kind", ["siftflow-fcn8s", "nyud-fcn32s-color-hha"])
def test_several_results_are_no_auxiliary_scores(kind):
    assert not NETWORKS[kind].has_auxiliary_scores
