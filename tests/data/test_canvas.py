"""Images of several sizes on canvases of one size."""

import numpy as np
import pytest

from fcn_jax.data.canvas import place_on_canvas
from fcn_jax.data.dataset import Example
from fcn_jax.errors import InputError


def test_each_canvas_shows_its_image_from_its_origin_and_is_void_elsewhere():
    generator = np.random.default_rng(0)
    sizes, origins = [(3, 5), (9, 4)], [(0, 0), (2, 1)]
    examples = [
        Example(str(index), generator.integers(0, 256, (*size, 3), np.uint8), np.full(size, index, np.uint8))
        for index, size in enumerate(sizes)
    ]
    batch = place_on_canvas(examples, 3, (6, 5), origins)
    assert batch.image.shape == (3, 6, 5, 3)
    np.testing.assert_array_equal(batch.size, [*sizes, (0, 0)])
    np.testing.assert_array_equal(batch.origin, [*origins, (0, 0)])
    for place, row, column in np.ndindex(3, 6, 5):
        image, label = np.zeros(3), 255
        if place < 2:
            top, left = origins[place]
            if top + row < sizes[place][0] and left + column < sizes[place][1]:
                image, label = examples[place].image[top + row, left + column], place
        np.testing.assert_array_equal(batch.image[place, row, column], image)
        assert batch.label[place, row, column] == label
    assert place_on_canvas(examples, 2, (9, 5)).origin is None


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (
            np.zeros((4, 5, 3), np.float32),
            np.zeros((4, 5), np.uint8),
            "one has an image of float32 and a label of uint8",
        ),
        (
            np.zeros((4, 5, 3), np.uint8),
            np.zeros((4, 5), np.int64),
            "an image of uint8 and a label of int64; they must",
        ),
        (np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint8), r"shape \(4, 5\) and a label of shape \(4, 5\)"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((3, 5), np.uint8), r"\(4, 5, 3\) and a label of shape \(3, 5\); they"),
    ],
)
def test_examples_of_other_types_and_shapes_are_refused(image, label, message):
    with pytest.raises(InputError, match=message):
        place_on_canvas([Example("one", image, label)], 1, (8, 8))
