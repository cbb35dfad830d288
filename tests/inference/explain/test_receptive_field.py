"""Receptive fields against published sizes, and measured gradients against finite differences and loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_network import draw_network_variables, network
from random_variables import draw_images
from small_runs import NORMED

from fcn_jax.inference.explain.receptive_field import (
    Field,
    average_windows,
    find_side,
    list_fields,
    make_gradient,
    measure_central_share,
)
from fcn_jax.models.backbones import BACKBONES
from fcn_jax.models.backbones.alexnet import AlexNet
from fcn_jax.models.backbones.vgg import VGG
from fcn_jax.models.dilated import DilatedFCN
from fcn_jax.models.fcn import FCN, FCN8s, FCN16s, FCN32s


@pytest.mark.parametrize(
    ("backbone", "side"),
    [
        (VGG(), 404),  # Long et al. 2015, table 1
        (VGG(padding="reference"), 404),
        (AlexNet(), 355),  # the same
    ],
)
def test_fields_are_the_published_ones(backbone, side):
    fields = list_fields(FCN32s(3, backbone))
    assert fields["score_fr"] == Field(side, 32)
    assert fields["logits"].side >= side


def test_fields_of_all_streams_of_vgg16():
    """By hand: a pixel of k has k - 1 steps of the stride before it; n stages of 2, 2, 3, 3, 3 convolutions."""
    pool3 = 1 + 2 * 2 + 1 + 2 * 2 * 2 + 2 + 3 * 2 * 4 + 4
    pool4 = pool3 + 3 * 2 * 8 + 8
    fields = list_fields(FCN8s(3, "vgg16"))
    assert list(fields) == ["score_fr", "score_pool4", "score_pool3", "logits"]
    assert fields["score_pool3"] == Field(pool3, 8)
    assert fields["score_pool4"] == Field(pool4, 16)


def test_fields_of_all_streams_of_resnet50():
    """By hand: the 3x3 convolution of the first block of a stage has the stride, and the others follow it."""
    stage1 = 7 + 2 * 2 + 3 * 2 * 4
    stage2 = stage1 + 2 * 4 + 3 * 2 * 8
    stage3 = stage2 + 2 * 8 + 5 * 2 * 16
    stage4 = stage3 + 2 * 16 + 2 * 2 * 32
    sides = [field.side for field in list_fields(FCN8s(3, "resnet50")).values()]
    assert sides[:3] == [stage4, stage3, stage2] == [427, 267, 91]


def test_the_head_of_a_dilated_network_adds_to_its_field():
    backbone = BACKBONES["resnet18"](output_stride=8)
    inner = list_fields(FCN32s(3, backbone))["score_fr"]
    fields = list_fields(DilatedFCN(3, "resnet18"))
    assert fields["classifier"] == Field(inner.side + 2 * 8, 8)
    assert list(fields) == ["classifier", "logits"]


class Nearest(FCN):
    def upsample(self, x, to, name):
        factor = x.stride // to.stride
        values = x.values.repeat(factor, axis=1).repeat(factor, axis=2)
        return to.replace(values=values[:, : to.shape[0], : to.shape[1]])


def test_the_field_of_an_unknown_upsampling_is_left_out():
    assert "logits" not in list_fields(Nearest(3, NORMED))


def test_the_gradient_is_that_of_finite_differences():
    model, variables = network()
    height, width, epsilon = 39, 50, 1e-2
    middle = (19, 24)
    image, size = draw_images(1, height, width), np.array([[height, width]], np.int32)
    canvas = np.pad(image, ((0, 0), (0, 64 - height), (0, 64 - width), (0, 0)))
    gradient = np.asarray(jax.jit(make_gradient(model, model.num_classes))(variables, canvas, size))
    assert gradient.shape == (64, 64)
    assert (gradient[height:] == 0).all()
    assert (gradient[:, width:] == 0).all()

    logits = jax.jit(model.apply)
    chosen = int(np.asarray(logits(variables, image))[0, *middle].argmax())
    places = np.argwhere(gradient > np.quantile(gradient, 0.9))[::30]
    assert len(places) >= 10
    shifted = np.repeat(image, 6 * len(places), axis=0).reshape(len(places), 3, 2, height, width, 3)
    for index, (row, column) in enumerate(places):
        for channel in range(3):
            shifted[index, channel, :, row, column, channel] += epsilon, -epsilon
    scores = np.asarray(logits(variables, shifted.reshape(-1, height, width, 3)), np.float64)[:, *middle, chosen]
    up, down = np.moveaxis(scores.reshape(len(places), 3, 2), -1, 0)
    expected = np.abs((up - down) / (2 * epsilon)).sum(axis=-1)
    np.testing.assert_allclose(gradient[tuple(places.T)], expected, atol=0.01 * gradient.max())


def test_the_gradient_is_that_of_the_first_task():
    model, variables = network()
    image, size = jnp.asarray(draw_images(1, 33, 33)), jnp.array([[33, 33]])
    most = int(np.asarray(jax.jit(model.apply)(variables, image))[0, 16, 16].argmax())
    first = jax.jit(make_gradient(model, 1))(variables, image, size)
    every = jax.jit(make_gradient(model, model.num_classes))(variables, image, size)
    assert np.array_equal(first, every) == (most == 0)
    score = jax.jit(jax.grad(lambda image: model.apply(variables, image)[0, 16, 16, 0]))(image)
    np.testing.assert_allclose(first, np.abs(score)[0].sum(axis=-1), atol=1e-6 * np.abs(score).max())


def test_the_gradient_lies_in_the_field():
    model = FCN16s(3, NORMED)
    variables = draw_network_variables(model)
    side = list_fields(model)["logits"].side
    gradient = jax.jit(make_gradient(model, 3))(variables, draw_images(1, 160, 160), jnp.array([[160, 160]]))
    rows, columns = np.nonzero(np.asarray(gradient))
    reach = max(np.abs(rows - 79).max(), np.abs(columns - 79).max())
    assert list_fields(model)["score_fr"].side / 2 <= reach <= side / 2
    assert side < 160


def test_windows_are_averaged_around_the_middle():
    generator = np.random.default_rng(0)
    gradients = [generator.random(size) for size in ((5, 12), (8, 3), (30, 31))]
    window = average_windows(gradients, 11)
    for i, j in np.ndindex(11, 11):
        seen = []
        for gradient in gradients:
            row = (gradient.shape[0] - 1) // 2 + i - 5
            column = (gradient.shape[1] - 1) // 2 + j - 5
            if 0 <= row < gradient.shape[0] and 0 <= column < gradient.shape[1]:
                seen.append(gradient[row, column])
        assert window[i, j] == pytest.approx(np.mean(seen))
    alone = average_windows(gradients[:1], 11)
    assert np.isnan(alone).sum() == 11 * 11 - 5 * 11


def test_the_central_share():
    generator = np.random.default_rng(0)
    window = generator.random((21, 21))
    window[:4] = np.nan
    share, even = measure_central_share(window)
    inside = [(i, j) for i, j in np.ndindex(21, 21) if abs(i - 10) <= 5 and abs(j - 10) <= 5]
    assert share == pytest.approx(sum(window[place] for place in inside) / np.nansum(window))
    assert even == pytest.approx(121 / (17 * 21))
    assert np.isnan(measure_central_share(np.zeros((21, 21)))[0])


def test_find_side():
    window = np.random.default_rng(0).random((21, 21)) / (1 + np.abs(np.arange(21) - 10)) ** 2
    window[0] = np.nan
    for share in (0.01, 0.5, 0.95, 1.0):
        side = find_side(window, share)
        reach = side // 2
        within = np.nansum(window[10 - reach : 11 + reach, 10 - reach : 11 + reach])
        assert within >= (share - 1e-12) * np.nansum(window)
        if reach:
            smaller = np.nansum(window[11 - reach : 10 + reach, 11 - reach : 10 + reach])
            assert smaller < share * np.nansum(window)
    assert find_side(np.zeros((5, 5)), 0.5) == 0
