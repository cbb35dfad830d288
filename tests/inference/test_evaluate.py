"""Evaluation: the score of a split."""

import threading

import jax.numpy as jnp
import numpy as np
from random_network import CLASSES, blank, examples, logits_alone, network

from fcn_jax.config import InputConfig
from fcn_jax.data.labels import palette
from fcn_jax.data.tasks import Task, find_classes
from fcn_jax.inference.evaluate import describe_scores, evaluate, format_tables, ignore_classes
from fcn_jax.inference.segment import Scored, make_forward
from fcn_jax.inference.tiles import choose_canvas

NAMES = ("sky", "road", "car", "unseen")
TASKS = (Task("", NAMES, palette(CLASSES)),)


def test_the_score_is_that_of_a_loop_over_single_images():
    model, variables = network()
    shown = []
    result = evaluate(
        make_forward(model, InputConfig()),
        variables,
        examples(),
        TASKS,
        8,
        show=lambda example, _: shown.append(example.name),
    )
    confusion = np.zeros((CLASSES, CLASSES), int)
    total, count = 0.0, 0
    for example in examples():
        logits = logits_alone()[example.name].astype(np.float64)
        for row, column in np.argwhere(example.label != 255):
            truth, scores = example.label[row, column], logits[row, column]
            confusion[truth, scores.argmax()] += 1
            total += np.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[truth]
            count += 1
    assert np.abs(result.confusion - confusion).sum() <= 4  # ties
    assert result.confusion.dtype == np.int64
    assert result.confusion.sum() == count
    np.testing.assert_allclose(result.loss, total / count, rtol=1e-5)
    assert result.num_examples == len(examples()) == len(set(shown))
    # All fit on the 64 x 64 canvas, which wastes few pixels.
    assert result.programs == 1 < len({choose_canvas(*example.label.shape) for example in examples()})


def test_scoring_goes_on_while_the_next_batch_computes():
    """The third batch waits here until an image of the first is shown, which no later batch may delay."""
    shown, begun = threading.Event(), []

    def forward(variables, batch):
        begun.append(batch.label.shape)
        if len(begun) == 3:
            assert shown.wait(10)
        return Scored(jnp.zeros(batch.label.shape, jnp.uint8), jnp.zeros(()), jnp.zeros(()))

    members = [blank(f"{i}", 20, 20) for i in range(40)]
    result = evaluate(forward, {}, members, (Task("", ("all",), palette(1)),), 8, show=lambda *_: shown.set())
    assert len(begun) == 5
    assert result.confusion.tolist() == [[40 * 400]]


def test_no_more_programs_are_compiled_than_there_are_canvases():
    model, variables = network()
    forward = make_forward(model, InputConfig())
    for _ in range(2):
        result = evaluate(forward, variables, examples(), TASKS, 8)
    assert forward._cache_size() == result.programs


def test_the_table_and_the_json_say_what_was_counted():
    model, variables = network()
    result = evaluate(make_forward(model, InputConfig()), variables, examples(), TASKS, 8)
    text = format_tables(result)
    for name, iu in zip(NAMES, result.metrics.per_class_iu, strict=True):
        assert any(line.startswith(name) and f"{100 * iu:.2f}" in line for line in text.splitlines())
    assert f"{100 * result.metrics.mean_iu:.2f}" in text
    stored = describe_scores(result)
    assert stored["num_pixels"] == sum((example.label != 255).sum() for example in examples())
    assert stored["class_names"] == NAMES
    assert set(stored) == {
        "loss", "pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu", "per_class_iu",
        "per_class_accuracy", "num_examples", "num_pixels", "class_names", "confusion",
    }  # fmt: skip


def test_ignored_classes_are_named():
    model, variables = network()
    result = evaluate(make_forward(model, InputConfig()), variables, examples(), TASKS, 8)
    found = ignore_classes(result, find_classes(TASKS, ["unseen", "road"]))
    rows = result.confusion.sum(axis=1)
    assert found.ignored == ((1, 3),)
    assert describe_scores(found)["ignored"] == ["road", "unseen"]
    assert describe_scores(found)["num_pixels"] == rows[0] + rows[2]
    assert found.loss == result.loss
    table = format_tables(found)
    assert "ignored: road, unseen; their pixels count as void" in table
    assert "neither truth nor prediction" not in table


def test_absent_classes_are_counted_in_the_table():
    model, variables = network()
    only_void = [example._replace(label=np.full_like(example.label, 255)) for example in examples()[:2]]
    result = evaluate(make_forward(model, InputConfig()), variables, only_void, TASKS, 8)
    assert "4 classes are in neither truth nor prediction, and left out" in format_tables(result)
    assert np.isnan(result.metrics.mean_iu)
    assert np.isnan(result.loss)
