"""Labels of colours, against a loop over the pixels."""

from collections import Counter

import numpy as np
import pytest

from fcn_jax.data.colour_table import match_colours

TABLE = {(0, 0, 0): 255, (255, 255, 255): 7, (1, 0, 0): 0, (0, 1, 0): 1, (0, 0, 1): 2, (200, 100, 50): 3}
OTHERS = [(0, 1, 1), (255, 255, 254), (50, 100, 200)]


@pytest.mark.parametrize("height", [1, 600])  # above 256 rows it is looked up in parts
@pytest.mark.parametrize("others", [[], OTHERS])
def test_labels_and_counts(height, others):
    colours = [*TABLE, *others]
    places = np.random.default_rng(0).integers(0, len(colours), (height, 13))
    image = np.array(colours, np.uint8)[places]
    labels, unknown = match_colours(image, TABLE)
    expected: Counter = Counter()
    for row, got in zip(image.tolist(), labels.tolist(), strict=True):
        for colour, label in zip(map(tuple, row), got, strict=True):
            if colour in TABLE:
                assert label == TABLE[colour]
            else:
                expected[colour] += 1
    assert unknown == expected
    assert labels.dtype == np.uint8
    assert bool(unknown) == bool(others)
