"""Convolution over height and width.

On accelerators `conv` is `lax.conv_general_dilated`. On CPUs it differs in three ways:

* XLA leaves windows larger than the map to a plain loop, which is a hundred times slower. Deep layers have such windows
  on small images. They are computed as a matrix product: patches (the inputs of each window) times the kernel.
* 3x3 convolutions with many channels use Winograd's algorithm, and so do their gradients (see winograd.py). It needs a
  half to a quarter of the operations. With a dilation of d it is computed on the d x d maps of every d-th cell, in each
  of which the kernel's taps are neighbours.
* For the gradient of a kernel XLA rearranges the maps, and would compute them again in an order that jumps through
  memory. Optimization barriers prevent this. For the gradient of the map the kernel is rotated in two steps, each of
  which moves along memory.

Compile with `jit_options` of backend.py: with the library that XLA chooses by itself, gradients are slower.
"""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.custom_derivatives import SymbolicZero

from .backend import is_cpu, is_single_device
from .channel_sums import broadcast_channels
from .sizes import ArrayLike, are_known, check_method, check_operands, is_int, read_array, read_ints
from .winograd import winograd_conv, winograd_kernel_gradient

_METHODS = ("plain", "barriers", "winograd", "patches")

# When Winograd's algorithm is faster than the direct sum, as measured on two AVX2 cores.
_FEWEST_CELLS = 512  # with fewer cells, transforming the kernel takes too long
_FEWEST_CHANNELS = 64  # with fewer channels, transforming the maps takes too long
_FEWEST_CELLS_APART = 4  # with fewer rows or columns of every d-th cell, at a dilation of d, tiles are half empty
_MANY_CHANNELS = 128  # from here on it is faster on large maps too
# Upper limit of cells times channels of the wider map. The products take 1.5 to 2 times as many numbers, 0.5 GB.
_LARGEST_MAP = 2**26
_LARGEST_MAP_OF_FEW_CHANNELS = 2**24  # for fewer than `_MANY_CHANNELS`


class Conv(nn.Module):
    """Convolution over height and width with the parameters of `nn.Conv`.

    Strides, padding and dilation are the same on both axes.

    Attributes:
        features: number of output channels.
        kernel_size: rows and columns of the window.
        strides: input cells from one window to the next.
        padding: zeros on each side.
        kernel_dilation: input cells between neighbouring kernel taps.
        feature_group_count: number of groups; outputs of a group see the inputs of that group only.
        use_bias: whether to add a bias.
        kernel_init: initializer of the kernel, float32[rows, columns, in / groups, features].
        bias_init: initializer of the bias, float32[features].
        dtype: dtype of the computation; parameters are float32.
        method: see `conv`.

    Raises:
        ValueError: as `conv`.

    Examples:
        >>> layer = Conv(8, (3, 3), strides=2, padding=1)
        >>> y, variables = layer.init_with_output(jax.random.key(0), jnp.ones((1, 6, 7, 3)))
        >>> y.shape, variables["params"]["kernel"].shape
        ((1, 3, 4, 8), (3, 3, 3, 8))
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int = 1
    padding: int = 0
    kernel_dilation: int = 1
    feature_group_count: int = 1
    use_bias: bool = True
    kernel_init: Any = nn.initializers.lecun_normal()
    bias_init: Any = nn.initializers.zeros
    dtype: Any = jnp.float32
    method: str | None = None

    @nn.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        """Convolve ``[batch, height, width, in]`` to ``[batch, rows, columns, features]``, with sizes as in `conv`."""
        x = jnp.asarray(read_array(x, "x", "[batch, height, width, in]"), self.dtype)
        window = read_ints(self.kernel_size, 2, "kernel_size", 1)
        (features,) = read_ints(self.features, 1, "features", 1)
        (groups,) = read_ints(self.feature_group_count, 1, "feature_group_count", 1)
        if x.ndim != 4 or x.shape[-1] < 1 or x.shape[-1] % groups:
            raise ValueError(
                f"x has the shape {x.shape} and feature_group_count is {groups}; x must be [batch, height, width, in], "
                "and the groups must divide its channels."
            )
        shape = (*window, x.shape[-1] // groups, features)
        kernel = jnp.asarray(self.param("kernel", self.kernel_init, shape, jnp.float32), self.dtype)
        y = conv(x, kernel, self.strides, self.padding, self.kernel_dilation, groups, self.method)
        if self.use_bias:
            bias = jnp.asarray(self.param("bias", self.bias_init, (features,), jnp.float32), self.dtype)
            y += broadcast_channels(bias, y.shape, "plain" if self.method == "plain" else None)
        return y


def conv(
    x: ArrayLike,
    kernel: ArrayLike,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    method: str | None = None,
) -> jax.Array:
    """Compute a convolution over height and width.

    **Method.** ``"plain"`` is `lax.conv_general_dilated`. The other methods are faster on CPUs and have one group:
    ``"barriers"`` is the plain convolution with optimization barriers for its gradients, ``"winograd"`` is Winograd's
    algorithm (3x3, stride 1, padding 0 to 2 or a dilation above 1, float32), ``"patches"`` is a matrix product of
    written-out patches. ``None`` chooses when the function is traced: "plain" on accelerators, with groups, and for
    sizes that are symbols of `jax.export`; "patches" if the window is larger than the map or the result; "winograd" if
    it is faster and its memory is small; otherwise "barriers".

    Values have to be finite: with Winograd's algorithm an infinite one makes NaN of its neighbours.

    Args:
        x: ``[batch, height, width, in]``.
        kernel: ``[rows, columns, in / groups, out]``, of the same dtype.
        stride: input cells from one window to the next.
        padding: zeros on each side.
        dilation: input cells between neighbouring kernel taps.
        groups: number of groups; outputs of a group see the inputs of that group only.
        method: "plain", "barriers", "winograd", "patches" or None; see above.

    Returns:
        ``[batch, rows, columns, out]``. A side of n gives
        ``floor((n + 2 * padding - (k - 1) * dilation - 1) / stride) + 1``.

    Raises:
        ValueError: shapes, dtypes or values do not fit together, no window fits into the map, or the method is unknown
            or cannot compute this convolution.

    Examples:
        >>> x = jnp.arange(4.0).reshape(1, 1, 4, 1)
        >>> conv(x, jnp.ones((1, 2, 1, 1)))[0, 0, :, 0].tolist()
        [1.0, 3.0, 5.0]
    """
    x, kernel = _read_operands(x, kernel, groups)
    (stride,) = read_ints(stride, 1, "stride", 1)
    (padding,) = read_ints(padding, 1, "padding", 0)
    (dilation,) = read_ints(dilation, 1, "dilation", 1)
    window = tuple((k - 1) * dilation + 1 for k in kernel.shape[:2])
    if any(is_int(n) and n + 2 * padding < k for n, k in zip(x.shape[1:3], window, strict=True)):
        raise ValueError(
            f"the window {window} is larger than the map {x.shape[1:3]} with the padding {padding}; give a larger map, "
            "more padding or a smaller kernel."
        )
    if method is None:
        method = _choose_method(x, kernel, stride, padding, dilation, groups)
    check_method(method, _METHODS)
    if method == "plain":
        return _convolve_plainly(x, kernel, stride, padding, dilation, groups)
    if groups > 1:
        raise ValueError(f"method {method!r} has one group and groups is {groups}; give method=None or 'plain'.")
    if method == "patches":
        return _multiply_patches(x, kernel, stride, padding, dilation)
    if method == "winograd" and x.size == 0:
        method = "barriers"
    if method == "winograd" and not _can_use_winograd(x, kernel, stride, padding, dilation):
        got = f"{kernel.shape[0]}x{kernel.shape[1]}, {stride}, {padding}, {dilation} and {x.dtype}"
        raise ValueError(
            "method 'winograd' needs a 3x3 kernel, stride 1, a padding of 0 to 2 or a dilation above 1, and float32; "
            f"got {got}; give method=None or 'plain'."
        )
    if method == "winograd" and dilation > 1:
        return _convolve_phases(x, kernel, padding, dilation)
    return _conv(lax.optimization_barrier(x), kernel, stride, padding, dilation, method)


def _read_operands(x: Any, kernel: Any, groups: Any) -> tuple[jax.Array, jax.Array]:
    """Read map and kernel as arrays that fit each other."""
    x = read_array(x, "x", "[batch, height, width, in]")
    kernel = read_array(kernel, "kernel", "[rows, columns, in / groups, out]")
    if x.ndim != 4 or kernel.ndim != 4 or 0 in (*x.shape[1:3], *kernel.shape[:2]):
        raise ValueError(
            f"x has the shape {x.shape} and the kernel {kernel.shape}; x must be [batch, height, width, in] and the "
            "kernel [rows, columns, in / groups, out], with at least one cell in each."
        )
    check_operands(x, kernel, groups, "groups")
    return x, kernel


def _choose_method(x: jax.Array, kernel: jax.Array, stride: int, padding: int, dilation: int, groups: int) -> str:
    """Choose by the rule in the docstring of `conv`."""
    if not is_cpu() or groups > 1 or not are_known(x.shape):
        return "plain"
    for side, window in zip(x.shape[1:3], kernel.shape[:2], strict=True):
        window = (window - 1) * dilation + 1
        # The gradient is a convolution too, over a map of the result's size.
        if window > min(side, (side + 2 * padding - window) // stride + 1):
            return "patches"
    narrow, wide = sorted(kernel.shape[2:])
    cells = x.size // x.shape[-1]
    largest = _LARGEST_MAP_OF_FEW_CHANNELS if narrow < _MANY_CHANNELS else _LARGEST_MAP
    # Winograd's reshapes are not defined for a map that is split over a mesh with explicit axes.
    if any(jax.typeof(x).sharding.spec):
        return "barriers"
    is_faster = narrow >= _FEWEST_CHANNELS and cells >= _FEWEST_CELLS and cells * wide <= largest
    is_faster &= dilation == 1 or min(x.shape[1:3]) >= _FEWEST_CELLS_APART * dilation
    return "winograd" if is_faster and _can_use_winograd(x, kernel, stride, padding, dilation) else "barriers"


def _can_use_winograd(x: jax.Array, kernel: jax.Array, stride: int, padding: int, dilation: int) -> bool:
    return (
        kernel.shape[:2] == (3, 3)
        and stride == 1
        and (padding <= 2 or dilation > 1)
        and x.dtype == kernel.dtype == jnp.float32
    )


def _convolve_plainly(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int, dilation: int, groups: int = 1
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _convolve_phases(x: jax.Array, kernel: jax.Array, padding: int, dilation: int) -> jax.Array:
    """Convolve the maps of every `dilation`-th cell with Winograd's algorithm, and put their results together."""
    images, height, width, _ = x.shape
    rows, columns = (side + 2 * padding - 2 * dilation for side in (height, width))  # of the result
    down, right = (-(rows % -dilation), -(columns % -dilation))
    x = jnp.pad(x, ((0, 0), (padding, padding + down), (padding, padding + right), (0, 0)))
    y = _conv(lax.optimization_barrier(_split_phases(x, dilation)), kernel, 1, 0, 1, "winograd")
    y = y.reshape(images, dilation, dilation, *y.shape[1:]).transpose(0, 3, 1, 4, 2, 5)
    return y.reshape(images, rows + down, columns + right, -1)[:, :rows, :columns]


def _split_phases(x: jax.Array, dilation: int) -> jax.Array:
    """Split ``[n, d * h, d * w, c]`` into the maps of every d-th cell, ``[n * d * d, h, w, c]``."""
    images, height, width, channels = x.shape
    x = x.reshape(images, height // dilation, dilation, width // dilation, dilation, channels)
    return x.transpose(0, 2, 4, 1, 3, 5).reshape(-1, height // dilation, width // dilation, channels)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4, 5))
def _conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int, dilation: int, method: str) -> jax.Array:
    if method == "winograd":
        return winograd_conv(x, kernel, padding)
    return _convolve_plainly(x, kernel, stride, padding, dilation)


@functools.partial(_conv.defjvp, symbolic_zeros=True)
def _conv_jvp(
    stride: int, padding: int, dilation: int, method: str, primals: Any, tangents: Any
) -> tuple[jax.Array, jax.Array]:
    """Compute value and tangent. Training runs the tangent's transpose, so the tangent is written to make that fast."""
    (x, kernel), (dx, dkernel) = primals, tangents
    y = _conv(x, kernel, stride, padding, dilation, method)
    terms = []
    if not isinstance(dx, SymbolicZero):
        if method == "winograd":

            def compute_map_gradient(g: jax.Array) -> jax.Array:
                return winograd_conv(lax.optimization_barrier(g), kernel, 2 - padding, rotate=True)

            terms += jax.linear_transpose(compute_map_gradient, y)(dx)
        else:
            # JAX rotates the kernel by 180 degrees in the transpose, which undoes this rotation.
            rotated = lax.optimization_barrier(lax.rev(kernel, (0, 1)))
            terms.append(_convolve_plainly(dx, lax.rev(rotated, (0, 1)), stride, padding, dilation))
    if not isinstance(dkernel, SymbolicZero):
        # Several devices would add up their products before the products are transformed to 9 numbers for each pair of
        # channels. That is 2 to 4 times as many bytes to exchange.
        if method == "winograd" and is_single_device():
            # The barrier makes XLA compute the windows of `x` again. It would keep those of the forward pass otherwise.
            again = lax.optimization_barrier(x)
            compute_kernel_gradient = functools.partial(winograd_kernel_gradient, again, padding=padding)
            terms += jax.linear_transpose(compute_kernel_gradient, y)(dkernel)
        else:
            terms.append(_convolve_plainly(x, dkernel, stride, padding, dilation))
    return y, functools.reduce(operator.add, terms)


def _multiply_patches(x: jax.Array, kernel: jax.Array, stride: int, padding: int, dilation: int) -> jax.Array:
    rows, columns, ins, outs = kernel.shape
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = ((x.shape[i + 1] - (kernel.shape[i] - 1) * dilation - 1) // stride + 1 for i in (0, 1))

    def slice_tap(row: int, column: int) -> jax.Array:
        last = (len(x), row + (height - 1) * stride + 1, column + (width - 1) * stride + 1, ins)
        return lax.slice(x, (0, row, column, 0), last, (1, stride, stride, 1))

    patches = [slice_tap(row * dilation, column * dilation) for row in range(rows) for column in range(columns)]
    return jnp.concatenate(patches, axis=-1) @ kernel.reshape(-1, outs)
