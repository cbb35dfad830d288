"""Evaluation: exact at each image's own size, nothing dropped, few programs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import evaluate as module
from fcn_jax.augment import normalise
from fcn_jax.backbones.resnet import ResNet
from fcn_jax.config import InputConfig
from fcn_jax.datasets import Example
from fcn_jax.evaluate import canvas_of, evaluate, make_forward, segment, table, to_json
from fcn_jax.fcn import FCN8s

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
    assert result.programs == len({canvas_of(*example.label.shape) for example in examples()})


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
