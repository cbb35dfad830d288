"""The dilated FCN: parameters, resize, images on a canvas, training.

backbones/test_against_torchvision.py compares it with torchvision.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from random_variables import draw_images, draw_variables

import fcn_jax
from fcn_jax.models.backbones.resnet import Bottleneck, ResNet
from fcn_jax.models.dilated import DilatedFCN, Head, resize
from fcn_jax.models.feature_map import FeatureMap

SMALL = fcn_jax.DilatedFCN(4, ResNet(depths=(1, 1, 1, 1), width=4, block=Bottleneck, output_stride=8))


@pytest.mark.parametrize(("backbone", "count"), [("resnet50", 35_322_218), ("resnet101", 54_314_346)])
def test_parameter_counts_are_torchvision_s(backbone, count):
    """`num_params` of its weights, auxiliary head included."""
    model = DilatedFCN(num_classes=21, backbone=backbone)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == count


def resize_loop(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize [h, w, c] bilinearly, pixel by pixel in float64, with pixel centres at half integers."""

    def neighbours(i: int, results: int, cells: int) -> tuple[int, int, float]:
        place = min(max((i + 0.5) * cells / results - 0.5, 0), cells - 1)
        low = int(place)
        return low, min(low + 1, cells - 1), place - low

    y = np.zeros((height, width, x.shape[-1]))
    for i in range(height):
        top, bottom, v = neighbours(i, height, x.shape[0])
        for j in range(width):
            left, right, u = neighbours(j, width, x.shape[1])
            y[i, j] = (1 - v) * ((1 - u) * x[top, left] + u * x[top, right])
            y[i, j] += v * ((1 - u) * x[bottom, left] + u * x[bottom, right])
    return y


def test_resize_is_the_loop_for_each_image():
    cells = np.array([(3, 4), (1, 1), (5, 6), (2, 6)], np.int32)
    pixels = np.array([(19, 30), (1, 7), (40, 41), (9, 48)], np.int32)
    values = np.random.default_rng(0).normal(size=(4, 5, 6, 2)).astype(np.float32)
    canvas = jnp.zeros((4, 40, 48, 3))
    got = resize(FeatureMap(jnp.asarray(values), jnp.asarray(cells), 8), FeatureMap(canvas, jnp.asarray(pixels)))
    assert got.values.shape == (4, 40, 48, 2)
    for index, ((h, w), (height, width)) in enumerate(zip(cells, pixels, strict=True)):
        want = resize_loop(values[index, :h, :w].astype(np.float64), height, width)
        np.testing.assert_allclose(got.values[index, :height, :width], want, atol=1e-5)
    alike = resize(FeatureMap(jnp.asarray(values), stride=8), FeatureMap(canvas)).values
    np.testing.assert_allclose(alike[1], resize_loop(values[1].astype(np.float64), 40, 48), atol=1e-5)


@pytest.mark.slow
def test_image_on_a_canvas_scores_as_alone():
    variables = draw_variables(SMALL, jnp.zeros((1, 8, 8, 3)))
    canvas = draw_images(3, 57, 72)
    sizes = np.array([(1, 1), (33, 47), (57, 72)], np.int32)
    apply = jax.jit(SMALL.apply, static_argnames="return_aux")
    together = apply(variables, canvas, sizes, return_aux=True)
    for index, (height, width) in enumerate(sizes):
        alone = apply(variables, canvas[index : index + 1, :height, :width], return_aux=True)
        for logits, want in zip(together, alone, strict=True):
            assert want.shape == (1, height, width, 4)
            assert np.abs(want).max() > 1e-2
            np.testing.assert_allclose(logits[index : index + 1, :height, :width], want, atol=1e-4, rtol=1e-4)
    # Batches are filled up with images of size 0; their scores have to be finite.
    empty = apply(variables, canvas[:1], np.zeros((1, 2), np.int32))
    assert np.isfinite(empty).all()


def test_training_reaches_both_heads():
    """Both have gradients, which differ with the dropout, and new statistics."""
    images = draw_images(2, 17, 24)
    variables = draw_variables(SMALL, jnp.zeros((1, 8, 8, 3)))

    def loss(params, key):
        logits, updates = SMALL.apply(
            {**variables, "params": params},
            images,
            train=True,
            return_aux=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        up = (np.arange(4) - 1.5).astype(np.float32).reshape(1, 1, 1, 4)
        return (logits[0] * up).sum() + 0.5 * (logits[1] * up).sum(), updates["batch_stats"]

    step = jax.jit(jax.grad(loss, has_aux=True))
    first, statistics = step(variables["params"], jax.random.key(0))
    other, _ = step(variables["params"], jax.random.key(1))
    for head in ("classifier", "aux_classifier"):
        gradients = [gradient[head]["score"]["kernel"] for gradient in (first, other)]
        assert np.abs(gradients[0]).max() > 0
        assert np.abs(gradients[0] - gradients[1]).max() > 0
        before = variables["batch_stats"][head]["bn"]["mean"]
        assert np.abs(statistics[head]["bn"]["mean"] - before).max() > 0


def test_the_first_scores_are_zero():
    params = Head(num_classes=4).init(jax.random.key(0), FeatureMap(jnp.ones((1, 2, 2, 8))))["params"]
    assert not params["score"]["kernel"].any()
    assert params["conv"]["kernel"].any()


def test_bf16_keeps_the_logits_in_float32():
    with jax.numpy_dtype_promotion("standard"):
        half = SMALL.clone(dtype=jnp.bfloat16, backbone=SMALL.backbone.clone(dtype=jnp.bfloat16))
        variables, images = draw_variables(SMALL, jnp.zeros((1, 8, 8, 3))), draw_images(1, 33, 40)
        logits, exact = (jax.jit(model.apply)(variables, images) for model in (half, SMALL))
    assert logits.dtype == jnp.float32
    assert 0 < np.abs(logits - exact).max() < 0.1 * np.abs(exact).max()


def test_backbones_that_cannot_be_dilated_are_refused():
    with pytest.raises(ValueError, match=r"backbone is 'vgg16'; it must be one of 'resnet18', .*'resnet152'"):
        DilatedFCN(3, "vgg16").init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


@pytest.mark.slow
def test_heads_may_have_the_layers_of_flax():
    images, variables = draw_images(1, 17, 24), draw_variables(SMALL, jnp.zeros((1, 8, 8, 3)))
    theirs = SMALL.clone(conv=nn.Conv, norm=nn.BatchNorm)
    shapes = jax.eval_shape(theirs.init, jax.random.key(0), images)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shapes)

    def train(model):
        apply = jax.jit(model.apply, static_argnames=("train", "return_aux", "mutable"))
        rngs = {"dropout": jax.random.key(0)}
        return apply(variables, images, train=True, return_aux=True, mutable=("batch_stats",), rngs=rngs)

    for got, want in zip(*(jax.tree.leaves(train(model)) for model in (theirs, SMALL)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max(), rtol=1e-4)


def test_it_has_auxiliary_scores():
    assert DilatedFCN(3).has_auxiliary_scores
