"""Weights of late fusion, and first layers for other channels."""

import numpy as np
import pytest

from fcn_jax.config import CAFFE_INPUT, InputConfig
from fcn_jax.errors import InputError
from fcn_jax.weights.merge import adapt_kernel, match_weights
from fcn_jax.weights.streams import copy_to_streams, join_inputs, join_streams
from fcn_jax.weights.weights import Weights

RNG = np.random.default_rng(0)
HHA = InputConfig("rgb", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), channels=(("hha", 3),))
DEPTH = InputConfig("rgb", (7.8,), (0.5,), log=(0,), channels=(("depth", 1),), dtype="uint16")


def weights(given=CAFFE_INPUT, channels=3, names=("a", "b"), origin="w"):
    arrays = {
        "params/backbone/conv1_1/kernel": RNG.normal(size=(3, 3, channels, 4)).astype(np.float32),
        "params/backbone/conv1_1/bias": RNG.normal(size=4).astype(np.float32),
        "params/score_fr/kernel": RNG.normal(size=(1, 1, 4, 2)).astype(np.float32),
    }
    return Weights(arrays, (), given, origin, names)


def shapes(channels, streams=()):
    def make(count):
        arrays = {"conv1_1": {"kernel": np.full((3, 3, count, 4), 9, np.float32), "bias": np.full(4, 9, np.float32)}}
        return {"backbone": arrays, "score_fr": {"kernel": np.full((1, 1, 4, 2), 9, np.float32)}}

    return {"params": {name: make(count) for name, count in streams} if streams else make(channels)}


def test_a_fourth_channel_starts_from_the_mean_of_the_others():
    """As the reference's nyud-fcn32s-color-d/solve.py sets conv1_1_bgrd."""
    file = weights()
    kernel = file.arrays["params/backbone/conv1_1/kernel"]
    given = InputConfig("bgr", (0.0,) * 4, (1.0,) * 4, channels=(("colour", 3), ("depth", 1)), dtype="uint16")
    match = match_weights(shapes(4), file, ("a", "b"), input=given)
    got = match.merge_into(shapes(4))["params"]["backbone"]["conv1_1"]["kernel"]
    np.testing.assert_array_equal(got[:, :, :3], kernel)
    for place in np.ndindex(3, 3, 4):
        row, column, out = place
        np.testing.assert_allclose(
            got[row, column, 3, out], sum(kernel[row, column, i, out] for i in range(3)) / 3, rtol=1e-5
        )
    assert match.adapted == ("params/backbone/conv1_1/kernel",)
    assert "adapted" in str(match)


def test_inputs_keep_their_kernels_in_another_order():
    kernel = RNG.normal(size=(3, 3, 4, 2))
    got = adapt_kernel(kernel, (("colour", 3), ("depth", 1)), (("depth", 1), ("colour", 3), ("heat", 2)))
    np.testing.assert_array_equal(got[:, :, 0], kernel[:, :, 3])
    np.testing.assert_array_equal(got[:, :, 1:4], kernel[:, :, :3])
    np.testing.assert_allclose(got[:, :, 4:], np.stack([kernel.mean(axis=2)] * 2, axis=2))


def test_only_first_layers_are_adapted():
    file = weights(channels=5)
    with pytest.raises(
        InputError, match=r"conv1_1/kernel is \(3, 3, 5, 4\) in the file and \(3, 3, 3, 4\) in the netw"
    ):
        match_weights(shapes(3), file, ("a", "b"))


def test_every_stream_starts_from_the_same_file():
    file = weights(names=None)
    streams = (("colour", 3), ("depth", 1))
    given = InputConfig(mean=(0.0,) * 4, std=(1.0,) * 4, channels=streams, dtype="uint16")
    copied = copy_to_streams(file, ["colour", "depth"])
    wanted = shapes(0, streams)
    del wanted["params"]["depth"]["backbone"]["conv1_1"]["bias"]
    with pytest.raises(InputError, match="params/depth/backbone/conv1_1/bias is not in the network"):
        match_weights(wanted, copied, ("a", "b"), input=given)
    for allow in (["backbone/conv1_1/bias"], ["depth/backbone/conv1_1/bias"]):
        params = match_weights(wanted, copied, ("a", "b"), allow, given).merge_into(wanted)["params"]
        kernel = file.arrays["params/backbone/conv1_1/kernel"]
        np.testing.assert_array_equal(params["colour"]["backbone"]["conv1_1"]["kernel"], kernel)
        depth = params["depth"]["backbone"]["conv1_1"]["kernel"]
        np.testing.assert_allclose(depth, kernel.mean(axis=2, keepdims=True), rtol=1e-6)
        np.testing.assert_array_equal(params["depth"]["score_fr"]["kernel"], file.arrays["params/score_fr/kernel"])


def test_streams_from_networks_of_their_own():
    parts = [weights(origin="A"), weights(HHA, origin="B"), weights(DEPTH, 1, None, origin="C")]
    joined = join_streams(parts, ("colour", "hha", "depth"))
    for part, stream in zip(parts, ("colour", "hha", "depth"), strict=True):
        for path, array in part.arrays.items():
            np.testing.assert_array_equal(joined.arrays[path.replace("params/", f"params/{stream}/")], array)
    assert len(joined.arrays) == 9
    assert (joined.origin, joined.class_names) == ("A and B and C", ("a", "b"))
    assert joined.input == InputConfig(
        "bgr", (*CAFFE_INPUT.mean, 1.0, 2.0, 3.0, 7.8), (1.0, 1.0, 1.0, 4.0, 5.0, 6.0, 0.5), log=(6,),
        channels=(("colour", 3), ("hha", 3), ("depth", 1)), dtype="uint16",
    )  # fmt: skip
    assert join_inputs([HHA]) == HHA
    # Of a network that was trained on another input nothing is known about this one.
    assert join_streams(parts[:2], ("colour", "depth")).input == CAFFE_INPUT
    assert join_streams(parts[1:2], ("colour",)).input is None


def test_streams_that_do_not_fit():
    with pytest.raises(
        InputError, match=r"model.init-streams names 1 networks, and data.inputs 2 inputs \(colour, hha\)"
    ):
        join_streams([weights()], ("colour", "hha"))
    with pytest.raises(InputError, match="A and B were trained on other classes; their scores have no common mean"):
        join_streams([weights(origin="A"), weights(names=("a", "c"), origin="B")], ("colour", "hha"))
