"""Max pooling whose gradient is fast on CPUs."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .backend import wants_plain
from .sizes import (
    Array,
    ArrayLike,
    Ints,
    Padding,
    are_positive,
    check_method,
    read_array,
    read_ints,
    read_pairs,
    reshape,
    to_lists,
)

# Most places of a window whose codes fit one byte. Places are numbered from 0, and two more codes stand for no place;
# see `_take_places`.
_PLACES_OF_A_BYTE = 2**8 - 2

_METHODS = ("plain", "places")


def max_pool(
    x: ArrayLike,
    window: Ints,
    strides: Ints | None = None,
    padding: Padding = 0,
    *,
    ceil: bool = False,
    method: str | None = None,
) -> Array:
    """Take the largest value of each window.

    Without `ceil` the result is that of `nn.max_pool`. The gradient goes to the FIRST largest value of a window in
    reading order, as in PyTorch and Caffe.

    **Method.** With ``"places"`` the forward pass stores the place of the largest value in one byte, or in four bytes
    for windows of 255 places or more, and the backward pass compares it. ``"plain"`` is `jax.lax.reduce_window`, whose
    gradient searches every window again. ``None`` chooses "places"; in `plain_methods`, and for the symbolic sizes of
    `jax.export`, "plain".

    **NaN and infinity.** A window with a NaN gives NaN. Its gradient goes to the largest value before the first NaN in
    reading order, or to the NaN if nothing is before it. The gradient of a window of nothing but -inf goes to its first
    place. Either gradient is lost if that place lies in the padding, which counts as -inf. With "plain" the gradients
    of both kinds of window are XLA's.

    Args:
        x: ``[*batch, height, width, channel]``, floating point or integers.
        window: height and width of the window, or one integer for both.
        strides: distance between windows; None means the window's size, where `nn.max_pool` takes 1.
        padding: "SAME" or "VALID" as in `nn.max_pool`, or integers or (low, high) pairs of the INPUT's border, smaller
            than the window. The values there are never the largest.
        ceil: round the number of windows up instead of down, as in Caffe and in PyTorch with ``ceil_mode``:
            ``ceil((n + low + high - window) / stride) + 1``, at least one, without a last one that would start behind
            the input and its low padding. The last window may then reach beyond the high end.
        method: "places", "plain" or None; see above.

    Returns:
        ``[*batch, windows down, windows across, channel]``.

    Raises:
        ValueError: the values are neither floating point nor integers, the padding is not smaller than the window, the
            window is larger than the input (without `ceil`), the method is unknown, or it is "places" for an input of
            symbolic sizes.

    Examples:
        >>> x = jnp.arange(5.0).reshape(1, 5, 1)
        >>> max_pool(x, (1, 2))[0, :, 0].tolist()
        [1.0, 3.0]
        >>> max_pool(x, (1, 2), ceil=True)[0, :, 0].tolist()
        [1.0, 3.0, 4.0]
    """
    x = read_array(x, "x", "[*batch, height, width, channel]")
    if x.ndim < 3 or not are_positive(x.shape[-3:-1]):
        raise ValueError(
            f"x has the shape {x.shape}; it must be [*batch, height, width, channel], with height and width at least 1."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating) and not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(
            f"x is {x.dtype}; it must be floating point or integers. For the maximum of truth values cast them: "
            "x.astype(jnp.uint8)."
        )
    window = read_ints(window, 2, "window", 1)
    strides = window if strides is None else read_ints(strides, 2, "strides", 1)
    spatial = x.shape[-3:-1]
    try:
        pads = _read_pads(padding, spatial, window, strides)
        axes = zip(spatial, window, strides, pads, strict=True)
        counts = [_count_windows(n, k, s, low, high, ceil) for n, k, s, (low, high) in axes]
    except jax.errors.InconclusiveDimensionOperation as error:
        raise ValueError(
            f"x has the shape {x.shape}, and the number of windows depends on what its symbols stand for; give "
            "multiples of the strides, such as 2 * n."
        ) from error
    if not are_positive(counts):
        raise ValueError(
            f"the window {window} is larger than the input {spatial} with the padding {pads}; give a larger input, "
            "more padding, or ceil=True."
        )
    has_symbols = not all(isinstance(n, int) for n in spatial)
    if method is None:
        method = "plain" if wants_plain() or has_symbols else "places"
    check_method(method, _METHODS)
    if method == "places" and has_symbols:
        raise ValueError(f"x has the shape {x.shape}, and the method 'places' needs numbers there; leave method out.")
    pool = _max_pool if method == "places" else _reduce_windows
    y = pool(
        reshape(x, math.prod(x.shape[:-3]), *x.shape[-3:]), window, strides, (pads[0][0], pads[1][0]), tuple(counts)
    )
    return reshape(y, *x.shape[:-3], *y.shape[1:])


def _read_pads(padding, spatial, window, strides):
    padding = to_lists(padding)
    if padding == "SAME":
        excess = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(spatial, window, strides, strict=True)]
        return tuple((e // 2, e - e // 2) for e in excess)
    pads = read_pairs(0 if padding == "VALID" else padding, 2)
    if any(not 0 <= p < k for pair, k in zip(pads, window, strict=True) for p in pair):
        raise ValueError(
            f"padding {padding!r} with the window {window}: it must be at least 0 and smaller than the window, or a "
            "window could see nothing but padding."
        )
    return pads


def _count_windows(n, k, s, low, high, ceil):
    room = n + low + high - k
    count = (max(-(-room // s), 0) if ceil else room // s) + 1
    return count - 1 if (count - 1) * s >= n + low else count


def _find_least_value(dtype) -> np.ndarray:
    return np.asarray(-np.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min, dtype)


def _reduce_windows(x, window, strides, low, counts):
    spatial = zip(counts, strides, window, low, x.shape[1:-1], strict=True)
    pads = [(a, max((c - 1) * s + k - a - n, 0)) for c, s, k, a, n in spatial]
    sizes, steps, pads = (1, *window, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0))
    return lax.reduce_window(x, _find_least_value(x.dtype), lax.max, sizes, steps, pads)


def _slice_along(x, axis, window, stride, low, count):
    """Slice the values at each place of the window along an axis, in order, in all windows."""
    least, size = jnp.asarray(_find_least_value(x.dtype)), x.shape[axis]
    taps = []
    for place in range(window):
        # In windows before the first one, and after the last one, this place is in the padding.
        first, last = max(-(-(low - place) // stride), 0), min((size - 1 - place + low) // stride, count - 1)
        start = min(first * stride + place - low, size)
        tap = lax.slice_in_dim(x, start, start + max((last - first) * stride + 1, 0), stride, axis)
        # Each tap is padded alone. XLA fuses that with what follows; a padded `x` it would write to memory.
        pads = [(0, 0, 0)] * x.ndim
        pads[axis] = (first, count - first - tap.shape[axis], 0)
        taps.append(lax.pad(tap, least, pads))
    return taps


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3, 4))
def _max_pool(x, window, strides, low, counts):
    """Take the largest values down and then across, which reads fewer values where windows overlap."""
    rows = functools.reduce(jnp.maximum, _slice_along(x, 1, window[0], strides[0], low[0], counts[0]))
    if window[1] > strides[1]:
        rows = lax.optimization_barrier(rows)  # or each of them is computed for every window that it is in
    return functools.reduce(jnp.maximum, _slice_along(rows, 2, window[1], strides[1], low[1], counts[1]))


def _slice_taps(x, window, strides, low, counts):
    """Slice the values of each place of the window, in reading order, in all windows."""
    least = jnp.asarray(_find_least_value(x.dtype))
    ends = [(c - 1) * s + k for c, s, k in zip(counts, strides, window, strict=True)]
    pads = [(a, end - a - n, 0) for a, end, n in zip(low, ends, x.shape[1:-1], strict=True)]
    x = lax.pad(x, least, [(0, 0, 0), *pads, (0, 0, 0)])
    reach = [(c - 1) * s + 1 for c, s in zip(counts, strides, strict=True)]
    return [
        lax.slice(x, (0, i, j, 0), (x.shape[0], i + reach[0], j + reach[1], x.shape[3]), (1, *strides, 1))
        for i, j in np.ndindex(*window)
    ]


@_max_pool.defjvp
def _max_pool_jvp(window, strides, low, counts, primals, tangents):
    (x,), (dx,) = primals, tangents
    # The places are found by the same comparisons as the values. To look for values that equal `y` would be faster, but
    # XLA may compute `x` twice, once for each, with other roundings; then none is equal.
    values = _slice_taps(x, window, strides, low, counts)
    code = jnp.uint8 if len(values) <= _PLACES_OF_A_BYTE else jnp.int32
    y, place = values[0], jnp.zeros(values[0].shape, code)
    for tap, value in enumerate(values[1:], start=1):
        place = jnp.where(value > y, jnp.asarray(tap, code), place)
        y = jnp.maximum(y, value)
    return y, _take_places(dx, place, window, strides, low)


def _take_places(dx, place, window, strides, low):
    """Take the values of `dx` at the stored places.

    The function is linear in `dx`, and its transpose, the gradient, does not scatter. Input positions form blocks of
    one stride. Block Q belongs to the windows Q - t, at most ``ceil(window / stride)`` of them per axis. `place` is
    shifted instead of `dx`, so that the transpose reads shifted cotangents and writes every position once.
    """
    batch, *counts, channels = place.shape
    reach = [-(-k // s) for k, s in zip(window, strides, strict=True)]
    blocks = [c + t - 1 for c, t in zip(counts, reach, strict=True)]
    nowhere = math.prod(window)
    # codes[t, r, u, v]: the window's number for the place in block (t, u) at phase (r, v).
    codes = np.full([t * s for t, s in zip(reach, strides, strict=True)], nowhere)
    codes[: window[0], : window[1]] = np.arange(nowhere).reshape(window)
    codes = codes.reshape(reach[0], strides[0], reach[1], strides[1])

    ends = [q * s - a - n for q, s, a, n in zip(blocks, strides, low, dx.shape[1:-1], strict=True)]
    dx = lax.pad(dx, jnp.zeros((), dx.dtype), [(0, 0, 0), (low[0], ends[0], 0), (low[1], ends[1], 0), (0, 0, 0)])
    dx = reshape(dx, batch, blocks[0], strides[0], blocks[1], strides[1], channels)
    # The padding is a code that no place has. It is not `nowhere`, which stands for phases beyond the window.
    border = [(0, 0, 0), (reach[0] - 1, reach[0] - 1, 0), (reach[1] - 1, reach[1] - 1, 0), (0, 0, 0)]
    place = lax.pad(place, jnp.asarray(nowhere + 1, place.dtype), border)
    dy = jnp.zeros((), dx.dtype)
    for t, u in np.ndindex(*reach):
        rows, columns = reach[0] - 1 - t, reach[1] - 1 - u
        shifted = place[:, rows : rows + blocks[0], columns : columns + blocks[1]]
        code = jnp.asarray(codes[t, :, u], place.dtype)[None, None, :, None, :, None]
        is_here = shifted[:, :, None, :, None] == code
        taken = jnp.where(is_here, dx, jnp.zeros((), dx.dtype)).sum((2, 4))
        dy = dy + taken[:, t : t + counts[0], u : u + counts[1]]
    return dy
