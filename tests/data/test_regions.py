"""Regions of an image, compared with a test of every pixel's centre, with COCO's program and with Pillow."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_masks

from fcn_jax.data.regions import Region, crop_mask, draw_regions, fill_disc, fill_polygons

HEIGHT, WIDTH = 30, 40
# pycocotools makes arrays in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def fill(*polygons, height=HEIGHT, width=WIDTH):
    region = fill_polygons([np.array(points, np.float64).reshape(-1, 2) for points in polygons], height, width)
    return draw_regions([(1, region)], (height, width)) == 1


def is_inside(x, y, points):
    """Count how often a ray to the left crosses the outline."""
    crossings = 0
    for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True):
        if (y1 <= y) != (y2 <= y):
            crossings += x1 + (y - y1) * (x2 - x1) / (y2 - y1) <= x
    return crossings % 2 == 1


def draw_stars(count):
    """Outlines of random corners in the order of their angles, some beyond the image and some at whole pixels."""
    rng = np.random.default_rng(0)
    for number in range(count):
        corners = rng.integers(3, 10)
        angles, radii = np.sort(rng.uniform(0, 2 * np.pi, corners)), rng.uniform(3, 20, (corners, 1))
        points = rng.uniform([0, 0], [WIDTH, HEIGHT]) + radii * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        yield points.round() if number % 2 else points


def test_equals_a_test_of_every_centre():
    for points in list(draw_stars(60))[::2]:  # without corners at whole pixels, whose edges meet centres
        expected = [[is_inside(c + 0.5, r + 0.5, points.tolist()) for c in range(WIDTH)] for r in range(HEIGHT)]
        np.testing.assert_array_equal(fill(points), expected)


def measure_distances(mask, points):
    """Compute the distance of the centres of a mask's pixels to an outline."""
    rows, columns = np.nonzero(mask)
    centres = np.stack([columns + 0.5, rows + 0.5], axis=1)[:, None]
    edges = np.roll(points, -1, axis=0) - points
    share = (((centres - points) * edges).sum(-1) / (edges**2).sum(-1).clip(1e-9)).clip(0, 1)
    return np.linalg.norm(points + share[..., None] * edges - centres, axis=-1).min(axis=1)


def test_differs_from_coco_at_the_outline_only():
    """COCO's program rounds points to a fifth of a pixel; labelme draws with Pillow, which adds the whole outline."""
    for points in draw_stars(100):
        inside = (points >= 0).all() and (points <= [WIDTH, HEIGHT]).all()
        if not inside:  # COCO's program moves what is beyond the image to its border
            continue
        ours = fill(points)
        theirs = coco_masks.decode(coco_masks.frPyObjects([points.ravel().tolist()], HEIGHT, WIDTH))[..., 0] == 1
        assert measure_distances(ours != theirs, points).max(initial=0) < 0.25
        image = Image.new("1", (WIDTH, HEIGHT))
        ImageDraw.Draw(image).polygon([tuple(point) for point in points.tolist()], outline=1, fill=1)
        assert measure_distances(ours != np.asarray(image), points).max(initial=0) < 1.5


def test_whole_pixels_equal_coco():
    points = [3, 2, 20, 2, 20, 11, 3, 11]
    ours = fill(points)
    assert ours.sum() == 17 * 9
    theirs = coco_masks.decode(coco_masks.frPyObjects([points], HEIGHT, WIDTH))[..., 0] == 1
    np.testing.assert_array_equal(ours, theirs)


def test_polygons_of_a_region_are_added_up():
    square = np.array([[2, 2], [10, 2], [10, 10], [2, 10]])
    np.testing.assert_array_equal(fill(square, square + 4), fill(square) | fill(square + 4))


def test_an_outline_that_crosses_or_touches_itself_has_holes():
    frame = [
        0,
        0,
        9,
        0,
        9,
        9,
        0,
        9,
        0,
        0,
        3,
        3,
        3,
        6,
        6,
        6,
        6,
        3,
        3,
        3,
    ]  # the cut from (0, 0) to (3, 3) is passed twice
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[:9, :9] = True
    expected[3:6, 3:6] = False
    np.testing.assert_array_equal(fill(frame), expected)


def test_neighbours_share_no_pixel_and_leave_none_out():
    left, right = [0, 0, 13.37, 0, 20.5, 30, 0, 30], [13.37, 0, 40, 0, 40, 30, 20.5, 30]
    assert not (fill(left) & fill(right)).any()
    assert (fill(left) | fill(right)).all()


@pytest.mark.parametrize(
    ("points", "count"),
    [
        ([-50, -50, 90, -50, 90, 90, -50, 90], HEIGHT * WIDTH),  # all around the image
        ([-1e8, 5, 1e8, 5, 1e8, 7, -1e8, 7], 2 * WIDTH),
        ([50, 5, 60, 5, 60, 9], 0),  # beyond it
        ([-9, -9, -5, -9, -5, -5], 0),
        ([3, 3, 9, 9], 0),  # fewer than three points
        ([3, 3], 0),
        ([], 0),
        ([5, 5, 5, 5, 5, 5], 0),
    ],
)
def test_outlines_beyond_the_image_and_without_area(points, count):
    assert fill(points).sum() == count


def test_neighbours_agree_on_pixels_of_their_edge():
    """An edge through centres of pixels, in polygons whose first rows and directions differ."""
    for points in list(draw_stars(60))[1::2]:
        a, b = points[:2]
        left, right = min(a[0], b[0]) - 30, max(a[0], b[0]) + 30
        first, second = fill([*a, *b, left, b[1], left, a[1]]), fill([*b, *a, right, a[1], right, b[1]])
        assert not (first & second).any()
        low, high = sorted((a[1], b[1]))
        rows = np.arange(HEIGHT) + 0.5
        np.testing.assert_array_equal((first | second)[:, 15:25].any(axis=1), (low <= rows) & (rows < high))


@pytest.mark.parametrize(
    ("x", "y", "radius"), [(20.0, 15.0, 9.3), (-3.0, 28.5, 12.0), (39.5, 0.5, 0.6), (5.0, 5.0, 0.0), (90.0, 9.0, 3.0)]
)
def test_discs(x, y, radius):
    ours = draw_regions([(1, fill_disc(x, y, radius, HEIGHT, WIDTH))], (HEIGHT, WIDTH))
    expected = [[(c + 0.5 - x) ** 2 + (r + 0.5 - y) ** 2 < radius**2 for c in range(WIDTH)] for r in range(HEIGHT)]
    np.testing.assert_array_equal(ours == 1, expected)


def test_no_polygon():
    assert fill_polygons([], 3, 4).inside.shape == (0, 0)


def test_later_regions_cover_earlier_ones():
    block = np.ones((2, 3), bool)
    mask = draw_regions([(5, Region(0, 0, block)), (6, Region(1, 1, block)), (0, Region(2, 3, block[:1, :1]))], (3, 4))
    assert mask.tolist() == [[5, 5, 5, 0], [5, 6, 6, 6], [0, 6, 6, 0]]
    assert mask.dtype == np.uint8


def test_masks_are_cropped():
    mask = np.zeros((5, 6), bool)
    assert crop_mask(mask).inside.size == 0
    mask[1, 4] = mask[3, 2] = True
    top, left, inside = crop_mask(mask)
    assert (top, left, inside.shape) == (1, 2, (3, 3))
    np.testing.assert_array_equal(draw_regions([(1, crop_mask(mask))], mask.shape) == 1, mask)
