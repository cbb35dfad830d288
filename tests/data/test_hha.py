"""HHA: against loops with least squares at each pixel, and against scenes whose geometry is known."""

import numpy as np
import pytest
from scipy import ndimage

from fcn_jax.data.hha import NYUD_CAMERA, encode_hha, estimate_gravity, fit_normals
from fcn_jax.errors import InputError

CAMERA = np.array([[30.0, 0.0, 19.5], [0.0, 28.0, 14.5], [0.0, 0.0, 1.0]])
SHAPE = (30, 40)
DOWN = np.array([0.0, 1.0, 0.0])


# ------------------------------------------------------------------------------------------- an independent slow form


def list_points(depth, camera):
    """The points of all pixels in metres, [height, width, 3]."""
    rows, columns = np.indices(depth.shape)
    pixels = np.stack([columns, rows, np.ones_like(rows)])
    return np.einsum("yx,ij,jyx->yxi", depth, np.linalg.inv(camera), pixels)


def fit_by_loops(points, measured, radius):
    """Normals as the authors' program has them: n·(x/z, y/z, 1) = 1/z in the sense of least squares, away from us."""
    normals = np.full(points.shape, np.nan)
    for row, column in np.ndindex(measured.shape):
        top, left = max(row - radius, 0), max(column - radius, 0)
        part = np.s_[top : row + radius + 1, left : column + radius + 1]
        pixels = np.argwhere(measured[part])
        if len(pixels) < 3 or np.linalg.matrix_rank(pixels[1:] - pixels[0]) < 2:
            continue
        chosen = points[part][measured[part]]
        normal, *_ = np.linalg.lstsq(chosen / chosen[:, 2:], 1 / chosen[:, 2], rcond=None)
        normal /= np.linalg.norm(normal)
        normals[row, column] = normal * (1 if normal @ points[row, column] > 0 else -1)
    return normals


def estimate_by_loops(normals):
    down = DOWN
    for degrees in [45] * 5 + [15] * 5:
        across, along = np.zeros((3, 3)), np.zeros((3, 3))
        for normal in normals.reshape(-1, 3):
            angle = np.degrees(np.arccos(min(1, abs(normal @ down))))  # NaN is in neither
            if angle < degrees:
                along += np.outer(normal, normal)
            if angle > 90 - degrees:
                across += np.outer(normal, normal)
        values, vectors = np.linalg.eig(across - along)
        axis = vectors[:, np.argmin(values)]
        down = axis * np.sign(axis @ down)
    return down


def encode_by_loops(depth, camera, measured):
    points = list_points(depth, camera)
    normals = fit_by_loops(points, measured, 3)
    down = estimate_by_loops(fit_by_loops(points, measured, 10))
    # Turn the points so that gravity is along y, as the authors' program does.
    axis, cosine = np.cross(down, DOWN), down @ DOWN
    skew = np.cross(np.eye(3), axis)
    turn = np.eye(3) + skew + skew @ skew / (1 + cosine)
    height = np.array([[-100 * (turn @ point)[1] for point in row] for row in points])
    lowest = height.min() if height.min() <= -90 else -130
    hha = np.zeros((*depth.shape, 3))
    for row, column in np.ndindex(depth.shape):
        angle = np.degrees(np.arccos(np.clip(normals[row, column] @ down, -1, 1)))
        hha[row, column] = 310 / depth[row, column], height[row, column] - lowest, 218 if angle != angle else angle + 38
    return np.floor(np.clip(hha, 0, 255) + 0.5)


# ------------------------------------------------------------------------------------------------------------- scenes


def tilt(pitch, roll=0.0):
    """The rotation from the room, where y is down, to a camera that looks down by `pitch` degrees and leans."""
    a, b = np.radians([pitch, roll])
    lean = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return lean @ np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])


def look(planes, rotation=None, camera=CAMERA, shape=SHAPE):
    """The depth of the nearest plane n·p = d of each pixel and its number. The camera is at the room's origin."""
    rotation = np.eye(3) if rotation is None else rotation
    rays = list_points(np.ones(shape), camera) @ rotation  # in the room
    with np.errstate(divide="ignore"):
        depths = np.stack([d / (rays @ np.asarray(n)) for n, d in planes])
    depths[depths <= 0] = np.inf
    return depths.min(axis=0).astype(np.float32), depths.argmin(axis=0)


def erode(mask, radius):
    """The pixels around which a window has only pixels of the mask."""
    return ndimage.minimum_filter(mask, 2 * radius + 1)


FLOOR, WALL, LEFT, CEILING = ((0, 1, 0), 1.4), ((0, 0, 1), 3.0), ((-1, 0, 0), 1.1), ((0, -1, 0), 1.0)
SIDE = np.sin(np.radians(30)), np.cos(np.radians(30))
RAMP = ((0, SIDE[1], SIDE[0]), 2.4)  # rises by 30 degrees, 2.4 m before the camera


def test_the_same_as_loops():
    rng = np.random.default_rng(1)
    depth, _ = look([FLOOR, WALL, LEFT], tilt(20, 8))
    depth += rng.normal(0, 0.02, SHAPE).astype(np.float32)
    measured = rng.random(SHAPE) < 0.7
    measured[:6], measured[12:, 30:] = False, False
    measured[20, 33:36] = True  # in a line
    got, expected = encode_hha(depth, CAMERA, measured), encode_by_loops(depth, CAMERA, measured)
    assert 0.05 < (expected[..., 2] == 218).mean() < 0.4
    assert (expected[16:24, 34, 2] == 218).all()
    difference = np.abs(got - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3  # halves may be rounded either way


def test_a_normal_points_away_from_the_camera_where_the_plane_is_behind_it():
    """Three measured pixels, whose plane has no depth above 0 at the pixel in the middle."""
    depth, measured = np.full((7, 7), 2.0), np.zeros((7, 7), bool)
    depth[[2, 3, 3], [5, 5, 6]], measured[[2, 3, 3], [5, 5, 6]] = (2.0, 1.9, 1.0), True
    got = fit_normals(depth, CAMERA, measured, 3)
    np.testing.assert_allclose(got, fit_by_loops(list_points(depth, CAMERA), measured, 3), atol=1e-12)
    middle = got[3, 3]
    assert middle @ list_points(depth, CAMERA)[3, 3] > 0 > middle @ list_points(depth, CAMERA)[3, 6]


def test_the_camera_of_nyud_counts_pixels_from_0():
    """The toolbox of the data set has these values for pixels that are counted from 1, as MATLAB does."""
    first = [[518.85790117450188, 0, 325.58244941119034], [0, 519.46961112127485, 253.73616633400465], [0, 0, 1]]
    rows, columns = np.indices((480, 640)) + 1
    rays = np.einsum("ij,jyx->yxi", np.linalg.inv(first), np.stack([columns, rows, np.ones_like(rows)]))
    np.testing.assert_allclose(list_points(np.ones((480, 640)), NYUD_CAMERA), rays, atol=1e-12)


@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (25, 0), (10, 30)])
def test_a_floor(pitch, roll):
    """It has the height 0 and the angle 0 wherever the camera looks."""
    depth, _ = look([FLOOR], tilt(pitch, roll))
    depth[~np.isfinite(depth)] = 0
    depth[depth > 20] = 0  # near the horizon
    seen = depth > 0
    hha = encode_hha(depth, CAMERA)
    assert seen.sum() > 200
    np.testing.assert_array_equal(hha[seen][:, 1:], np.broadcast_to([0, 38], (seen.sum(), 2)))
    np.testing.assert_allclose(hha[seen][:, 0], np.minimum(310 / depth[seen], 255), atol=0.5001)


@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (18, -6)])
def test_a_room(pitch, roll):
    """Floor, walls, ceiling and a ramp of 30 degrees have their angles, and each pixel its height over the floor."""
    camera = np.array([[120.0, 0, 160], [0, 120.0, 120], [0, 0, 1]])
    rotation = tilt(pitch, roll)
    depth, number = look([FLOOR, WALL, LEFT, CEILING, RAMP], rotation, camera, (240, 320))
    hha = encode_hha(depth, camera)
    in_room = list_points(depth, camera) @ rotation
    np.testing.assert_allclose(hha[..., 1], (100 * (1.4 - in_room[..., 1])).clip(0, 255), atol=1)
    for plane, angle in enumerate([38, 128, 128, 218, 68]):
        inside = erode(number == plane, 3)
        assert inside.sum() > 40
        assert (hha[inside][:, 2] == angle).all()


@pytest.mark.parametrize(("below", "height"), [(0.5, 80), (0.899, 40), (0.901, 0), (2.0, 0)])
def test_the_camera_is_130_cm_high_if_no_floor_is_seen(below, height):
    depth, _ = look([((0, 1, 0), below)])
    assert (encode_hha(np.where(depth < 20, depth, 0), CAMERA)[20:, :, 1] == height).all()


def test_the_smallest_and_largest_values():
    hha = encode_hha(np.array([[1.0, 1.2, 1.24, 10, 1e4]], np.float32), CAMERA)
    assert hha[0, :, 0].tolist() == [255, 255, 250, 31, 0]
    extreme = np.random.default_rng(0).choice([5e-324, 1e-45, 1e-6, 2.0, 1e300], (20, 20))
    np.testing.assert_array_equal(encode_hha(extreme, CAMERA)[..., 0] == 255, extreme < 1)
    assert encode_hha(np.full((2, 2), 50, np.float32), CAMERA)[0, 0, 1] == 255


# ------------------------------------------------------------------------------------------------------------ gravity


def test_one_wall_leaves_the_direction_as_it_is():
    """All directions across its normal fit as well: there is nothing that a step could change."""
    for normal in [(0, 0, 1), (0.8, 0, 0.6)]:
        depth, _ = look([(normal, 3.0)])
        hha = encode_hha(np.where(np.isfinite(depth), depth, 0), CAMERA)
        assert (hha[..., 2] == 128).all()
        np.testing.assert_allclose(estimate_gravity(np.tile(np.array(normal, float), (50, 1))), DOWN, atol=1e-6)


def test_no_normals_at_all():
    np.testing.assert_allclose(estimate_gravity(np.full((4, 5, 3), np.nan)), DOWN, atol=1e-6)
    hha = encode_hha(np.array([[0, 2.0, 0]]), CAMERA)
    assert hha[0, :, 0].tolist() == [155] * 3
    assert (hha[..., 2] == 218).all()


def test_what_is_neither_floor_nor_wall_does_not_count():
    """Normals at 40 degrees count in the first steps only; those within 15 degrees of the axis decide."""
    rotation = tilt(9, 4)
    room = np.array([[0, 1, 0]] * 40 + [[0, 0, 1]] * 30 + [[1, 0, 0]] * 30 + [[0, np.cos(0.7), np.sin(0.7)]] * 20)
    normals = room @ rotation.T
    np.testing.assert_allclose(estimate_gravity(normals), rotation @ DOWN, atol=1e-6)
    np.testing.assert_allclose(estimate_gravity(-normals), rotation @ DOWN, atol=1e-6)  # of a ceiling


# ------------------------------------------------------------------------------------------------------ missing depth


def test_unknown_depth_is_that_of_the_nearest_pixel():
    depth, _ = look([FLOOR, WALL])
    depth[5:8, 5:8] = 0
    for unknown in (np.nan, np.inf, -np.inf, -1.0):
        other = np.where(depth == 0, np.float32(unknown), depth)
        np.testing.assert_array_equal(encode_hha(other, CAMERA), encode_hha(depth, CAMERA))
    filled = depth.copy()
    filled[5], filled[6], filled[7], filled[6, 6] = depth[4], depth[6, 4], depth[8], depth[4, 6]  # a wall
    np.testing.assert_array_equal(encode_hha(depth, CAMERA), encode_hha(filled, CAMERA, depth > 0))


def test_normals_do_not_use_depth_that_was_filled_in():
    depth, _ = look([FLOOR], tilt(40))
    whole = encode_hha(depth, CAMERA)
    assert (whole[..., 2] == 38).all()
    measured = np.ones(SHAPE, bool)
    measured[3:13, 8:20] = False
    filled = np.where(measured, depth, depth - 0.7 * np.random.default_rng(0).random(SHAPE).astype(np.float32))
    hha = encode_hha(filled, CAMERA, measured)
    far = np.zeros(SHAPE, bool)
    far[5:11, 10:18] = True  # their windows have one row or one column of measured pixels, or none,
    far[[5, 5, 10, 10], [10, 17, 10, 17]] = False  # but these four have both
    assert (hha[far][:, 2] == 218).all()
    np.testing.assert_array_equal(hha[~far][:, 2], whole[~far][:, 2])
    np.testing.assert_array_equal(hha[measured], whole[measured])
    np.testing.assert_array_equal(hha[..., 0], encode_hha(filled, CAMERA)[..., 0])
    assert (hha[far][:, 0] > whole[far][:, 0]).any()


# -------------------------------------------------------------------------------------------------------- equivariance


def make_noisy_room(seed=3):
    depth, _ = look([FLOOR, WALL, LEFT], tilt(12, 5))
    return (depth + np.random.default_rng(seed).normal(0, 0.01, SHAPE)).astype(np.float32)


def count_differences(first, second):
    difference = np.abs(first.astype(int) - second)
    assert difference.max() <= 1
    return (difference > 0).mean()


def test_a_mirrored_image_has_the_mirrored_encoding():
    depth, camera = make_noisy_room(), CAMERA.copy()
    camera[0, 2] = SHAPE[1] - 1 - CAMERA[0, 2] + 4  # not in the middle
    other = camera.copy()
    other[0, 2] = SHAPE[1] - 1 - camera[0, 2]
    assert count_differences(encode_hha(depth[:, ::-1], other), encode_hha(depth, camera)[:, ::-1]) < 1e-3


def test_a_part_of_an_image_has_the_normals_of_the_image():
    depth, measured = make_noisy_room().astype(np.float64), np.random.default_rng(0).random(SHAPE) < 0.8
    camera = CAMERA.copy()
    camera[:2, 2] -= 7, 5
    whole = fit_normals(depth, CAMERA, measured, 3)[5:25, 7:33]
    part = fit_normals(depth[5:25, 7:33], camera, measured[5:25, 7:33], 3)
    inside = np.s_[3:-3, 3:-3]
    np.testing.assert_allclose(part[inside], whole[inside], atol=1e-9)


def test_a_room_of_twice_the_size_has_the_same_angles():
    depth = make_noisy_room()
    small, large = encode_hha(depth, CAMERA), encode_hha(2 * depth, CAMERA)
    np.testing.assert_array_equal(small[..., 2], large[..., 2])
    exact = np.round(310 / (2 * depth.astype(np.float64)))
    assert np.abs(large[..., 0] - exact).max() <= 1


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (np.ones((3, 4), np.uint16), r"depth is uint16 \[3, 4\]; it has to be a matrix of metres .* by 1000"),
        (np.ones((3, 4, 1), np.float32), r"depth is float32 \[3, 4, 1\]; it has to be a matrix"),
        (np.zeros((3, 4), np.float32), r"no pixel of \[3, 4\] has a depth above 0; give"),
        (np.full((3, 4), np.nan), r"no pixel of \[3, 4\] has a depth"),
        (np.ones((0, 4)), r"no pixel of \[0, 4\] has a depth"),
    ],
)
def test_wrong_depths(depth, message):
    with pytest.raises(InputError, match=message):
        encode_hha(depth, CAMERA)


@pytest.mark.parametrize(
    ("place", "value"), [((0, 0), 0), ((1, 1), -5), ((0, 1), 2), ((1, 0), 1), ((2, 2), 2), ((0, 0), np.nan)]
)
def test_wrong_cameras(place, value):
    camera = CAMERA.copy()
    camera[place] = value
    with pytest.raises(InputError, match=r"the camera matrix is .*; it has to be \[\[fx, 0, cx\], \[0, fy, cy\]"):
        encode_hha(np.ones((3, 4)), camera)


def test_a_camera_of_another_shape():
    with pytest.raises(InputError, match=r"the camera matrix is \[518.0, 519.0\]; it has to be"):
        encode_hha(np.ones((3, 4)), np.array([518.0, 519.0]))


@pytest.mark.parametrize("measured", [np.ones((3, 5), bool), np.ones((3, 4), np.uint8)])
def test_a_wrong_mask_of_what_was_measured(measured):
    with pytest.raises(InputError, match=r"measured is .* and depth has \[3, 4\]; it has to be a bool for each pixel"):
        encode_hha(np.ones((3, 4)), CAMERA, measured)
