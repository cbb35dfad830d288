"""Run lengths, compared bit for bit with COCO's own program."""

import numpy as np
import pytest
from pycocotools import mask as coco_masks

from fcn_jax.data.run_lengths import decode_run_lengths
from fcn_jax.errors import InputError

# pycocotools makes arrays in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
RNG = np.random.default_rng(0)


def draw_masks():
    """Masks of noise, of large blocks, whose run lengths have several characters, and of one value."""
    for height, width in ((1, 1), (7, 5), (40, 61), (300, 257)):
        yield RNG.random((height, width)) < 0.5
        yield np.zeros((height, width), bool)
        yield np.ones((height, width), bool)
        block = np.zeros((height, width), bool)
        block[height // 3 :, width // 4 : width // 2 + 1] = True
        yield block


def count_runs(mask):
    """Count pixels in columns, by a loop: outside, inside, outside and so on."""
    counts, value = [0], False
    for pixel in mask.ravel(order="F").tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def test_equals_coco():
    for mask in draw_masks():
        packed = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
        decoded = decode_run_lengths(packed["counts"].decode(), *mask.shape)
        np.testing.assert_array_equal(decoded, coco_masks.decode(packed).astype(bool))
        np.testing.assert_array_equal(decoded, mask)
        counts = count_runs(mask)
        np.testing.assert_array_equal(decode_run_lengths(counts, *mask.shape), mask)
        # COCO's program makes the same text of these counts.
        assert coco_masks.frPyObjects({"size": list(mask.shape), "counts": counts}, *mask.shape) == packed


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ([2, 3], "that are not the counts of 3x2 pixels"),
        ([2, 5], "that are not the counts"),
        ([7, -1], "that are not the counts"),
        ([2.0, 4.0], "that are not the counts"),
        ([True, 5], "that are not the counts"),
        ([10**400], "that are not the counts"),
        (["6"], "that are not the counts"),
        ([], "that are not the counts"),
        ("", "that are not the counts"),
        ("6 ", "with ' ', which has no meaning there"),
        ("6é", "with 'é', which has no meaning there"),
        ("6P", "that end within a number"),
        ("o" * 50, "with 'o', which has no meaning there"),
    ],
)
def test_counts_that_are_wrong(counts, says):
    with pytest.raises(InputError, match=says):
        decode_run_lengths(counts, 2, 3)
    assert decode_run_lengths("6", 2, 3).tolist() == [[False] * 3] * 2
