"""Canvases of images, and tiles of images that are too large for one program.

A tile's class map is a part of that of the whole image, and not a blend of several. A cell of a network depends on
input pixels up to a known distance (`FeatureMap.reach`). So a canvas that shows a part of the image gives the scores of
the whole image, up to rounding, where it is further than that from its cut borders. Canvases begin at multiples of the
network's coarsest stride, so that all windows are those of the whole image.
"""

import itertools
import math
from typing import Any, NamedTuple

from flax import traverse_util

from fcn_jax.data.dataset import Example
from fcn_jax.errors import InputError
from fcn_jax.models.build import Network, trace_network

Canvas = tuple[int, int]  # height, width


class Tiling(NamedTuple):
    """Size of the tiles of large images, in pixels. Side and margin are multiples of the stride.

    Attributes:
        side: side of a square whose class map a tile gives. Other tiles have no more pixels, with their margin.
        margin: pixels around it that its class map depends on.
        stride: the network's coarsest stride.
    """

    side: int
    margin: int
    stride: int

    @property
    def canvas_side(self) -> int:
        """Side of a square tile's canvas."""
        return self.side + 2 * self.margin


class Tile(NamedTuple):
    """A part of an image that is computed at once; of a small image all of it.

    Attributes:
        example: the whole image and its label.
        index: number of the image.
        count: number of tiles of the image.
        canvas: height and width of the smallest canvas for the tile and its margin.
        origin: row and column of the image at which the canvas begins.
        inside: rows and columns of the image whose class map the tile gives; the insides of all tiles are the image.
    """

    example: Example
    index: int
    count: int
    canvas: Canvas
    origin: tuple[int, int]
    inside: tuple[slice, slice]


def plan_tiles(model: Network, side: int, channels: int = 3) -> Tiling | None:
    """Choose the size of the tiles for a network.

    Args:
        model: the network.
        side: wanted side of a tile, in pixels; it is rounded up to a multiple of the network's coarsest stride. 0: the
            network computes every image whole.
        channels: number of channels of its images.

    Raises:
        InputError: the side is negative, or how far the network reaches is not known.
    """
    if side == 0:
        return None
    if side < 0:
        raise InputError(f"tile is {side}; it must be at least 1 pixel, or 0 to compute every image whole")
    reach, stride = _measure_reach(model, channels)
    side, margin = (math.ceil(length / stride) * stride for length in (side, reach))
    return Tiling(side, margin, stride)


def _measure_reach(model: Network, channels: int) -> tuple[float, int]:
    """Return the reach and the coarsest stride of a network's logits; see `FeatureMap`. It computes shapes only."""
    maps = trace_network(model, channels).get("intermediates", {})
    found: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(maps)  # pyright: ignore[reportAssignmentType]
    maps = [values[0] for path, values in found.items() if path[-1] == "logits"]  # late fusion has one for each stream
    if not maps:
        raise InputError(
            f"how far the scores of {type(model).__name__} depend on the image is not known, so it cannot compute "
            "images in tiles; give the tile 0 to compute every image whole"
        )
    return max(logits.reach for logits in maps), math.lcm(*(logits.coarsest for logits in maps))


def choose_canvas(height: int, width: int, tiling: Tiling | None = None) -> Canvas:
    """Choose height and width of the canvas of an image, or of its tiles.

    Each side is rounded up to 32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, ... pixels. There are four
    lengths per doubling, at least 32 pixels apart. Sides longer than 128 grow by at most a quarter, and there are 16
    lengths up to 1024. An image whose canvas has more pixels than that of a square tile is cut into tiles.
    """

    def round_up(side: int) -> int:
        step = max(32, 1 << max((side - 1).bit_length() - 3, 0))
        return -(-side // step) * step

    canvas = round_up(height), round_up(width)
    if tiling is None or math.prod(canvas) <= tiling.canvas_side**2:
        return canvas
    return _choose_tile((height, width), canvas, tiling)


def _choose_tile(lengths: tuple[int, int], canvas: Canvas, tiling: Tiling) -> Canvas:
    """Choose the canvas of an image's tiles: of all with no more pixels than a square one, that of the least work.

    A long tile may need fewer cuts, and so fewer margins, than a square one.
    """
    square, margins, stride = tiling.canvas_side, 2 * tiling.margin, tiling.stride
    options = []  # of each axis: number of tiles, length of their canvas
    for length, whole in zip(lengths, canvas, strict=True):
        inside = length - margins
        most = 2 * max(1, math.ceil(inside / tiling.side))
        cuts = [(count, margins + math.ceil(inside / count / stride) * stride) for count in range(2, most + 1)]
        uncut = (1, whole if length > square else min(whole, square))
        options.append([uncut, *(cut for cut in cuts if margins < cut[1] < length)])
    fitting = [
        (down * across * height * width, height, width)
        for (down, height), (across, width) in itertools.product(*options)
        if height * width <= square**2
    ]
    _, height, width = min(fitting)
    return height, width


def cut_image(index: int, example: Example, tiling: Tiling | None) -> list[Tile]:
    """Cut an image into tiles if it is larger than the canvas of a tile; else it is one tile.

    Args:
        index: number of the image.
        example: the image.
        tiling: size of the tiles; None: the image is one tile.
    """
    shape = example.label.shape[:2]
    canvas = choose_canvas(*shape, tiling=tiling)
    rows, columns = (_cut_axis(*lengths, tiling) for lengths in zip(shape, canvas, strict=True))
    return [
        Tile(example, index, len(rows) * len(columns), canvas, (top, left), (down, across))
        for top, down in rows
        for left, across in columns
    ]


def _cut_axis(length: int, canvas: int, tiling: Tiling | None) -> list[tuple[int, slice]]:
    """Return the first pixel of each tile's canvas along an axis, and the tile's inside."""
    if tiling is None or length <= canvas:
        return [(0, slice(0, length))]
    starts = range(0, length - 2 * tiling.margin, canvas - 2 * tiling.margin)
    # Where a canvas begins and ends with the image, it needs no margin.
    borders = [0, *(start + tiling.margin for start in starts[1:]), length]
    return [(start, slice(*ends)) for start, ends in zip(starts, itertools.pairwise(borders), strict=True)]
