"""The input of a network that starts from weights, for data with other inputs than they were trained with."""

import pytest

from fcn_jax.config import CAFFE_INPUT, InputConfig
from fcn_jax.data.inputs import COLOUR, describe_inputs
from fcn_jax.data.sources.nyud import DEPTH, HHA
from fcn_jax.errors import InputError
from fcn_jax.training.start import choose_input
from fcn_jax.weights.caffe import COLOUR_D_INPUT
from fcn_jax.weights.weights import Weights

COLOUR_D = describe_inputs((COLOUR, DEPTH))


def weights(given):
    return Weights({}, (), given, "w")


def test_without_weights_it_is_that_of_the_data():
    assert choose_input(None, None, data=COLOUR_D) == COLOUR_D
    assert choose_input(None, weights(None), data=COLOUR_D) == COLOUR_D
    given = InputConfig(mean=(1.0, 2.0, 3.0, 4.0), std=(5.0, 6.0, 7.0, 8.0), log=(3,))
    chosen = choose_input(given, None, data=COLOUR_D)
    assert (chosen.mean, chosen.std, chosen.log) == (given.mean, given.std, (3,))
    assert (chosen.channels, chosen.dtype) == ((("colour", 3), ("depth", 1)), "uint16")


def test_known_inputs_are_those_of_the_weights_and_others_are_as_large():
    chosen = choose_input(None, weights(CAFFE_INPUT), data=COLOUR_D)
    assert (chosen.order, chosen.mean[:3], chosen.std[:3]) == ("bgr", CAFFE_INPUT.mean, (1.0, 1.0, 1.0))
    assert (chosen.mean[3], chosen.log, chosen.dtype) == (7.844, (3,), "uint16")
    # Caffe's colours have a deviation of about 57.6 where torchvision's have 1.
    assert chosen.std[3] == pytest.approx(0.5 / ((58.395 + 57.12 + 57.375) / 3))
    hha = choose_input(None, weights(CAFFE_INPUT), data=describe_inputs((HHA,)))
    assert hha.mean == HHA.mean
    assert hha.std == pytest.approx((1, 1, 1), rel=0.02)
    assert choose_input(None, weights(COLOUR_D_INPUT), data=COLOUR_D) == COLOUR_D_INPUT
    swapped = choose_input(None, weights(COLOUR_D_INPUT), data=describe_inputs((DEPTH, COLOUR)))
    assert (swapped.mean, swapped.log) == ((7.844, *COLOUR_D_INPUT.mean[:3]), (0,))


def test_flags_may_set_what_the_weights_do_not_know():
    given = InputConfig("bgr", (*CAFFE_INPUT.mean, 7.0), (1.0, 1.0, 1.0, 2.0))
    chosen = choose_input(given, weights(CAFFE_INPUT), data=COLOUR_D)
    assert (chosen.mean[3], chosen.std[3], chosen.log) == (7.0, 2.0, ())
    wrong = InputConfig("bgr", (1.0, 2.0, 3.0, 7.0), (1.0, 1.0, 1.0, 2.0), log=(3,))
    with pytest.raises(
        InputError, match=r"w was trained with another input than the flags say:\n  model.input.mean: \("
    ):
        choose_input(wrong, weights(CAFFE_INPUT), data=COLOUR_D)
    allowed = choose_input(wrong, weights(CAFFE_INPUT), ("input/mean",), COLOUR_D)
    assert (allowed.mean, allowed.order) == (wrong.mean, "bgr")
    # The order of colours says nothing of a network on HHA.
    given = InputConfig("rgb", HHA.mean, (1.0, 1.0, 1.0))
    assert choose_input(given, weights(CAFFE_INPUT), data=describe_inputs((HHA,))).mean == HHA.mean


def test_flags_have_a_value_for_each_channel():
    with pytest.raises(
        InputError, match=r"have 3 values, and the data has 4 channels: colour 3, depth 1; give a value"
    ):
        choose_input(InputConfig(), None, data=COLOUR_D)


def test_flags_cannot_say_which_channels_the_data_has():
    for given in (
        InputConfig(mean=(1.0,) * 4, std=(1.0,) * 4, channels=(("hha", 3), ("depth", 1))),
        InputConfig(dtype="uint16"),
    ):
        data = COLOUR_D if len(given.mean) == 4 else InputConfig()
        with pytest.raises(InputError, match=r"model.input.(channels|dtype) is .*, and the data has .*; leave --model"):
            choose_input(given, None, data=data)
