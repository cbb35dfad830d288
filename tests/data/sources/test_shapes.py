"""The drawn data set: its labels, and that neither colour nor size depends on the class."""

import numpy as np
import pytest
from scipy import ndimage, stats

from fcn_jax.data.dataset import prepare
from fcn_jax.data.sources import shapes
from fcn_jax.errors import InputError

NAMES = ("background", "disc", "square", "triangle", "star", "ring", "cross")
VOID = 255
TRAIN, VAL = range(350), range(1500, 1700)


@pytest.fixture(scope="module")
def train():
    return [shapes.draw(0, i) for i in TRAIN]


@pytest.fixture(scope="module")
def val():
    return [shapes.draw(0, i) for i in VAL]


def mean_iu(truth, prediction):
    scores = []
    for k in range(len(NAMES)):
        both = np.sum((truth == k) & (prediction == k))
        scores.append(both / (np.sum(truth == k) + np.sum((prediction == k) & (truth != VOID)) - both))
    return np.mean(scores)


def test_same_arguments_same_image(train):
    for index in (0, 7):
        for one, two in zip(train[index], shapes.draw(0, index), strict=True):
            np.testing.assert_array_equal(one, two)
    images = [*train[:50], *(shapes.draw(1, i) for i in range(50))]
    assert len({image.tobytes() for image, _ in images}) == 100


def test_arrays(train):
    sizes = np.array([label.shape for _, label in train])
    assert sizes.min() == 72
    assert sizes.max() == 96
    assert np.all(sizes[:, 0] != sizes[:, 1])
    for image, label in train:
        assert image.shape == (*label.shape, 3)
        assert image.dtype == label.dtype == np.uint8
    assert np.array_equal(np.unique(np.concatenate([label.ravel() for _, label in train])), [*range(7), VOID])


def test_evaluation_compiles_once(train):
    from fcn_jax.inference.tiles import choose_canvas

    assert {choose_canvas(*label.shape) for _, label in train} == {(96, 96)}


@pytest.mark.parametrize(("name", "tips"), [("square", 4), ("triangle", 3), ("star", 5), ("cross", 8)])
def test_outlines_with_tips(name, tips):
    """Counts how often a circle just inside the farthest point enters the outline."""
    radius, angle = np.meshgrid(
        np.linspace(0.3, 1.2, 300, dtype=np.float32), np.linspace(0, 2 * np.pi, 1000, dtype=np.float32), indexing="ij"
    )
    inside = shapes.OUTLINES[name](radius * np.cos(angle), radius * np.sin(angle)) < 0
    farthest = np.flatnonzero(inside.any(axis=1))[-1]
    assert radius[farthest, 0] < 1
    near = inside[farthest - 10]
    assert np.sum(near[1:] & ~near[:-1]) == tips


@pytest.mark.parametrize("name", NAMES[1:])
def test_outlines_have_area_1_and_give_distances(name):
    step = 0.004
    y, x = np.mgrid[-1:1:step, -1:1:step].astype(np.float32)
    distance = shapes.OUTLINES[name](x, y)
    assert np.sum(distance < 0) * step**2 == pytest.approx(1, abs=0.01)
    across, down = np.diff(distance, axis=1)[:-1] / step, np.diff(distance, axis=0)[:, :-1] / step
    assert max(abs(across).max(), abs(down).max()) < 1.001  # never farther than it is
    assert np.median(np.hypot(across, down)) == pytest.approx(1, abs=1e-3)
    assert (distance[250, 250] > 0) == (name == "ring")  # its hole is background


def test_void_border_is_closed_and_thin(train):
    void = total = 0
    for _, label in train[:60]:
        height, width = label.shape
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
            one = label[: height - down, max(0, -right) : width - max(0, right)]
            two = label[down:, max(0, right) : width + min(0, right)]
            assert np.all((one == two) | (one == VOID) | (two == VOID))
        depth = ndimage.distance_transform_cdt(np.pad(label == VOID, 1), "chessboard")
        assert depth.max() <= 4  # a few borders may run together
        void += np.sum(label == VOID)
        total += label.size
        assert ndimage.label(label == VOID, np.ones((3, 3)))[0].max() > 0
    assert 0.08 < void / total < 0.16


def test_labels_lie_where_the_objects_are(monkeypatch):
    """Without pattern and noise a labelled region has one colour, so no label reaches under another object."""
    monkeypatch.setattr(shapes, "AMPLITUDE", (0.0, 0.0))
    monkeypatch.setattr(shapes, "NOISE", (0.0, 0.0))
    hidden = 0
    for index in range(60):
        image, label = shapes.draw(3, index)
        assert len(np.unique(image[label == 0], axis=0)) == 1
        colours = [np.unique(image[label == 0], axis=0)[0]]
        for k in range(1, 7):
            regions, count = ndimage.label(label == k)
            for region in range(1, count + 1):
                colour = np.unique(image[regions == region], axis=0)
                assert len(colour) == 1
                hidden += any(np.array_equal(colour[0], seen) for seen in colours[1:])
                assert not np.array_equal(colour[0], colours[0])
                colours.append(colour[0])
    assert hidden > 0  # objects do lie upon others, and cut some of them in two


def test_classes_are_balanced(train):
    pixels = sum(np.bincount(label.ravel(), minlength=256) for _, label in train)[:7]
    share = pixels / pixels.sum()
    assert 0.4 < share[0] < 0.6
    assert share[1:].min() > 0.7 * share[1:].mean()
    assert share[1:].max() < 1.3 * share[1:].mean()


def colours_only(train, val, weighted):
    """The best guess from the colour of a pixel: by the posterior, or by the likelihood, which favours no class."""
    edges = np.zeros((16, 16, 16, len(NAMES)))
    for image, label in train:
        for k in range(len(NAMES)):
            np.add.at(edges[..., k], tuple((image[label == k] // 16).T), 1)
    if not weighted:
        edges = (edges + 1) / edges.sum(axis=(0, 1, 2))
    best = edges.argmax(axis=-1)
    truth = np.concatenate([label.ravel() for _, label in val])
    guess = np.concatenate([best[tuple(np.moveaxis(image // 16, -1, 0))].ravel() for image, _ in val])
    return mean_iu(truth, guess)


@pytest.mark.parametrize("weighted", [True, False])
def test_colour_does_not_tell_the_class(train, val, weighted):
    assert colours_only(train, val, weighted) < 0.2
    given_away = [[np.stack([label * 30] * 3, axis=-1), label] for _, label in train[:20]]
    assert colours_only(given_away, given_away, weighted) > 0.99  # so the guesser can guess


def objects(examples):
    """Of every visible object: its class, its mean colour and its area, and where its pixels are."""
    found = []
    for i, (image, label) in enumerate(examples):
        for k in range(1, len(NAMES)):
            regions, count = ndimage.label(label == k)
            for region in range(1, count + 1):
                where = regions == region
                if where.sum() >= 30:
                    found.append((k, *(image[where].mean(axis=0) / 64), np.log(where.sum()), i))
    return np.array(found)


def test_colour_and_size_of_a_whole_object_do_not_tell_the_class(train, val):
    """Even with perfect masks: the 25 most alike training objects vote, and background is given for free."""
    known, asked = objects(train), objects(val)
    apart = np.linalg.norm(asked[:, None, 1:5] - known[None, :, 1:5], axis=-1)
    votes = known[np.argsort(apart, axis=1)[:, :25], 0].astype(int)
    guess = np.array([np.bincount(vote, minlength=7)[1:].argmax() + 1 for vote in votes])
    right = guess == asked[:, 0]
    assert len(right) > 500
    assert right.mean() < 0.27  # chance is 1 in 6
    area = np.exp(asked[:, 4])
    scores = [1.0]
    for k in range(1, 7):
        truth = asked[:, 0] == k
        scores.append(area[truth & right].sum() / area[truth | (guess == k)].sum())
    assert np.mean(scores) < 0.35


def test_classes_have_the_same_areas(monkeypatch):
    monkeypatch.setattr(shapes, "VOID", 0.0)  # the border takes more from a long outline, in the label alone
    found = objects([shapes.draw(5, i) for i in range(500)])
    for k in range(1, 7):
        mine, others = found[found[:, 0] == k, 4], found[found[:, 0] != k, 4]
        assert stats.ks_2samp(mine, others).statistic < 0.16
        assert np.exp(mine.mean() - others.mean()) == pytest.approx(1, abs=0.15)


def test_prepare(tmp_path, monkeypatch):
    assert {split: len(indices) for split, indices in shapes.SPLITS.items()} == {"train": 1500, "val": 200}
    assert not set(shapes.SPLITS["train"]) & set(shapes.SPLITS["val"])
    monkeypatch.setattr(shapes, "SPLITS", {"train": range(4), "val": range(1500, 1503)})
    data = prepare("shapes", cache=tmp_path)
    assert data.class_names == NAMES
    assert data.splits == {"train": 4, "val": 3}
    for split, first in (("train", 0), ("val", 1500)):
        for i, example in enumerate(data.source(split)):
            image, label = shapes.draw(0, first + i)
            assert example.name == f"{split}_{first + i:04}"
            np.testing.assert_array_equal(example.image, image)
            np.testing.assert_array_equal(example.label, label)
    assert prepare("shapes", cache=tmp_path).folder == data.folder
    with pytest.raises(InputError, match="shapes is drawn and reads nothing"):
        prepare("shapes", tmp_path)
