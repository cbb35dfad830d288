"""`fcn-jax eval`."""

import json
import shutil

import numpy as np
import pytest
from command_line import find_best
from PIL import Image


def is_shown(image: np.ndarray, picture: np.ndarray) -> bool:
    """Whether the image is somewhere in the picture, as it is or enlarged by a whole factor."""
    for factor in range(1, 17):
        large = image.repeat(factor, axis=0).repeat(factor, axis=1)
        for top, left in np.argwhere((picture == image[0, 0]).all(axis=-1)):
            if np.array_equal(picture[top : top + large.shape[0], left : left + large.shape[1]], large):
                return True
    return False


def test_eval_repeats_the_score_of_the_training(place, undisturbed):
    folder, _ = undisturbed
    best = find_best(folder)
    output = place.run("eval", folder.name, "--split", "tiny", "--json", "scores.json", "--picture", "scores.png")
    picture = np.asarray(Image.open(place.root / "scores.png").convert("RGB"))
    first = np.asarray(Image.open(place.root / "data/images/tiny/tiny0.png"))
    assert picture.shape[1] >= 3 * first.shape[1] + 8  # image, truth and prediction
    assert is_shown(first, picture)
    scores = json.loads((place.root / "scores.json").read_text())
    assert scores["mean_iu"] == best["mean_iu"]
    assert scores["per_class_iu"] == best["per_class_iu"]
    assert (scores["step"], scores["split"]) == (best["step"], "tiny")
    assert scores["num_examples"] == 3
    labels = [np.asarray(Image.open(path)) for path in (place.root / "data/labels/tiny").iterdir()]
    assert scores["num_pixels"] == sum(map(sum, scores["confusion"])) == sum((label != 255).sum() for label in labels)
    assert [sum(row) for row in scores["confusion"]] == [sum((label == i).sum() for label in labels) for i in (0, 1)]
    assert scores["class_names"] == ["ground", "thing"]
    assert f"{100 * best['mean_iu']:.2f}" in output
    assert "3 images of folder tiny" in output
    assert f"step {best['step']} of {folder.name}" in output


@pytest.mark.slow
def test_eval_wants_the_classes_of_the_training(place, undisturbed):
    folder, _ = undisturbed
    other = place.root / "other"
    shutil.copytree(place.root / "data", other)
    (other / "classes.txt").write_text("ground\nthing\nsky\n")
    output = place.run("eval", folder.name, "--split", "tiny", "--data.dir", other, code=2)
    assert f"{folder.name} was trained on the classes ground, thing, and folder has ground, thing, sky; score" in output


@pytest.mark.slow
def test_eval_scores_the_checkpoint_of_a_step(place, undisturbed):
    folder, _ = undisturbed
    step = 15 - find_best(folder)["step"]  # 5 or 10, which is not the default
    place.run("eval", folder.name, "--split", "tiny", "--step", str(step), "--json", f"step{step}.json")
    scores = json.loads((place.root / f"step{step}.json").read_text())
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (expected,) = [line for line in metrics if (line["step"], line["split"]) == (step, "val")]
    assert (scores["step"], scores["mean_iu"]) == (step, expected["mean_iu"])


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named(place, undisturbed):
    folder, _ = undisturbed
    damaged = place.root / "damaged"
    shutil.copytree(folder, damaged)
    payload = max((damaged / "checkpoints" / "10").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(payload.read_bytes())
    content[len(content) // 2] ^= 1
    payload.write_bytes(content)
    output = place.run("eval", "damaged", "--split", "tiny", "--step", "10", code=2)
    assert "is damaged" in output
    assert payload.name in output
    assert "no checkpoint 7; there are: 5, 10" in place.run("eval", "undisturbed", "--step", "7", code=2)
