"""Learned upsampling kernels of a file of weights, told apart from bilinear ones."""

import numpy as np

from fcn_jax.layers import bilinear_kernel
from fcn_jax.weights.classes import count_class_axes
from fcn_jax.weights.merge import Match

# A file in half precision rounds each number by at most 2**-8 of it (bfloat16, cut off). Its zeros stay zeros, so the
# second limit only covers arithmetic in float32.
RELATIVE_LIMIT, ABSOLUTE_LIMIT = 2**-8, 1e-6


def find_learned_kernels(match: Match) -> dict[str, float]:
    """Find the upsampling kernels that a network takes from a file and that are not bilinear.

    Only classes that the network takes from the file count.

    Returns:
        By path, the largest difference of a number of the kernel from bilinear upsampling.
    """
    old = [index for _, index, _ in match.classes]
    differences = {}
    for path in (*match.loaded, *match.by_class):
        if count_class_axes(path) == 2:
            kernel = match.weights.arrays[path]
            kernel = kernel[:, :, old][..., old] if path in match.by_class else kernel
            differences[path] = measure_difference(kernel)
    return {path: difference for path, difference in differences.items() if difference}


def measure_difference(kernel: np.ndarray) -> float:
    """Measure how far a kernel is from bilinear upsampling of each class by itself.

    Args:
        kernel: float32[height, width, classes, classes].

    Returns:
        The largest difference of a number; 0 if all differences are those of half precision.
    """
    filter_ = bilinear_kernel(kernel.shape[:2])
    largest = 0.0
    for index in range(kernel.shape[2]):
        expected = np.zeros_like(kernel[:, :, index])
        expected[..., index] = filter_
        difference = np.abs(kernel[:, :, index] - expected)
        beyond = difference[difference > RELATIVE_LIMIT * expected + ABSOLUTE_LIMIT]
        largest = max(largest, float(beyond.max(initial=0)))
    return largest
