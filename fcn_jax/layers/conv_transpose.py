"""Transposed convolution, computed without inserted zeros.

Arrays are ``[*batch, *spatial, channel]`` with any number of batch axes; kernels are ``[*spatial, in / groups, out]``,
as in Flax.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from flax.linen.linear import default_kernel_init

from .backend import is_cpu, is_tpu, wants_plain
from .conv_transpose_methods import METHODS
from .sizes import (
    Array,
    ArrayLike,
    Ints,
    Padding,
    are_positive,
    check_method,
    check_operands,
    compute_output_sizes,
    count_axes,
    read_array,
    read_crops,
    read_ints,
    reshape,
)

# Patches of up to this many times the output are written out; see `conv_transpose`, "Method". For larger ones the
# convolution that gathers them is faster and takes less memory, as measured on two AVX2 cores.
_LARGEST_PATCHES = 4


def conv_transpose(
    x: ArrayLike,
    kernel: ArrayLike,
    strides: Ints = 1,
    padding: Padding = "SAME",
    *,
    output_padding: Ints = 0,
    feature_group_count: int = 1,
    bias: ArrayLike | None = None,
    precision: Any = None,
    method: str | None = None,
) -> Array:
    """Compute a transposed convolution, exactly and without inserted zeros.

    Every input value places a copy of the kernel on the output, `strides` apart. Overlapping copies add up:

        full[stride * i + j] += x[i] @ kernel[size - 1 - j]

    Then `padding` values are cropped off both ends of each axis. The kernel is laid out as in `nn.ConvTranspose`, which
    is mirrored with respect to PyTorch and Caffe.

    **Method.** ``"matmul"`` writes patches out and multiplies them with the kernel taps. ``"conv"`` computes the same
    without writing the patches out, as an ordinary convolution with ``ceil(kernel / stride)`` taps and
    ``stride ** axes`` times the channels. ``"rows"`` is such a convolution along all axes but the last, over an input
    with zeros inserted along that one. ``"plain"``, or ``"dilated"``, is XLA's convolution over an input with inserted
    zeros. ``None`` chooses when the function is traced:

    1. with groups on CPUs: "matmul", because XLA is slow there at grouped convolutions over inserted zeros, and at
       their gradients if a group has several inputs; but "plain" at stride 1 with one input per group, where XLA is
       fast;
    2. with stride 1 on every axis: "plain", which then inserts no zeros and is an ordinary convolution;
    3. on TPUs: "rows" with two axes or more and no groups, else "conv", because their matrix unit gathers patches
       itself. With few channels "rows" moves a third of the bytes (docs/performance.md);
    4. otherwise: "matmul" while the patches are at most 4 times the output, and "conv" above.

    **Memory** on CPUs in float32, in addition to arguments and result, in units of the result:

    - "matmul": 1, because the result is made before it is cropped, and up to two copies of patches and kernel. With
      the gradients, up to three times the sum of result, patches and kernel. The patches are
      ``ceil(kernel / stride) ** axes * in / (stride ** axes * out)``: 1 for kernel 4 and stride 2, 1/256 for kernel 64
      and stride 32, and without groups at most 4 if the method is None. With groups there is no such limit: the
      patches of a depthwise kernel of 9 at stride 2 are 6.25, so that it takes 13, with its gradients 20. If memory is
      short there, choose "plain".
    - "plain": 1, with the gradients 2; at stride 1, 0 and 1.
    - "conv" and "rows": 1, with the gradients up to 3.5.

    16-bit values are computed in float32 on CPUs, which takes twice as much; "plain" takes 4, with the gradients 6.

    **Values.** Inputs have to be finite. If a kernel is not a multiple of the stride, some taps are zero, and an
    infinite input becomes NaN in all outputs of the blocks that it reaches.

    **Sharding.** With automatic mesh axes any axis may be split. With explicit mesh axes
    (`jax.sharding.AxisType.Explicit`) only the first axis of `x` may be split, and the kernel may not. Under
    `jax.export` batch axes may be symbolic, and spatial axes too if the padding is numbers.

    Args:
        x: ``[*batch, *spatial, in]``, floating point, with any number of spatial axes.
        kernel: ``[*spatial, in / groups, out]``, of the same dtype.
        strides: upsampling factor, one for all axes or one per axis.
        padding: how much of the full output is cropped off, as in PyTorch and Caffe: an integer, or an integer or a
            (low, high) pair per axis. A negative value extends the output with zeros. "SAME" gives ``stride * n`` and
            "VALID" the full output, both as in `nn.ConvTranspose`. The explicit pairs of `nn.ConvTranspose` mean
            something else: they pad its dilated input and are ``kernel - 1 - padding``.
        output_padding: values added at the high end, fewer than the stride. As in PyTorch they are values of the full
            output if it has them, otherwise zeros.
        feature_group_count: number of groups; outputs of a group see the inputs of that group only.
        bias: ``[out]``, added everywhere, on the extended border too.
        precision: as in `jax.lax.dot_general`.
        method: "matmul", "conv", "rows", "plain" (or "dilated") or None; see above.

    Returns:
        ``[*batch, *output spatial, out]``, with the sizes of `conv_transpose_size` and the dtype of `x`.

    Raises:
        ValueError: shapes, dtypes or values do not fit together, or the method is unknown.

    Examples:
        Two input values place two overlapping copies of the kernel (3, 2, 1), mirrored:

        >>> x = jnp.array([[1.0], [10.0]])
        >>> kernel = jnp.array([3.0, 2.0, 1.0]).reshape(3, 1, 1)
        >>> conv_transpose(x, kernel, strides=2, padding=0)[:, 0].tolist()
        [1.0, 2.0, 13.0, 20.0, 30.0]
        >>> conv_transpose(x, kernel, strides=2, padding=((1, -1),))[:, 0].tolist()
        [2.0, 13.0, 20.0, 30.0, 0.0]
    """
    x = read_array(x, "x", "[*batch, *spatial, in]")
    kernel = read_array(kernel, "kernel", "[*spatial, in / groups, out]")
    axes = kernel.ndim - 2
    if axes < 1 or x.ndim < axes + 1:
        raise ValueError(
            f"x has the shape {x.shape} and the kernel {kernel.shape}; x must be [*batch, *spatial, in] and the kernel "
            "[*spatial, in / groups, out], with the same number of spatial axes, at least one."
        )
    groups, features = feature_group_count, kernel.shape[-1]
    check_operands(x, kernel, groups, "feature_group_count")
    if bias is not None and jnp.shape(bias) != (features,):
        raise ValueError(
            f"bias has the shape {jnp.shape(bias)}; it must be one value per output channel, ({features},)."
        )
    size = kernel.shape[:axes]
    batch, spatial = x.shape[: -axes - 1], x.shape[-axes - 1 : -1]
    if not are_positive((*size, *spatial)):
        raise ValueError(f"the input's size {spatial} and the kernel's {size} must be at least 1 on every axis.")
    strides = read_ints(strides, axes, "strides", 1)
    output_padding = read_ints(output_padding, axes, "output_padding", 0)
    crops = read_crops(padding, size, strides)
    sizes = compute_output_sizes(spatial, size, strides, crops, output_padding)
    if method is None:
        method = _choose_method(size, strides, kernel.shape[-2] * groups, features, groups)
    check_method(method, METHODS)

    low = tuple(crop[0] for crop in crops)
    x = x if len(batch) == 1 else reshape(x, math.prod(batch), *spatial, x.shape[-1])
    y = METHODS[method](x, kernel, strides, low, sizes, groups, precision)
    y = y if len(batch) == 1 else reshape(y, *batch, *sizes, features)
    return y if bias is None else y + jnp.asarray(bias, y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


def _choose_method(size, strides, ins: int, outs: int, groups: int) -> str:
    """Choose by the rule in the docstring of `conv_transpose`."""
    if wants_plain():
        return "plain"
    if groups > 1 and is_cpu():
        return "plain" if math.prod(strides) == 1 and ins == groups else "matmul"
    if math.prod(strides) == 1:
        return "plain"
    if is_tpu():
        return "rows" if len(strides) > 1 and groups == 1 else "conv"
    taps = math.prod(-(-k // s) for k, s in zip(size, strides, strict=True))
    small = taps * ins <= _LARGEST_PATCHES * math.prod(strides) * outs
    return "matmul" if small else "conv"


class ConvTranspose(nn.Module):
    """Transposed convolution with the parameters of `nn.ConvTranspose`, computed by `conv_transpose`.

    Checkpoints of `nn.ConvTranspose` can be used as they are, and "SAME" and "VALID" give the same results. A kernel
    made with ``transpose_kernel=True`` has to be changed to ``kernel[::-1, ::-1].swapaxes(-1, -2)``. PyTorch's weights
    ``[in, out / groups, kh, kw]`` become a kernel by ``weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)`` for one group.

    Attributes:
        features: number of output channels.
        kernel_size: one integer for a 1-D layer, otherwise one per axis.
        strides: upsampling factor, one for all axes or one per axis; None means 1.
        padding: "SAME", "VALID", integers or (low, high) pairs, which crop the OUTPUT as in PyTorch and Caffe; see
            `conv_transpose`.
        output_padding: values added at the high end, fewer than the stride.
        feature_group_count: number of groups g; the kernel is ``[*kernel_size, in / g, features]``.
        use_bias: whether to add a bias.
        dtype: dtype of the computation and the result; None infers it from input and parameters.
        param_dtype: dtype of the parameters.
        precision: as in `jax.lax.dot_general`.
        kernel_init: initializer of the kernel; `bilinear_init` starts as bilinear upsampling.
        bias_init: initializer of the bias.
        method: see `conv_transpose`.

    Raises:
        ValueError: as `conv_transpose`.

    Examples:
        >>> layer = ConvTranspose(21, (64, 64), (32, 32), padding=16, use_bias=False, kernel_init=bilinear_init)
        >>> scores, variables = layer.init_with_output(jax.random.key(0), jnp.ones((1, 4, 5, 21)))
        >>> scores.shape, variables["params"]["kernel"].shape
        ((1, 128, 160, 21), (64, 64, 21, 21))
    """

    features: int
    kernel_size: Ints
    strides: Ints | None = None
    padding: Padding = "SAME"
    output_padding: Ints = 0
    feature_group_count: int = 1
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: Any = None
    kernel_init: Callable[..., Any] = default_kernel_init
    bias_init: Callable[..., Any] = nn.initializers.zeros_init()
    method: str | None = None

    @nn.compact
    def __call__(self, x: ArrayLike) -> Array:
        """Upsample ``[*batch, *spatial, in]`` to ``[*batch, *output spatial, features]``."""
        x = read_array(x, "x", "[*batch, *spatial, in]")
        size = read_ints(self.kernel_size, count_axes(self.kernel_size, 1), "kernel_size", 1)
        (features,) = read_ints(self.features, 1, "features", 1)
        (groups,) = read_ints(self.feature_group_count, 1, "feature_group_count", 1)
        if x.ndim < len(size) + 1 or x.shape[-1] < 1 or x.shape[-1] % groups:
            raise ValueError(
                f"x has the shape {x.shape} with the kernel_size {size} and feature_group_count {groups}; it must be "
                f"[*batch, *spatial, in] with {len(size)} spatial axes, and the groups must divide its channels."
            )
        shape = (*size, x.shape[-1] // groups, features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, (features,), self.param_dtype) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return conv_transpose(
            x,  # pyright: ignore[reportArgumentType]
            kernel,  # pyright: ignore[reportArgumentType]
            1 if self.strides is None else self.strides,
            self.padding,
            output_padding=self.output_padding,
            feature_group_count=groups,
            bias=bias,
            precision=self.precision,
            method=self.method,
        )
