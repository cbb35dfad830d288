"""Class maps: exact at each image's own size, nothing dropped, few programs."""

import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from random_network import CLASSES, assert_class_map, blank, examples, logits_alone, network

from fcn_jax.config import InputConfig
from fcn_jax.data.augment import normalise
from fcn_jax.data.dataset import Example
from fcn_jax.inference import segment as module
from fcn_jax.inference.segment import (
    AREA,
    WASTE,
    _make_batches,
    _share_canvas,
    default_batch_size,
    limit_batch_size,
    make_forward,
    make_unlabelled,
    replicate_locally,
    segment,
)
from fcn_jax.inference.tiles import Tile, Tiling, choose_canvas, cut_image, plan_tiles


@pytest.mark.parametrize("batch_size", [pytest.param(8, marks=pytest.mark.slow), 16])
def test_class_maps_are_those_of_each_image_alone(batch_size):
    model, variables = network()
    results = list(segment(make_forward(model, InputConfig()), variables, examples(), batch_size))
    assert sorted(result.example.name for result in results) == sorted(example.name for example in examples())
    for result in results:
        assert_class_map(result.class_map, logits_alone()[result.example.name])


def test_without_labels_class_maps_are_the_same_and_the_loss_is_0():
    model, variables = network()
    with_labels = segment(make_forward(model, InputConfig()), variables, examples(), 8)
    without = segment(make_forward(model, InputConfig(), labelled=False), variables, examples(), 8)
    for (example, expected, *_), (same, class_map, loss, pixels, _) in zip(with_labels, without, strict=True):
        assert example is same
        np.testing.assert_array_equal(class_map, expected)
        assert loss == pixels == 0


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def test_probabilities_are_the_softmax_of_the_logits_of_each_image_alone():
    model, variables = network()
    forward = make_forward(model, InputConfig(), labelled=False, probabilities=True)
    results = list(segment(forward, variables, examples(), 8))
    assert len(results) == len(examples())
    for example, class_map, _, _, probabilities in results:
        logits = logits_alone()[example.name]
        assert_class_map(class_map, logits)
        assert probabilities.dtype == np.float16
        assert probabilities.flags.owndata
        # Logits differ by 1e-4 at most, and float16 has steps of up to 5e-4 below 1.
        np.testing.assert_allclose(probabilities, softmax(logits), atol=1e-3)


def test_no_probabilities_unless_asked_for():
    model, variables = network()
    forward = make_forward(model, InputConfig())
    assert all(result.probabilities is None for result in segment(forward, variables, examples()[:2], 8))


def test_pixels_are_counted_once_per_batch():
    model, variables = network()
    results = list(segment(make_forward(model, InputConfig()), variables, examples(), 8))
    labelled = sum(int((example.label != 255).sum()) for example in examples())
    assert sum(result.pixels for result in results) == labelled
    assert sum(result.pixels > 0 for result in results) == 2  # 11 images in batches of 8


def test_unlabelled_images_are_all_void():
    image = examples()[0].image
    name, same, label = make_unlabelled("a", image)
    assert name == "a"
    assert same is image
    assert label.shape == image.shape[:2]
    assert (label == 255).all()


def test_class_maps_and_losses_of_tiles_are_those_of_the_whole_images():
    model, variables = network()
    tiling = plan_tiles(model, 32)
    generator = np.random.default_rng(3)
    large = []
    for name, height, width in (("square", 301, 250), ("wide", 40, 1900)):
        image = generator.integers(0, 256, (height, width, 3), np.uint8)
        large.append(Example(name, image, generator.integers(0, CLASSES, (height, width)).astype(np.uint8)))
    members = [large[0], *examples()[:3], large[1]]
    shapes = set()

    def record_shape(variables, batch):
        shapes.add(batch.label.shape[1:])
        return forward(variables, batch)

    forward = make_forward(model, InputConfig(), probabilities=True)
    tiled = {result.example.name: result for result in segment(record_shape, variables, members, 8, tiling)}
    whole = {result.example.name: result for result in segment(forward, variables, members, 8)}
    assert tiled.keys() == whole.keys() == {example.name for example in members}
    assert max(map(math.prod, shapes)) <= tiling.canvas_side**2 < 301 * 250
    apply = jax.jit(model.apply)
    for example in large:
        logits = np.asarray(apply(variables, normalise(jnp.asarray(example.image)[None], InputConfig()))[0])
        assert_class_map(tiled[example.name].class_map, logits)
        np.testing.assert_allclose(tiled[example.name].probabilities, softmax(logits), atol=1e-3)
    for kind in ("loss", "pixels"):
        sums = [sum(getattr(result, kind) for result in results.values()) for results in (tiled, whole)]
        np.testing.assert_allclose(*sums, rtol=1e-5)


def test_replicated_variables_are_on_all_devices_and_copied_once():
    variables = {"on one": jnp.arange(3.0), "on four": jax.device_put(jnp.arange(2.0), on_devices(4))}
    copied = replicate_locally(variables)
    for name, array in copied.items():
        assert array.sharding.device_set == set(jax.local_devices())
        np.testing.assert_array_equal(array, variables[name])
    again = replicate_locally(copied)
    assert all(again[name] is copied[name] for name in copied)


def on_devices(count: int) -> NamedSharding:
    return NamedSharding(Mesh(np.array(jax.devices()[:count]), ("data",)), PartitionSpec())


def blank_tiles(*sizes: tuple[int, int]) -> list[Tile]:
    """A tile of each whole image."""
    return [tile for i, (h, w) in enumerate(sizes) for tile in cut_image(i, blank(f"{h}x{w}", h, w), None)]


@pytest.mark.parametrize("count", [1, 4])
def test_batches_hold_every_image_once_on_a_canvas_with_room_for_it(count):
    generator = np.random.default_rng(count)
    members = blank_tiles(*generator.integers(1, 700, (200, 2)))
    limit = lambda canvas: max(count * AREA // max(AREA, canvas[0] * canvas[1]), 1)  # noqa: E731
    seen, used, vain = [], set(), Counter()
    for canvas, batch in _make_batches(iter(members), limit):
        assert 1 <= len(batch) <= limit(canvas)
        used.add(canvas)
        for example, index, _, own, *_ in batch:
            assert own == choose_canvas(*example.label.shape)
            assert own[0] <= canvas[0]
            assert own[1] <= canvas[1]
            vain[own] += canvas[0] * canvas[1] - own[0] * own[1] if limit(own) == count == 1 else 0
            seen.append(index)
    assert sorted(seen) == list(range(200))
    own = {tile.canvas for tile in members}
    assert used <= own
    assert len(used) < len(own)
    assert max(vain.values()) <= WASTE


def test_a_canvas_uses_a_larger_one_until_that_has_cost_as_much_as_a_program():
    times = WASTE // (512 * (512 - 384))  # each image wastes 512 x 128 pixels
    sizes = [(500, 500), *[(375, 500)] * (times + 2), (500, 375), (600, 500), (500, 375)]
    canvases = [canvas for canvas, _ in _make_batches(blank_tiles(*sizes), lambda canvas: 1)]
    borrowed, own = [(512, 512)] * times, [(384, 512)] * 2
    assert canvases == [(512, 512), *borrowed, *own, (512, 512), (640, 512), (512, 512)]


def test_few_images_of_several_sizes_share_a_canvas():
    sizes = [(500, 400), (375, 500), (281, 500)]  # on canvases of 512x448, 384x512 and 320x512
    assert _share_canvas(sizes) == (512, 512)
    canvases = {canvas for canvas, _ in _make_batches(blank_tiles(*sizes), lambda canvas: 1, (512, 512))}
    assert canvases == {(512, 512)}


@pytest.mark.parametrize("sizes", [[], [(375, 500)], [(375, 500)] * 1000, [(500, 333), (400, 370)] * 5])
def test_a_shared_canvas_is_no_larger_than_needed(sizes):
    own = [choose_canvas(*size) for size in sizes]
    expected = (max(rows for rows, _ in own), max(columns for _, columns in own)) if own else None
    assert _share_canvas(sizes) == expected


def test_a_canvas_is_shared_up_to_the_pixels_that_a_program_is_worth():
    times = WASTE // (512 * (512 - 384))  # each image but the first wastes 512 x 128 pixels
    assert _share_canvas([(500, 500), *[(375, 500)] * times]) == (512, 512)
    assert _share_canvas([(500, 500), *[(375, 500)] * (times + 1)]) is None
    assert _share_canvas([*[(375, 500)] * (times + 1), (500, 500)]) is None


def test_images_that_are_cut_into_tiles_share_no_canvas():
    tiling = Tiling(side=512, margin=64, stride=32)
    assert _share_canvas([(600, 600), (640, 500)], tiling) == (640, 640)
    assert _share_canvas([(641, 641), (600, 600)], tiling) is None  # its canvas would be 768x768
    assert _share_canvas([(300, 1024), (1024, 300)], tiling) is None  # one canvas for both would


@pytest.mark.slow
def test_class_maps_on_a_shared_canvas_are_those_of_each_image_alone():
    model, variables = network()
    sizes = [example.label.shape for example in examples()]
    assert _share_canvas(sizes) is not None
    results = list(segment(make_forward(model, InputConfig()), variables, examples(), 8, sizes=sizes))
    assert len(results) == len(examples())
    for result in results:
        assert_class_map(result.class_map, logits_alone()[result.example.name])


def test_images_whose_tiles_wait_have_a_bounded_number_of_pixels(monkeypatch):
    """Every size has a canvas of its own, and no canvas ever has a batch of tiles."""
    monkeypatch.setattr(module, "HELD", 4 * AREA)
    sizes = [(512, 512), (480, 512), (448, 512), (416, 512), (384, 512), (352, 512), (320, 512), (288, 512)] * 3
    waiting, most, seen = set(), 0, []
    members = blank_tiles(*sizes)

    def draw():
        nonlocal most
        for tile in members:
            waiting.add(tile.index)
            yield tile
            most = max(most, sum(math.prod(sizes[index]) for index in waiting))

    for _, batch in _make_batches(draw(), lambda canvas: 64):
        waiting.difference_update(tile.index for tile in batch)
        seen += [tile.index for tile in batch]
    assert sorted(seen) == list(range(len(sizes)))
    assert most <= 5 * AREA


def test_what_is_left_over_is_computed_together(monkeypatch):
    monkeypatch.setattr(module, "WASTE", AREA)
    sizes = [(384, 512)] * 5 + [(32, 32), (512, 384), (512, 512), (320, 512), (32, 512)]
    batches = list(_make_batches(blank_tiles(*sizes), lambda canvas: 4))
    assert [(canvas, [tile.example.name for tile in batch]) for canvas, batch in batches] == [
        ((384, 512), ["384x512"] * 4),
        ((512, 512), ["512x512", "384x512", "512x384", "320x512"]),
        ((32, 512), ["32x512", "32x32"]),  # 4 x 352 x 512 pixels on the first canvas would be too many
    ]


def test_large_images_come_in_smaller_batches(monkeypatch):
    model, variables = network()
    monkeypatch.setattr(module, "AREA", 32 * 32)
    forward, shapes = make_forward(model, InputConfig()), []

    def record_shape(variables, batch):
        shapes.append(batch.label.shape)
        return forward(variables, batch)

    results = {e.name: class_map for e, class_map, *_ in segment(record_shape, variables, examples(), 32)}
    monkeypatch.undo()
    for example, class_map, *_ in segment(forward, variables, examples(), 32):
        np.testing.assert_array_equal(results[example.name], class_map)
    # 32 images of up to 32 x 32 pixels, fewer of more, and always a multiple of the eight devices.
    assert {count for count, *_ in shapes} > {8}
    assert all(count == max(32 * 1024 // max(1024, h * w) // 8, 1) * 8 for count, h, w in shapes)


@pytest.mark.parametrize(
    ("cpu", "devices", "requested", "expected"),
    [(True, 8, None, 8), (True, 1, None, 1), (False, 4, None, 32), (False, 4, 5, 8), (True, 8, 1, 8), (True, 2, 6, 6)],
)
def test_default_batch_size_is_a_multiple_of_the_devices(monkeypatch, cpu, devices, requested, expected):
    monkeypatch.setattr(module, "is_cpu", lambda: cpu)
    monkeypatch.setattr(module, "count_local_devices", lambda: devices)
    assert default_batch_size(requested) == expected


@pytest.mark.parametrize(
    ("batch_size", "devices", "canvas", "expected"),
    [
        (8, 2, (512, 512), 8),
        (8, 2, (32, 32), 8),
        (8, 2, (1024, 512), 4),
        (8, 2, (1024, 1536), 2),
        (8, 4, (4096, 64), 8),
    ],
)
def test_large_canvases_limit_the_batch(batch_size, devices, canvas, expected):
    assert limit_batch_size(batch_size, devices, canvas) == expected
