"""`fcn-jax publish`."""

import json
import re

import pytest
from command_line import find_best


def test_a_run_is_published_with_the_score_of_its_best_checkpoint(place, undisturbed):
    folder, _ = undisturbed
    best = find_best(folder)
    output = place.run("publish", folder.name, "--out", "published", "--quiet")
    score = f"step {best['step']}, mean IU {100 * best['mean_iu']:.2f} % on tiny"
    assert output == f"written: published; {score}\n"
    metrics = json.loads((place.root / "published" / "metrics.json").read_text())
    assert metrics["mean_iu"] == best["mean_iu"]
    assert metrics["commands"][0].startswith("fcn-jax train fcn8s --data.name folder")
    assert metrics["seconds"] is None or metrics["seconds"] > 0  # None: another test has started it again


@pytest.mark.slow
def test_the_weights_score_the_same_again(place, undisturbed):
    folder, _ = undisturbed
    place.run("publish", folder.name, "--out", "to-score")
    metrics = json.loads((place.root / "to-score" / "metrics.json").read_text())
    words = ("--model.weights", "to-score/model.safetensors", "--steps", "0")
    output = place.run(*place.train_words("scored-again"), *words)
    (found,) = re.findall(r"mean IU (\d\.\d+)", output)
    assert float(found) == pytest.approx(metrics["mean_iu"], abs=1e-4)
