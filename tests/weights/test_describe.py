"""What is printed about weights."""

import numpy as np

from fcn_jax.config import InputConfig
from fcn_jax.weights.describe import count_by_module, describe_weights
from fcn_jax.weights.weights import Weights

WEIGHTS = Weights(
    {
        "params/backbone/conv1/kernel": np.zeros((3, 3, 3, 400), np.float32),
        "batch_stats/backbone/bn1/mean": np.zeros(400, np.float32),
        "params/score_fr/kernel": np.zeros((1, 1, 400, 2), np.float32),
    },
    ("fc8", "prob"),
    InputConfig(),
    "w.pth (PyTorch)",
    ("sky", "sea"),
)


def test_all_is_described():
    assert describe_weights(WEIGHTS).splitlines() == [
        "w.pth (PyTorch)",
        "  3 arrays, 12,000 numbers: backbone 2, score_fr",
        f"  input: {InputConfig()}",
        "  classes: sky, sea",
        "  not used: fc8, prob",
    ]


def test_what_the_file_does_not_say_is_left_out():
    lines = describe_weights(WEIGHTS._replace(unknown=(), input=None, class_names=None)).splitlines()
    assert len(lines) == 3
    assert "not told by the file" in lines[2]


def test_only_eight_modules_are_listed():
    paths = [f"params/layer{index}/{leaf}" for index in range(9) for leaf in ("kernel", "bias")]
    assert count_by_module(paths) == ", ".join(f"layer{index} 2" for index in range(8)) + ", ..."
    assert count_by_module(["fc8", "fc8"]) == "fc8 2"
    assert count_by_module([]) == ""
