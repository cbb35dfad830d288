"""The receptive field of a network: by its arithmetic, and measured by the gradient of a score.

Most of the gradient comes from the middle of the theoretical field (Luo et al. 2016, "Understanding the effective
receptive field in deep convolutional neural networks").
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fcn_jax.inference.explain.streams import list_streams
from fcn_jax.models.build import Network

Gradient = Callable[[Any, Float[Array, "1 height width 3"], Int[Array, "1 2"]], Float[Array, "height width"]]


class Field(NamedTuple):
    """The receptive field of the cells of a map.

    Attributes:
        side: side of the square of input pixels that a cell depends on.
        stride: input pixels from one cell to the next.
    """

    side: int
    stride: int


def list_fields(model: Network) -> dict[str, Field]:
    """List the theoretical receptive fields of a network's score layers, and of its logits under the name "logits".

    The fields of the logits are bounds: a pixel depends on one or two cells of the coarsest map along an axis. Logits
    of an upsampling of which nothing is known are left out. The function computes shapes only.
    """
    streams = list_streams(model)
    wanted = {("backbone",) if streams else ("classifier",)}
    run = functools.partial(
        model.init_with_output,
        mutable=True,
        capture_intermediates=lambda module, method: module.path in wanted and method == "__call__",
    )
    _, variables = jax.eval_shape(run, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    found = variables["intermediates"]
    if streams:
        # The score layers are 1x1 convolutions, so their fields are those of the maps that they read.
        maps = dict(zip(streams, reversed(found["backbone"]["__call__"][0]), strict=False))
    else:
        maps = {"classifier": found["classifier"]["__call__"][0]}
    if "logits" in found:
        maps["logits"] = found["logits"][0]
    return {name: Field(round(2 * m.reach + 1), m.stride) for name, m in maps.items()}


def make_gradient(model: Network, classes: int) -> Gradient:
    """Make the function (variables, image, size) -> |d score / d image|, summed over the channels.

    The image is normalized. The score is the largest logit of the first `classes`, those of the first task, of the
    pixel in the middle (`find_middle`) of the `size` rows and columns that belong to the image.
    """

    def gradient(variables: Any, image: jax.Array, size: jax.Array) -> jax.Array:
        def compute_score(image: jax.Array) -> jax.Array:
            logits = jnp.asarray(model.apply(variables, image, size))
            row, column = find_middle(size[0])
            return logits[0, row, column, :classes].max()

        return jnp.abs(jax.grad(compute_score)(image))[0].sum(axis=-1)

    return gradient


def find_middle(size: Any) -> tuple[Any, Any]:
    """Return row and column of the pixel in the middle of an image of `size` rows and columns."""
    return (size[0] - 1) // 2, (size[1] - 1) // 2


def average_windows(gradients: Sequence[Float[np.ndarray, "_ _"]], side: int) -> Float[np.ndarray, "{side} {side}"]:
    """Average gradients around the middle of their images.

    Args:
        gradients: for each image the gradient of every pixel.
        side: odd side of the window.

    Returns:
        The mean over the images that have the pixel; NaN where none has it.
    """
    sums, counts = np.zeros((side, side)), np.zeros((side, side))
    for gradient in gradients:
        rows, columns, window = intersect_window(gradient.shape, side)
        sums[window] += gradient[rows, columns]
        counts[window] += 1
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def measure_central_share(window: Float[np.ndarray, "side side"]) -> tuple[float, float]:
    """Measure the share of the gradient inside the central half of the theoretical field.

    Args:
        window: mean gradient over the theoretical field, NaN outside the images.

    Returns:
        The share inside the square of half the side, 0 to 1, and that of a field that is the same everywhere inside the
        images. NaN if the gradient is 0.
    """
    distance = np.abs(np.arange(len(window)) - len(window) // 2)
    central = distance <= (len(window) - 1) / 4
    inside = central[:, None] & central[None, :]
    total = np.nansum(window)
    known = ~np.isnan(window)
    share = float(np.nansum(window[inside]) / total) if total > 0 else float("nan")
    return share, float(known[inside].sum() / known.sum())


def find_side(window: Float[np.ndarray, "side side"], share: float) -> int:
    """Find the side of the smallest square around the middle that has a share of the gradient; 0 if that is 0."""
    distance = np.abs(np.arange(len(window)) - len(window) // 2)
    ring = np.maximum(distance[:, None], distance[None, :])
    sums = np.bincount(ring.ravel(), np.nan_to_num(window).ravel()).cumsum()
    return 2 * int(np.searchsorted(sums, share * sums[-1])) + 1 if sums[-1] > 0 else 0


def intersect_window(shape: tuple[int, ...], side: int) -> tuple[slice, slice, tuple[slice, slice]]:
    """Return the rows and columns of an image that a window around its middle has, and their place in the window."""
    within, window = [], []
    for middle, length in zip(find_middle(shape), shape, strict=False):
        first = middle - side // 2
        start, stop = max(first, 0), min(first + side, length)
        within.append(slice(start, stop))
        window.append(slice(start - first, stop - first))
    return within[0], within[1], (window[0], window[1])
