"""A file of weights into a network, array by array."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from fcn_jax.config import InputConfig
from fcn_jax.errors import InputError
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.fcn import FCN8s, FCN16s
from fcn_jax.weights.merge import match_weights
from fcn_jax.weights.weights import Weights

NAMES = ("sky", "sea", "sand")


@functools.cache
def variables(kind=FCN16s, classes: int = 3, width: int = 8, seed: int = 0) -> dict:
    """Of a small network, every array with values of its own."""
    model = kind(num_classes=classes, backbone=ResNet(depths=(1, 1, 1, 1), width=width))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.asarray(generator.normal(size=s.shape), jnp.float32), shapes)


def file_of(tree: dict, **changes) -> Weights:
    arrays = {path: np.asarray(array) for path, array in traverse_util.flatten_dict(tree, sep="/").items()}
    return Weights(arrays, (), InputConfig(), "w", NAMES)._replace(**changes)


def flat(tree: dict) -> dict[str, np.ndarray]:
    return {path: np.asarray(array) for path, array in traverse_util.flatten_dict(tree, sep="/").items()}


def without(weights: Weights, *parts: str) -> Weights:
    kept = {path: x for path, x in weights.arrays.items() if not any(part in path for part in parts)}
    assert len(kept) < len(weights.arrays)
    return weights._replace(arrays=kept)


def test_the_same_network_is_loaded_whole():
    result = match_weights(variables(), file_of(variables(seed=1)), NAMES)
    loaded, expected = flat(result.merge_into(variables())), flat(variables(seed=1))
    assert set(result.loaded) == set(expected) == set(loaded)
    assert (result.by_class, result.new, result.unused) == ((), (), ())
    for path, array in expected.items():
        np.testing.assert_array_equal(loaded[path], array)
    assert any(path.startswith("batch_stats/backbone/bn1") for path in loaded)


@pytest.mark.parametrize("shapes_alone", [True, False])
def test_every_array_is_accounted_for_when_a_finer_net_starts_from_a_coarser_one(shapes_alone):
    fine = variables(FCN8s)
    coarse = file_of(variables(FCN16s, seed=1), unknown=("fc.weight", "fc.bias"))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), fine) if shapes_alone else fine
    result = match_weights(shapes, coarse, NAMES)
    assert {path.split("/")[1] for path in result.new} == {"score_pool3", "upscore_pool4", "upscore8"}
    assert [path.split("/")[1] for path in result.unused] == ["upscore16"]
    merged = flat(result.merge_into(fine))
    for path, array in flat(fine).items():
        np.testing.assert_array_equal(merged[path], array if path in result.new else coarse.arrays[path], err_msg=path)
    table = str(result).splitlines()
    assert table[0] == "weights of w:"
    assert re.fullmatch(rf"  loaded +{len(result.loaded)}  backbone \d+, score_fr 2, score_pool4 2, upscore2", table[1])
    assert table[2:] == [
        "  new          4  score_pool3 2, upscore8, upscore_pool4",
        "  unused       3  upscore16, fc.weight, fc.bias",
    ]


def test_a_classifiers_backbone_starts_a_net_and_its_head_is_left_over():
    backbone = without(file_of(variables(seed=1), class_names=None, unknown=("fc.weight",)), "score")
    result = match_weights(variables(), backbone, NAMES)
    assert {path.split("/")[1] for path in result.new} == {"score_fr", "score_pool4", "upscore2", "upscore16"}
    assert set(result.loaded) == set(backbone.arrays)


LEFT_OVER = (
    "fc.weight", "module.fc.bias", "classifier.6.weight", "head.fc.weight", "aux1.fc1.weight", "aux_classifier.4.bias",
    "model.decoder.blocks.0.conv1.0.weight", "segmentation_head.0.bias", "decode_head.conv_seg.weight",
    "auxiliary_head.convs.0.bn.weight", "module.model.head.fc.weight", "criterion.weight", "ema_backbone_conv1_weight",
    "fc8", "fc8_voc", "prob", "loss3/classifier", "loss1/conv", "dsn1", "fuse", "predictions",
)  # fmt: skip


def test_heads_of_classifiers_losses_and_side_outputs_may_be_left_over():
    match_weights(variables(), file_of(variables(seed=1), unknown=LEFT_OVER), NAMES)


@pytest.mark.parametrize(
    "name", ["layer1.0.se.fc1.weight", "layer1.0.se.fc.weight", "bn_conv1", "scale_conv1", "losses.x"]
)
def test_what_is_not_known_may_matter_and_is_refused_unless_it_is_allowed(name):
    file = file_of(variables(seed=1), unknown=("fc.weight", name))
    message = rf"network:\n  {re.escape(name)} of the file is not known here\n.* --model\.allow {re.escape(name)}$"
    with pytest.raises(InputError, match=message):
        match_weights(variables(), file, NAMES)
    match_weights(variables(), file, NAMES, (name[:6],))


def test_a_backbone_must_come_whole_unless_it_is_allowed_to_differ():
    file = without(file_of(variables(seed=1)), "bn1/var", "layer4_0/conv1")
    file.arrays["params/backbone/conv1/kernel"] = np.zeros((3, 3, 3, 8), np.float32)
    file.arrays["params/backbone/extra/kernel"] = np.zeros(1, np.float32)
    with pytest.raises(InputError) as refused:
        match_weights(variables(), file, NAMES)
    lines = str(refused.value).splitlines()
    assert lines[0] == "w does not fit the network:"
    assert "  batch_stats/backbone/bn1/var is not in the file" in lines
    assert "  params/backbone/layer4_0/conv1/kernel is not in the file" in lines
    assert "  params/backbone/conv1/kernel is (3, 3, 3, 8) in the file and (7, 7, 3, 8) in the network" in lines
    assert "  params/backbone/extra/kernel is not in the network" in lines
    assert len(lines) <= 2 + 12 + 2
    assert "--model.backbone" in lines[-1]
    assert "--model.allow backbone/fc6" in lines[-1]
    # One beginning for each thing, or it is refused still.
    allow = ("backbone/bn1", "backbone/layer4_0", "backbone/conv1", "backbone/extra", "backbone/layer")
    result = match_weights(variables(), file, NAMES, allow)
    assert {"batch_stats/backbone/bn1/var", "params/backbone/conv1/kernel"} <= set(result.new)
    assert result.unused == ("params/backbone/extra/kernel",)
    with pytest.raises(InputError, match=r"network:\n  params/backbone/extra/kernel is not in the network\ngive"):
        match_weights(variables(), file, NAMES, (*allow[:3], "backbone/layer"))


def test_many_problems_are_counted():
    with pytest.raises(InputError, match=r"\n  and \d+ more\n") as refused:
        match_weights(variables(), file_of(variables(width=4, seed=1)), NAMES)
    assert len(str(refused.value).splitlines()) == 1 + 12 + 1 + 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value):
    file = file_of(variables(seed=1))
    broken = file.arrays["params/score_fr/kernel"].copy()
    broken[0, 0, 3, 1] = value
    file.arrays["params/score_fr/kernel"] = broken
    with pytest.raises(InputError, match="params/score_fr/kernel holds values in the file that are not finite"):
        match_weights(variables(), file, NAMES)


@pytest.mark.parametrize("new", ["sea road sky tree", "sand sky", "sky sand sea", "a b c"])
def test_other_classes_are_taken_by_name(new):
    """A loop over pairs of classes; the kernels are random, so a swap of their axes would be seen."""
    new = tuple(new.split())
    start, file = variables(classes=len(new)), file_of(variables(seed=1))
    result = match_weights(start, file, new)
    merged = flat(result.merge_into(start))
    assert {path.split("/")[1] for path in result.by_class} == {"score_fr", "score_pool4", "upscore2", "upscore16"}
    for path in result.by_class:
        expected, theirs = flat(start)[path].copy(), file.arrays[path]
        for i, name in enumerate(new):
            if "upscore" not in path and name in NAMES:
                expected[..., i] = theirs[..., NAMES.index(name)]
            for j, other in enumerate(new):
                if "upscore" in path and name in NAMES and other in NAMES:
                    expected[..., i, j] = theirs[..., NAMES.index(name), NAMES.index(other)]
        np.testing.assert_array_equal(merged[path], expected, err_msg=path)
    for path in set(merged) - set(result.by_class):
        np.testing.assert_array_equal(merged[path], file.arrays[path])
    known = ", ".join(name for name in new if name in NAMES) or "none"
    assert f"(known from before: {known}; the others start at zero)" in str(result)


def test_classes_without_names_are_taken_if_there_are_as_many_and_start_anew_if_not():
    file = file_of(variables(seed=1), class_names=None)
    assert set(match_weights(variables(), file, ("x", "y", "z")).loaded) == set(file.arrays)
    result = match_weights(variables(classes=4), file, ("w", "x", "y", "z"))
    assert {path.split("/")[1] for path in result.new} == {"score_fr", "score_pool4", "upscore2", "upscore16"}
    assert result.by_class == ()
