"""Evaluation: exact at each image's own size, nothing dropped, few programs."""

import functools
import threading
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax.config import InputConfig
from fcn_jax.data.augment import normalise
from fcn_jax.data.dataset import Example
from fcn_jax.inference import evaluate as module
from fcn_jax.inference.evaluate import AREA, WASTE, _batches, canvas_of, evaluate, make_forward, segment, table, to_json
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.fcn import FCN8s

CLASSES = 4


@functools.cache
def network():
    model = FCN8s(num_classes=CLASSES, backbone=ResNet(depths=(1, 1, 1, 1), width=8))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    generator = np.random.default_rng(0)

    def draw(path, shape):
        if path[-1].key in ("var", "scale"):
            return jnp.asarray(generator.uniform(0.5, 1.5, shape.shape), jnp.float32)
        fan_in = np.prod(shape.shape[:-1]) if len(shape.shape) > 1 else 1
        return jnp.asarray(generator.normal(size=shape.shape) * np.sqrt(2 / fan_in), jnp.float32)

    return model, jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def examples() -> list[Example]:
    """Sizes on five canvases, one of a single pixel, one all void."""
    generator = np.random.default_rng(1)
    sizes = [(40, 50), (33, 64), (1, 1), (64, 33), (40, 60), (50, 40), (31, 20), (64, 64), (60, 60), (7, 64), (5, 5)]

    def example(index: int, height: int, width: int) -> Example:
        image = generator.integers(0, 256, (height, width, 3), np.uint8)
        label = generator.integers(0, CLASSES - 1, (height, width)).astype(np.uint8)
        label[generator.random(label.shape) < 0.1] = 255
        if index == 4:
            label[:] = 255
        return Example(f"image{index}", image, label)

    return [example(index, *size) for index, size in enumerate(sizes)]


@functools.cache
def alone() -> dict[str, np.ndarray]:
    """The logits of every image by itself, unpadded."""
    model, variables = network()
    apply = jax.jit(model.apply)
    return {
        e.name: np.asarray(apply(variables, normalise(jnp.asarray(e.image)[None], InputConfig()))[0])
        for e in examples()
    }


@pytest.mark.parametrize("batch_size", [8, 16])
def test_class_maps_are_those_of_each_image_alone(batch_size):
    model, variables = network()
    results = list(segment(make_forward(model, InputConfig()), variables, examples(), batch_size))
    assert sorted(example.name for example, *_ in results) == sorted(example.name for example in examples())
    for example, prediction, _, _ in results:
        logits = alone()[example.name]
        assert prediction.shape == example.label.shape
        # Equal but where two classes tie to the last bits.
        ranked = np.sort(logits, axis=-1)
        clear = ranked[..., -1] - ranked[..., -2] > 1e-4
        np.testing.assert_array_equal(prediction[clear], logits.argmax(-1)[clear])
        assert clear.mean() > 0.99


def test_the_score_is_that_of_a_loop_over_single_images():
    model, variables = network()
    shown = []
    result = evaluate(
        make_forward(model, InputConfig()),
        variables,
        examples(),
        CLASSES,
        8,
        show=lambda example, _: shown.append(example.name),
    )
    confusion = np.zeros((CLASSES, CLASSES), int)
    total, count = 0.0, 0
    for example in examples():
        logits = alone()[example.name].astype(np.float64)
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
    # All fit on the 64 x 64 canvas, and few pixels are wasted so.
    assert result.programs == 1 < len({canvas_of(*example.label.shape) for example in examples()})


def test_without_labels_there_are_the_same_class_maps_and_nothing_is_scored():
    model, variables = network()
    with_labels = segment(make_forward(model, InputConfig()), variables, examples(), 8)
    without = segment(make_forward(model, InputConfig(), labelled=False), variables, examples(), 8)
    for (example, expected, *_), (same, class_map, total, weight) in zip(with_labels, without, strict=True):
        assert example is same
        np.testing.assert_array_equal(class_map, expected)
        assert total == weight == 0


@pytest.mark.parametrize("count", [1, 4])
def test_batches_hold_every_image_once_on_a_canvas_with_room_for_it(count):
    generator = np.random.default_rng(count)
    members = [blank(f"{i}", *generator.integers(1, 700, 2)) for i in range(200)]
    limit = lambda canvas: max(count * AREA // max(AREA, canvas[0] * canvas[1]), 1)  # noqa: E731
    seen, used, vain = [], set(), Counter()
    for canvas, batch in _batches(iter(members), limit):
        assert 1 <= len(batch) <= limit(canvas)
        used.add(canvas)
        for example in batch:
            own = canvas_of(*example.label.shape)
            assert own[0] <= canvas[0]
            assert own[1] <= canvas[1]
            vain[own] += canvas[0] * canvas[1] - own[0] * own[1] if limit(own) == count == 1 else 0
            seen.append(example.name)
    assert sorted(seen) == sorted(example.name for example in members)
    own = {canvas_of(*example.label.shape) for example in members}
    assert used <= own
    assert len(used) < len(own)
    assert max(vain.values()) <= WASTE


def test_a_canvas_borrows_a_program_until_that_has_cost_as_much_as_one_of_its_own():
    times = WASTE // (512 * (512 - 384))  # pixels lost on each
    sizes = [(500, 500), *[(375, 500)] * (times + 2), (500, 375), (600, 500), (500, 375)]
    canvases = [canvas for canvas, _ in _batches((blank("", *size) for size in sizes), lambda canvas: 1)]
    borrowed, own = [(512, 512)] * times, [(384, 512)] * 2
    assert canvases == [(512, 512), *borrowed, *own, (512, 512), (640, 512), (512, 512)]


def test_what_is_left_over_is_computed_together(monkeypatch):
    monkeypatch.setattr("fcn_jax.inference.evaluate.WASTE", AREA)
    sizes = [(384, 512)] * 5 + [(32, 32), (512, 384), (512, 512), (320, 512), (32, 512)]
    batches = list(_batches((blank(f"{h}x{w}", h, w) for h, w in sizes), lambda canvas: 4))
    assert [(canvas, [example.name for example in batch]) for canvas, batch in batches] == [
        ((384, 512), ["384x512"] * 4),
        ((512, 512), ["512x512", "384x512", "512x384", "320x512"]),
        ((32, 512), ["32x512", "32x32"]),  # 4 x 352 x 512 pixels on the first canvas would be too many
    ]


def test_scoring_goes_on_while_the_next_batch_computes():
    """The first image is shown only once the second batch is under way, and that one waits for nothing else."""
    shown, begun = threading.Event(), []

    def forward(variables, batch):
        begun.append(batch.label.shape)
        if len(begun) == 3:
            assert shown.wait(10)
        return jnp.zeros(batch.label.shape, jnp.uint8), jnp.zeros(()), jnp.zeros(())

    members = [blank(f"{i}", 20, 20) for i in range(40)]
    result = evaluate(forward, {}, members, 1, 8, show=lambda *_: shown.set())
    assert len(begun) == 5
    assert result.confusion.tolist() == [[40 * 400]]


def blank(name: str, height: int, width: int) -> Example:
    return Example(name, np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8))


def test_no_more_programs_are_compiled_than_there_are_canvases():
    model, variables = network()
    forward = make_forward(model, InputConfig())
    for _ in range(2):
        result = evaluate(forward, variables, examples(), CLASSES, 8)
    assert forward._cache_size() == result.programs


def test_large_images_come_in_smaller_batches(monkeypatch):
    model, variables = network()
    monkeypatch.setattr(module, "AREA", 32 * 32)
    forward, shapes = make_forward(model, InputConfig()), []

    def noted(variables, batch):
        shapes.append(batch.label.shape)
        return forward(variables, batch)

    results = {e.name: prediction for e, prediction, _, _ in segment(noted, variables, examples(), 32)}
    monkeypatch.undo()
    for example, prediction, _, _ in segment(forward, variables, examples(), 32):
        np.testing.assert_array_equal(results[example.name], prediction)
    # 32 images of up to 32 x 32 pixels, fewer of more, and always a multiple of the eight devices.
    assert {count for count, *_ in shapes} > {8}
    assert all(count == max(32 * 1024 // max(1024, h * w) // 8, 1) * 8 for count, h, w in shapes)


def test_canvases_are_few_and_little_larger():
    sides = {side: canvas_of(side, 1)[0] for side in (*range(1, 1025), 1500, 2048, 4000)}
    assert all(canvas >= side for side, canvas in sides.items())
    assert all(canvas <= max(32, side * 1.25 + 32 * (side < 128)) for side, canvas in sides.items())
    assert len({canvas for side, canvas in sides.items() if side <= 1024}) == 16
    assert canvas_of(375, 500) == (384, 512)
    assert canvas_of(500, 333) == (512, 384)


def test_the_table_and_the_json_say_what_was_counted():
    model, variables = network()
    result = evaluate(make_forward(model, InputConfig()), variables, examples(), CLASSES, 8)
    names = ("sky", "road", "car", "unseen")
    text = table(result, names)
    for name, iu in zip(names, result.metrics.per_class_iu, strict=True):
        assert any(line.startswith(name) and f"{100 * iu:.2f}" in line for line in text.splitlines())
    assert f"{100 * result.metrics.mean_iu:.2f}" in text
    stored = to_json(result, names)
    assert stored["num_pixels"] == sum((example.label != 255).sum() for example in examples())
    assert stored["class_names"] == names
    assert set(stored) == {
        "loss", "pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu", "per_class_iu",
        "per_class_accuracy", "num_examples", "num_pixels", "class_names", "confusion",
    }  # fmt: skip


def test_absent_classes_are_counted_in_the_table():
    model, variables = network()
    only_void = [example._replace(label=np.full_like(example.label, 255)) for example in examples()[:2]]
    result = evaluate(make_forward(model, InputConfig()), variables, only_void, CLASSES, 8)
    assert "4 classes are in neither truth nor prediction" in table(result, ("a", "b", "c", "d"))
    assert np.isnan(result.metrics.mean_iu)
    assert np.isnan(result.loss)
