"""The parts of a network's streams, against the network itself and a loop; the figures' numbers against counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_loops import conv_transpose_loop
from random_network import draw_network_variables, network
from random_variables import draw_images
from small_runs import NORMED

from fcn_jax.data.dataset import Example
from fcn_jax.inference.explain.figure import format_percent
from fcn_jax.inference.explain.streams import STREAMS, draw_streams, find_changes, list_streams, weigh_streams
from fcn_jax.models.dilated import DilatedFCN
from fcn_jax.models.fcn import FCN8s, FCN16s, FCN32s, alignment

HEIGHT, WIDTH = 45, 58
SIZE = np.array([[HEIGHT, WIDTH]], np.int32)
PALETTE = np.array([[0, 0, 0], [200, 10, 30], [0, 255, 1], [9, 8, 255]], np.uint8)
NAMES = ("ground", "disc", "square", "star")


@functools.cache
def parts() -> np.ndarray:
    """The part of each stream, then all of them, of an image on a larger canvas."""
    model, variables = network()
    weights = jnp.concatenate([jnp.eye(3), jnp.ones((1, 3))])
    canvas = np.pad(draw_images(1, HEIGHT, WIDTH), ((0, 0), (0, 64 - HEIGHT), (0, 64 - WIDTH), (0, 0)))
    run = jax.jit(lambda variables, *arrays: weigh_streams(model, variables, *arrays))
    return np.asarray(run(variables, canvas, SIZE, weights))[:, :, :HEIGHT, :WIDTH]


@functools.cache
def alone() -> tuple[np.ndarray, dict]:
    """The logits of the image without a canvas, and the maps that the network computed them from."""
    model, variables = network()
    wanted = {("backbone",), *((name,) for name in STREAMS)}

    def run(variables, images):
        return model.apply(
            variables,
            images,
            mutable=["intermediates"],
            capture_intermediates=lambda module, method: module.path in wanted and method == "__call__",
        )

    logits, state = jax.jit(run)(variables, draw_images(1, HEIGHT, WIDTH))
    return np.asarray(logits), state["intermediates"]


def test_the_parts_add_up_to_the_logits():
    logits, _ = alone()
    *streams, together = parts()
    largest = np.abs(logits).max()
    assert all(np.abs(part).max() > 0.05 * largest for part in streams)
    np.testing.assert_allclose(np.sum(streams, axis=0, dtype=np.float64), logits, atol=1e-5 * largest)
    np.testing.assert_allclose(together, logits, atol=1e-5 * largest)


def test_a_part_is_what_the_kernels_make_of_its_scores():
    """Compared with transposed convolutions as loops, from the outputs of the score layers on."""
    _, variables = network()
    logits, found = alone()
    pool3, pool4, top = found["backbone"]["__call__"][0]
    image = pool3.replace(values=draw_images(1, HEIGHT, WIDTH), stride=1, offset=0.0)
    steps = [("upscore2", top, pool4), ("upscore_pool4", pool4, pool3), ("upscore8", pool3, image)]
    for index, name in enumerate(STREAMS):
        values = found[name]["__call__"][0]
        for layer, x, to in steps[index:]:
            _, factor, crops = alignment(x, to)
            values = conv_transpose_loop(values, variables["params"][layer]["kernel"], (factor, factor), crops)
        np.testing.assert_allclose(parts()[index], values, atol=1e-5 * np.abs(logits).max())


def test_streams_of_each_network():
    assert list_streams(FCN32s(3)) == ("score_fr",)
    assert list_streams(FCN16s(3)) == ("score_fr", "score_pool4")
    assert list_streams(FCN8s(3)) == ("score_fr", "score_pool4", "score_pool3")
    assert list_streams(DilatedFCN(3)) == ()


def test_a_network_without_streams_gives_its_logits():
    model = DilatedFCN(3, NORMED)
    variables, images = draw_network_variables(model), draw_images(1, 32, 32)
    size = np.array([[32, 32]], np.int32)
    (got,) = jax.jit(lambda *arrays: weigh_streams(model, *arrays, jnp.ones((1, 0))))(variables, images, size)
    want = jax.jit(model.apply)(variables, images, size)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def drawn() -> tuple[list[Example], list[np.ndarray]]:
    """Two examples, and class maps of one, two and three streams for each."""
    generator = np.random.default_rng(0)
    examples, maps = [], []
    for index, size in enumerate([(20, 30), (24, 30)]):
        label = generator.choice(np.array([0, 1, 2, 255], np.uint8), size)
        examples.append(Example(str(index), generator.integers(0, 256, (*size, 3), np.uint8), label))
        maps.append(generator.integers(0, 4, (3, *size)).astype(np.uint8))
    return examples, maps


def test_find_changes():
    (example, _), (maps, _) = drawn()
    label, (before, after, _) = example.label, maps
    right, wrong, other = find_changes(label, before, after)
    for place in np.ndindex(label.shape):
        changed = label[place] != 255 and before[place] != after[place]
        assert right[place] == (changed and after[place] == label[place])
        assert wrong[place] == (changed and before[place] == label[place])
        assert other[place] == (changed and label[place] not in (before[place], after[place]))


def test_the_captions_have_the_scores_and_the_changes():
    examples, maps = drawn()
    detail, changes = draw_streams(FCN8s(4), examples, maps, NAMES, PALETTE)
    label = np.concatenate([e.label.ravel() for e in examples])
    for index in range(3):
        prediction = np.concatenate([m[index].ravel() for m in maps])[label != 255]
        truth = label[label != 255]
        ratios = [np.sum((truth == c) & (prediction == c)) / np.sum((truth == c) | (prediction == c)) for c in range(4)]
        assert f"{format_percent(float(np.mean(ratios)))} with {STREAMS[index]}" in detail.caption
    before, after = (np.concatenate([m[index].ravel() for m in maps]) for index in (1, 2))
    known = label != 255
    corrected = np.sum(known & (before != label) & (after == label)) / np.sum(known)
    assert f"score_pool3 corrects {format_percent(float(corrected))}, spoils" in changes.caption


def test_changes_are_drawn_over_the_image():
    (example, _), (maps, _) = drawn()
    maps[:] = maps[:1]
    (_, still) = draw_streams(FCN16s(4), [example], [maps[:2]], NAMES, PALETTE)
    maps[1, 3:5, 7:9] = (maps[0, 3:5, 7:9] + 1) % 4
    (_, changed) = draw_streams(FCN16s(4), [example], [maps[:2]], NAMES, PALETTE)
    assert still.picture.shape == changed.picture.shape
    rows, columns = np.nonzero((still.picture != changed.picture).any(axis=-1))
    scale = 280 / 30
    assert 0 < np.ptp(rows) <= 2 * scale + 1
    assert 0 < np.ptp(columns) <= 2 * scale + 1


@pytest.mark.parametrize("model", [FCN32s(4), DilatedFCN(4)])
def test_a_single_stream_has_no_figure(model):
    examples, maps = drawn()
    assert draw_streams(model, examples, [m[:1] for m in maps], NAMES, PALETTE) == []


def test_images_without_labels_have_no_scores():
    (example, _), (maps, _) = drawn()
    example.label[:] = 255
    detail, changes = draw_streams(FCN8s(4), [example], [maps], NAMES, PALETTE)
    assert "– with score_fr alone" in detail.caption
    assert "score_pool4 corrects –" in changes.caption
