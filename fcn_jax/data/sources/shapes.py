"""Overlapping patterned shapes, drawn with NumPy: a data set that needs no download.

A class has its own outline and its own pattern. Colour and size do not depend on the class: the colours of all classes
and of the background have one distribution, and so have the areas of all classes, which makes a disc narrower than a
ring. Tips, notches and holes are a few pixels wide, so that fine scores are needed to segment them.
"""

from functools import partial

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from fcn_jax.data.labels import IGNORE
from fcn_jax.data.sources.source import DataSource, Defaults, Drawn, Found, Outline, Request
from fcn_jax.errors import InputError

Plane = Float32[np.ndarray, "height width"]

SPLITS = {"train": range(1500), "val": range(1500, 1700)}  # indices of the images
SIDES = (72, 96)  # smallest and largest side of an image; at 96 or less evaluation compiles one canvas only
AREA = (500, 2000)  # smallest and largest area of a whole object in pixels, uniform in the logarithm
COVER = 0.62  # sum of the objects' areas over the area of the image; overlaps and edges hide a quarter of it
SPACING = 0.85  # smallest distance of two centres over the sum of the radii of equal discs; no object is hidden
MARGIN = 0.3  # smallest distance of a centre to the edge of the image, over the root of the object's area
COLOURS = (60.0, 195.0)  # range of the mean red, green and blue of a pattern
AMPLITUDE = (50.0, 80.0)  # distance in RGB of a pattern's two colours from their mean
PERIOD = (7.0, 9.0)  # pixels between stripes, dots and so on
NOISE = (3.0, 8.0)  # standard deviation of the noise of an image
VOID = 0.9  # half the width of the void border in pixels; above 0.71 no two classes touch, even at a corner


def draw(seed: int, index: int) -> tuple[UInt8[np.ndarray, "height width 3"], UInt8[np.ndarray, "height width"]]:
    """Draw an image and its label, which depend on the arguments alone.

    Args:
        seed: seed of the whole data set, from 0.
        index: index of the image, from 0.

    Returns:
        The image, RGB, whose height and width are from 72 to 96 and differ, and its label: an index into `CLASS_NAMES`,
        or 255 within a pixel of an outline. Later objects cover earlier ones.
    """
    rng = np.random.default_rng((seed, index))
    height, width = rng.choice(np.arange(SIDES[0], SIDES[1] + 1), 2, replace=False).tolist()
    objects = _arrange(rng, height, width)
    ground, *colours = _spread_colours(rng, len(objects) + 1)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    image = _paint(rng, "background", ground, x, y)
    label = np.zeros((height, width), np.uint8)
    for (row, column, scale), colour in zip(objects, colours, strict=True):
        name = str(rng.choice(list(OUTLINES)))
        reach = int(scale) + 2  # an outline of area 1 lies within a circle of radius 1
        box = tuple(slice(max(0, int(centre) - reach), int(centre) + reach + 1) for centre in (row, column))
        distance = _measure_distance(name, x[box] - column, y[box] - row, scale, rng.uniform(0, 2 * np.pi))
        opacity = np.clip(0.5 - distance, 0, 1)[..., None]
        image[box] += opacity * (_paint(rng, name, colour, x[box], y[box]) - image[box])
        label[box][distance < VOID] = IGNORE
        label[box][distance < -VOID] = CLASS_NAMES.index(name)
    image += rng.uniform(*NOISE) * rng.standard_normal(image.shape, np.float32)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), label


def _arrange(rng: np.random.Generator, height: int, width: int) -> list[tuple[float, float, float]]:
    """Place objects: row and column of the centre, and root of the area. An object without room is left out."""
    placed = []
    room = COVER * height * width
    while room > 0:
        area = float(np.exp(rng.uniform(*np.log(AREA))))
        room -= area
        scale = area**0.5
        low, high = MARGIN * scale, np.array([height, width]) - MARGIN * scale
        for row, column in rng.uniform(low, high, (20, 2)).tolist():
            if all(np.hypot(row - r, column - c) > SPACING * np.pi**-0.5 * (scale + s) for r, c, s in placed):
                placed.append((row, column, scale))
                break
    return placed


def _spread_colours(rng: np.random.Generator, count: int) -> Float64[np.ndarray, "count 3"]:
    """Choose colours that differ, in random order, so that each place has the same distribution."""
    colours = rng.uniform(*COLOURS, (1, 3))
    while len(colours) < count:
        candidates = rng.uniform(*COLOURS, (6, 3))
        nearest = np.linalg.norm(candidates[:, None] - colours, axis=-1).min(axis=1)
        colours = np.vstack([colours, candidates[nearest.argmax()]])
    return rng.permutation(colours)


def _measure_distance(name: str, x: Plane, y: Plane, scale: float, turn: float) -> Plane:
    """Compute the pixels to the outline of an object around 0, of area scale² and turned; negative inside."""
    cos, sin, size = np.float32(np.cos(turn)), np.float32(np.sin(turn)), np.float32(scale)
    return size * OUTLINES[name]((cos * x + sin * y) / size, (cos * y - sin * x) / size)


def _paint(
    rng: np.random.Generator, name: str, colour: Float64[np.ndarray, "3"], x: Plane, y: Plane
) -> Float32[np.ndarray, "height width 3"]:
    """Paint the pattern of a class, shifted and turned at random, between two colours around `colour`."""
    turn, period = rng.uniform(0, np.pi), rng.uniform(*PERIOD)
    cos, sin = (np.float32(2 * np.pi / period * side(turn)) for side in (np.cos, np.sin))
    shift_u, shift_v = rng.uniform(0, 2 * np.pi, 2).astype(np.float32)
    pattern = PATTERNS[name](cos * x + sin * y + shift_u, cos * y - sin * x + shift_v)
    direction = rng.standard_normal(3)
    direction *= rng.uniform(*AMPLITUDE) / np.linalg.norm(direction)
    return np.float32(colour) + np.clip(pattern, -1, 1)[..., None] * np.float32(direction)


# Signed distances to outlines of area 1 around 0, negative inside. At corners they are a lower bound of the distance.


def _half_planes(x: Plane, y: Plane, count: int) -> Float32[np.ndarray, "count height width"]:
    angles = np.arange(count, dtype=np.float32)[:, None, None] * np.float32(2 * np.pi / count)
    return np.cos(angles) * x[None] + np.sin(angles) * y[None]


def _disc(x: Plane, y: Plane) -> Plane:
    return np.hypot(x, y) - np.pi**-0.5


def _square(x: Plane, y: Plane) -> Plane:
    return np.maximum(np.abs(x), np.abs(y)) - 0.5


def _triangle(x: Plane, y: Plane) -> Plane:
    return _half_planes(x, y, 3).max(axis=0) - 27**-0.25


def _star(x: Plane, y: Plane) -> Plane:
    """A pentagram: the points in at least four of five half planes."""
    return np.sort(_half_planes(x, y, 5), axis=0)[-2] - 0.29166


def _ring(x: Plane, y: Plane) -> Plane:
    """A ring whose hole has half its radius."""
    radius = (0.75 * np.pi) ** -0.5
    return np.abs(np.hypot(x, y) - 0.75 * radius) - 0.25 * radius


def _cross(x: Plane, y: Plane) -> Plane:
    """A cross whose arms are 0.3 times as wide as it is long: length² (0.6 - 0.09) = 1."""
    x, y, half = np.abs(x), np.abs(y), 0.5 * 0.51**-0.5
    return np.maximum(np.maximum(x, y) - half, np.minimum(x, y) - 0.3 * half)


OUTLINES = {"disc": _disc, "square": _square, "triangle": _triangle, "star": _star, "ring": _ring, "cross": _cross}

# Functions of two axes with period 2 pi, clipped to -1..1 when painted. Their scales and directions differ: patterns of
# one scale differ in their spectra alone, which takes training much longer to learn.
PATTERNS = {
    "background": lambda u, v: (np.sin(0.3 * u + 1.3 * np.sin(0.4 * v)) + np.sin(0.5 * v + 1.3 * np.sin(0.3 * u))) / 2,
    "disc": lambda u, v: 3 * np.sin(0.75 * u),  # stripes
    "square": lambda u, v: 5 * np.sin(0.7 * u) * np.sin(0.7 * v),  # checks
    "triangle": lambda u, v: 4 * (np.cos(1.6 * u) + np.cos(1.6 * v) - 0.4),  # dots
    "star": lambda u, v: 4 * np.sin(1.3 * u + 2 * np.sin(0.9 * v)) * np.sin(1.1 * v + 2 * np.sin(0.8 * u)),  # grains
    "ring": lambda u, v: 3 * np.sin(u + 2 * np.sin(v)),  # waves
    "cross": lambda u, v: 2 * np.sin(2 * u),  # hatching
}


CLASS_NAMES = ("background", *OUTLINES)


def find(request: Request) -> Found:
    """List the images of seed 0: 1500 to train on and 200 to evaluate on.

    Raises:
        InputError: a folder is given.
    """
    if request.dir is not None:
        raise InputError(f"shapes is drawn and reads nothing from {request.dir}; leave out --data.dir")
    splits = {
        split: [Drawn(f"{split}_{index:04}", partial(draw, 0, index)) for index in indices]
        for split, indices in SPLITS.items()
    }
    return Found(CLASS_NAMES, splits)


SOURCE = DataSource(
    name="shapes",
    size="1,700 images of 72 to 96 pixels, no download",
    licence="none is needed",
    description="overlapping shapes, drawn by this program: needs no files",
    # Ten minutes on two CPU cores, set-up included. No zoom, because it blurs the finest patterns away.
    defaults=Defaults(crop=80, scale=(1.0, 1.0), steps=850, batch_size=8, learning_rate=0.1, eval_every=425),
    find=find,
    outline=Outline((len(CLASS_NAMES),), ("train", "val")),
)
