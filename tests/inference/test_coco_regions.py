"""Regions of class maps in COCO's format, decoded by pycocotools."""

import time

import numpy as np
import pytest
from scipy import ndimage

from fcn_jax.inference.coco_regions import describe_regions, encode_runs, trace_outlines


def draw(*rows: str) -> np.ndarray:
    return np.array([[int(character) for character in row] for row in rows], np.uint8)


CLASS_MAPS = {
    "one class": draw("000", "000"),
    "one pixel": draw("2"),
    "a hole with an island": draw("00000", "01110", "01010", "01110", "00000"),
    "holes that touch by a corner": draw("11111", "10111", "11011", "11111"),
    "a hole that touches the outside by a corner": draw("0111", "1011", "1111"),
    "pixels that touch by a corner": draw("0110", "1001", "0110"),
    "a checkerboard": draw("0101", "1010", "0101"),
    "a spiral": draw("1111111", "0000001", "1111101", "1000101", "1011101", "1000001", "1111111"),
    "noise": np.random.default_rng(0).integers(0, 3, (23, 31), np.uint8),
    "blobs": (ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(120, 90)), 4) * 40 + 9).astype(np.uint8),
}


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # of pycocotools, by NumPy
@pytest.mark.parametrize("name", CLASS_MAPS)
def test_regions_decode_to_the_class_map_bit_for_bit(name):
    mask = pytest.importorskip("pycocotools.mask")
    class_map = CLASS_MAPS[name]
    height, width = class_map.shape
    joined, times = np.full(class_map.shape, 255, np.uint8), np.zeros(class_map.shape, int)
    count = 0
    for region in describe_regions(class_map):
        code = region["segmentation"]
        if isinstance(code, list):
            corners = np.array(code[0]).reshape(-1, 2)
            assert len(np.unique(corners, axis=0)) == len(corners) >= 4  # the line does not meet itself
        decoded = mask.decode(mask.merge(mask.frPyObjects(code, height, width)) if isinstance(code, list)
                              else mask.frPyObjects(code, height, width)).astype(bool)  # fmt: skip
        _, parts = ndimage.label(decoded)
        assert parts == 1
        assert region["area"] == decoded.sum()
        rows, columns = np.nonzero(decoded)
        left, top, wide, tall = region["bbox"]
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (left, top, left + wide, top + tall)
        has_holes = ndimage.label(~np.pad(decoded, 1))[1] > 1
        assert isinstance(code, dict) == has_holes
        joined[decoded] = region["category_id"] - 1
        times += decoded
        count += 1
    np.testing.assert_array_equal(joined, class_map)
    assert (times == 1).all()
    assert count == sum(ndimage.label(class_map == label)[1] for label in np.unique(class_map))


def test_the_outline_of_a_rectangle_has_four_corners_clockwise():
    (line,) = trace_outlines(np.ones((2, 3), bool))
    assert line.tolist() == [[0, 0], [3, 0], [3, 2], [0, 2]]


def test_each_hole_has_a_line():
    inside = draw("11111", "10111", "11101", "11111").astype(bool)
    assert len(trace_outlines(inside)) == 3
    # A hole that touches the outside by a corner is a hole: the region is around it.
    assert len(trace_outlines(draw("0111", "1011", "1111").astype(bool))) == 2


def test_runs_go_down_the_columns_and_begin_outside():
    whole = (0, 0), (2, 2)
    assert encode_runs(draw("01", "11").astype(bool), *whole) == {"size": [2, 2], "counts": [1, 3]}
    assert encode_runs(draw("10", "10").astype(bool), *whole) == {"size": [2, 2], "counts": [0, 2, 2]}
    assert encode_runs(draw("11", "10").astype(bool), (1, 1), (3, 4)) == {"size": [3, 4], "counts": [4, 2, 1, 1, 4]}


@pytest.mark.slow
def test_a_region_with_thousands_of_holes_takes_seconds():
    """The time was quadratic: 60 s for as many."""
    class_map = np.zeros((251, 251), np.uint8)
    class_map[1::2, 1::2] = 1
    began = time.process_time()
    regions = [region for region in describe_regions(class_map) if region["category_id"] == 1]
    assert time.process_time() - began < 20
    (region,) = regions
    assert region["area"] == 251 * 251 - 125 * 125
    assert len(region["segmentation"]["counts"]) > 2 * 125 * 125
