"""HHA, three channels from a depth image: horizontal disparity, height above the ground, and angle with gravity.

Gupta, Girshick, Arbelaez and Malik, "Learning Rich Features from RGB-D Images for Object Detection and Segmentation"
(ECCV 2014). The constants are those of the authors' programs (saveHHA.m and processDepthImage.m of s-gupta/rcnn-depth;
getYDir.m and computeNormalsSquareSupport.m of s-gupta/rgbdutils). For NYUDv2 `depth` is the variable depths of
nyu_depth_v2_labeled.mat, and `measured` is rawDepths > 0.

Points are in metres: x to the right, y down, z forwards. A plane n·p = 1 has the inverse depth 1/z, which is linear in
the row and the column of a pixel. So a linear fit of the inverse depth around a pixel gives the normal of its surface.
"""

import numpy as np
from jaxtyping import Bool, Float, Float64, UInt8
from scipy import ndimage

from fcn_jax.errors import InputError

# Camera matrix of NYUDv2's colour images of 640x480, to which its depth images are aligned: camera_params.m of the
# toolbox of the data set. MATLAB counts pixels from 1; here the centre of the first pixel is at 0.
NYUD_CAMERA = np.array(
    [
        [5.1885790117450188e02, 0.0, 3.2558244941119034e02 - 1],
        [0.0, 5.1946961112127485e02, 2.5373616633400465e02 - 1],
        [0.0, 0.0, 1.0],
    ]
)
_DISPARITY = 310.0  # times metres: 255 is reached at 1.2 m, and 10 m has 31
_SURFACE, _GRAVITY = 3, 10  # windows of 7x7 pixels for the angles, and of 21x21 for the direction of gravity
_FLOOR_SEEN, _CAMERA_HEIGHT = 0.9, 1.3  # m
_SLACK = 128 - 90  # makes walls 128
_NO_NORMAL = 180.0  # degrees; so the published images have it, since MATLAB's max(-1, NaN) is -1
_TIE = 1e-6  # share of all normals


def encode_hha(
    depth: np.ndarray, camera: np.ndarray, measured: np.ndarray | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Encode depth as disparity, height and angle, in the order of the published PNG files.

    Args:
        depth: metres along the optical axis, float32 or float64 [height, width]. It is unknown where it is 0, negative
            or not finite; such a pixel gets the depth of the nearest known one. The authors fill it before.
        camera: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], in pixels; the centre of the first pixel is at (0, 0).
        measured: where a sensor has measured the depth, bool [height, width]. Elsewhere it was filled in, and the
            normals of surfaces do not use it. None: wherever the depth is known.

    Returns:
        Whole numbers, 0 to 255, rounded and cut to that range. Channel 0 is 310 divided by the depth in metres. Channel
        1 is the height above the lowest point in cm; the camera is taken to be 130 cm high if no point is 90 cm below
        it. Channel 2 is the angle between gravity and the normal that points away from the camera, in degrees, plus 38:
        floors have 38, walls 128, and ceilings 218. Pixels without three measured ones around them that are not in a
        line have 218, too.

    Raises:
        InputError: the arrays have not these shapes and types, the matrix is not of this form, or no depth is known.
    """
    known = _find_known(depth, camera, measured)
    rows, columns = np.asarray(ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True))
    z = depth[rows, columns].astype(np.float64).clip(1e-6, 1e6)  # their squares and inverses are finite
    measured = known if measured is None else known & measured
    down = estimate_gravity(fit_normals(z, camera, measured, _GRAVITY))
    normals = fit_normals(z, camera, measured, _SURFACE)
    angle = np.degrees(np.arccos((normals @ down).clip(-1, 1)))
    height = -z * (_list_rays(z.shape, camera) @ down)
    lowest = height.min()
    if lowest > -_FLOOR_SEEN:
        lowest = -_CAMERA_HEIGHT
    channels = [
        _DISPARITY / z,
        100 * (height - lowest),
        np.where(np.isnan(angle), _NO_NORMAL, angle) + _SLACK,
    ]
    return np.floor(np.stack(channels, axis=-1).clip(0, 255) + 0.5).astype(np.uint8)


def fit_normals(
    depth: Float64[np.ndarray, "height width"],
    camera: Float[np.ndarray, "3 3"],
    measured: Bool[np.ndarray, "height width"],
    radius: int,
) -> Float64[np.ndarray, "height width 3"]:
    """Fit a plane to the points around each pixel, by least squares of the inverse depth.

    Args:
        depth: metres, above 0.
        camera: the camera matrix.
        measured: the pixels to use.
        radius: pixels from the centre of the square window to its sides. It is cut at the borders of the image.

    Returns:
        Unit vectors that point away from the camera; NaN where the window has no three pixels that are not in a line.
    """
    offsets = np.arange(-radius, radius + 1.0)

    def sum_windows(values: np.ndarray, power: int, axis: int) -> np.ndarray:
        """Sum values times a power of the distance from the centre of the window, along an axis."""
        return ndimage.correlate1d(values, offsets**power, axis, mode="constant")

    # The sums of 1, x, y, xx, xy and yy over the measured pixels are whole numbers, and exact.
    columns = [sum_windows(measured.astype(np.float64), power, 1) for power in range(3)]
    count, y, yy = (sum_windows(columns[0], power, 0) for power in range(3))
    x, xy = (sum_windows(columns[1], power, 0) for power in range(2))
    xx = sum_windows(columns[2], 0, 0)
    inverse, x_inverse = (sum_windows(np.where(measured, 1 / depth, 0.0), power, 1) for power in range(2))
    q, yq = (sum_windows(inverse, power, 0) for power in range(2))
    xq = sum_windows(x_inverse, 0, 0)

    # Linear regression of q, the inverse depth, on x and y. `spread` is 0 if all pixels are in a line.
    var_x, cov, var_y = count * xx - x * x, count * xy - x * y, count * yy - y * y
    cov_x, cov_y = count * xq - x * q, count * yq - y * q
    spread = var_x * var_y - cov * cov
    spread = np.where(spread < 0.5, np.nan, spread)
    slope_x, slope_y = (cov_x * var_y - cov_y * cov) / spread, (cov_y * var_x - cov_x * cov) / spread
    centre = (q - slope_x * x - slope_y * y) / np.maximum(count, 1)

    # The inverse depth of a plane is the product of its n and the ray of the pixel.
    rays = _list_rays(depth.shape, camera)
    across, along = camera[0, 0] * slope_x, camera[1, 1] * slope_y
    normals = np.stack([across, along, centre - across * rays[..., 0] - along * rays[..., 1]], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.where(centre < 0, -1.0, 1.0)[..., None] * normals


def estimate_gravity(normals: Float64[np.ndarray, "*place 3"]) -> Float64[np.ndarray, "3"]:
    """Estimate the direction of gravity: along the normals of floors, and across those of walls.

    It starts straight down in the image. Each step takes the normals within an angle of this axis for those of floors,
    and those within the same angle of the plane across it for those of walls. The new direction has the least sum of
    squares across the former and along the latter. Five steps use 45 degrees, and five 15 degrees (Gupta, Arbelaez and
    Malik, CVPR 2013, section 3.2).

    Args:
        normals: unit vectors; those with NaN are not used.

    Returns:
        A unit vector that points down.
    """
    axes = normals[~np.isnan(normals[..., 0])].T.copy()  # as rows, which NumPy multiplies ten times as fast
    down = np.array([0.0, 1.0, 0.0])
    for limit in np.radians([45] * 5 + [15] * 5):
        cosines = np.abs(down @ axes)
        weights = (cosines < np.sin(limit)) - 1.0 * (cosines > np.cos(limit))
        # The last term decides where nothing else does, as in the picture of one wall: the direction stays.
        squares = (weights * axes) @ axes.T - _TIE * (axes.shape[1] + 1) * np.outer(down, down)
        axis = np.linalg.eigh(squares).eigenvectors[:, 0]
        down = axis if axis @ down > 0 else -axis
    return down


def _list_rays(shape: tuple[int, ...], camera: np.ndarray) -> Float64[np.ndarray, "height width 3"]:
    """Return the point of each pixel at the depth 1."""
    rows, columns = np.indices(shape)
    (fx, fy), (cx, cy) = np.diagonal(camera)[:2], camera[:2, 2]
    return np.stack([(columns - cx) / fx, (rows - cy) / fy, np.ones(shape)], axis=-1)


def _find_known(depth: np.ndarray, camera: np.ndarray, measured: np.ndarray | None) -> np.ndarray:
    """Check the arguments of `encode_hha`, and find the pixels whose depth is known."""
    if depth.ndim != 2 or depth.dtype.kind != "f":
        raise InputError(
            f"depth is {depth.dtype} {list(depth.shape)}; it has to be a matrix of metres as float32 or float64: "
            "divide millimetres by 1000"
        )
    (fx, skew, _), (tilt, fy, _), last = camera.tolist() if camera.shape == (3, 3) else np.eye(3) * np.nan
    if not (0 < fx < np.inf and 0 < fy < np.inf and skew == tilt == 0 and list(last) == [0, 0, 1]):
        raise InputError(
            f"the camera matrix is {camera.tolist()}; it has to be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with focal "
            "lengths above 0, in pixels"
        )
    if measured is not None and (measured.shape != depth.shape or measured.dtype != bool):
        raise InputError(
            f"measured is {measured.dtype} {list(measured.shape)}, and depth has {list(depth.shape)}; it has to be a "
            "bool for each pixel of depth"
        )
    known = np.isfinite(depth) & (depth > 0)
    if not known.any():
        raise InputError(
            f"no pixel of {list(depth.shape)} has a depth above 0; give the distance in metres, at least of some"
        )
    return known
