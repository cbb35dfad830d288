"""The scores of a run, by one pass over its split."""

import dataclasses

import numpy as np
import pytest
from small_runs import examples

from fcn_jax.data.dataset import prepare
from fcn_jax.errors import InputError
from fcn_jax.inference.evaluate import evaluate
from fcn_jax.inference.metrics import compute_metrics, confusion_matrix
from fcn_jax.inference.report.boundary import count_boundaries
from fcn_jax.inference.report.score import score_run
from fcn_jax.inference.trained import load_trained
from fcn_jax.runs.run_dir import open_run


@pytest.fixture(scope="module")
def dataset(run_dir):
    """The classes of the run, with twelve images in val."""

    class Larger(type(prepare("folder", run_dir.parent / "data", run_dir.parent / "cache"))):
        def source(self, split):
            assert split == "val"
            return examples(12)

    small = prepare("folder", run_dir.parent / "data", run_dir.parent / "cache")
    return Larger(**{field.name: getattr(small, field.name) for field in dataclasses.fields(small)})


def score(run_dir, dataset, **changes):
    settings = {"step": None, "count": None, "batch_size": 8, "tile": 0, "explain": False}
    return score_run(open_run(run_dir), dataset, "val", **(settings | changes))


def test_the_scores_are_those_of_the_single_images(run_dir, dataset, capsys):
    chosen = [examples(12)[index] for index in (0, 1, 3, 4, 6, 7, 8, 10, 11)]  # nine of twelve, evenly spread
    trained = load_trained(open_run(run_dir), 2, labelled=True, tile=0)
    maps = {}
    plain = evaluate(
        trained.forward, trained.variables, chosen, dataset.tasks, 8, show=lambda e, p: maps.update({e.name: p})
    )
    scores = score(run_dir, dataset, step=2, count=9)
    assert (scores.step, scores.split, scores.available, scores.same_data) == (2, "val", 12, True)
    assert scores.evaluation.num_examples == 9
    assert "scoring folder val: 9 of 9 images" in capsys.readouterr().err
    np.testing.assert_array_equal(scores.evaluation.confusion, plain.confusion)
    common, union = sum(count_boundaries(e.label, maps[e.name], 3) for e in chosen)
    np.testing.assert_allclose(scores.boundary_iu[0], common / union)
    assert scores.mean_boundary_iu == pytest.approx((common / union).mean())
    own = {e.name: compute_metrics(confusion_matrix(e.label, maps[e.name], 3)).mean_iu for e in chosen}
    order = sorted(own, key=lambda name: own[name])
    assert [shown.name for shown in scores.examples["best"]] == order[::-1][:3]
    assert [shown.name for shown in scores.examples["median"]] == order[3:6]
    assert [shown.name for shown in scores.examples["worst"]] == order[:3]
    for shown in scores.examples["best"]:
        assert shown.mean_iu == own[shown.name]
        assert (shown.truth.height, shown.truth.width) == maps[shown.name].shape
    assert 0 < scores.calibration.error < 1


def test_other_classes_are_refused(run_dir, dataset):
    other = dataclasses.replace(dataset, tasks=(dataset.tasks[0]._replace(class_names=("sky", "sea", "land")),))
    with pytest.raises(InputError, match="was trained on the classes sky, sea, sand, and folder has sky, sea, land"):
        score(run_dir, other)


def test_the_network_is_explained_on_images_of_the_split(run_dir, dataset, monkeypatch):
    seen = []

    def draw(model, variables, input_config, chosen, class_names, palette):
        seen.append([example.image for example in chosen])
        return ["figure"]

    monkeypatch.setattr("fcn_jax.inference.report.score.draw_explanations", draw)
    assert score(run_dir, dataset, count=2, explain=True).figures == ["figure"]
    ((first, *_, last),) = seen
    assert len(seen[0]) == 4
    np.testing.assert_array_equal(first, examples(12)[0].image)
    np.testing.assert_array_equal(last, examples(12)[11].image)
