"""Convolution for CPUs as well, and how programs are compiled for it.

On accelerators it is `lax.conv_general_dilated` alone. On CPUs

* XLA has two libraries for it. The one it takes by itself (YNNPACK) computes kernels' gradients at a fifth of the
  forward rate and less; the other (Eigen) computes them at the forward rate: `compiler_options` asks for it.
* Both leave windows larger than the map, which deep layers have on small images, to a plain loop, a hundred times
  slower. Those are a matrix product here: patches (what each window sees, side by side) times the kernel.
* 3x3 kernels of many channels go Winograd's way, with a half to a quarter of the operations, and so do their
  gradients (winograd.py).
* For kernels' gradients maps are rearranged, and XLA would compute them anew on the way, out of order: barriers keep
  them as they are. The kernel is turned for the gradient of the map in two steps, of which each runs along memory.
"""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, ArrayLike, Float

from fcn_jax.layers.channel_sums import spread
from fcn_jax.layers.winograd import winograd_conv, winograd_kernel_gradient


@functools.cache
def compiler_options(training: bool = True) -> dict[str, str]:
    """For `jax.jit(..., compiler_options=...)` of a network; empty where there is nothing to say: on accelerators.

    Args:
        training: whether it is a training step; a forward pass alone, of which a folder of images needs several, is
            compiled in three quarters of the time and is as fast. A step would be up to a tenth slower so.
    """
    if jax.default_backend() != "cpu":
        return {}
    options = {
        "xla_cpu_experimental_ynn_fusion_type": "",  # no kind of operation is left to YNNPACK
        "xla_disable_hlo_passes": "cse_barrier_expander",  # which removes barriers before operations are fused
        # Else what depends on parameters alone, such as transformed kernels, is computed at the beginning and kept.
        "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    }
    if not training:
        options["xla_cpu_opt_preset"] = "CPU_OPT_PRESET_FAST_COMPILE"
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:  # a version of XLA that does not know them
        return {} if training else compiler_options()
    return options


class Conv(nn.Module):
    """A convolution over height and width; the parameters are those of `nn.Conv`, the same on both axes.

    Attributes:
        features: channels of the result.
        kernel_size: rows and columns of the window.
        strides: cells from one window to the next.
        padding: zeros on each side.
        kernel_dilation: cells from one number of the window to the next.
        feature_group_count: groups of channels that do not see each other.
        use_bias: whether a number a channel is added.
        kernel_init: of float[rows, columns, channels / groups, features].
        bias_init: of float[features].
        dtype: of the computation; parameters are float32.
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

    @nn.compact
    def __call__(self, x: Float[ArrayLike, "batch height width in"]) -> Float[Array, "batch rows columns features"]:
        """Convolves; a side of n gives floor((n + 2 padding - window) / strides) + 1."""
        x = jnp.asarray(x, self.dtype)
        shape = (*self.kernel_size, x.shape[-1] // self.feature_group_count, self.features)
        kernel = jnp.asarray(self.param("kernel", self.kernel_init, shape), self.dtype)
        y = conv(x, kernel, self.strides, self.padding, self.kernel_dilation, self.feature_group_count)
        if self.use_bias:
            y += spread(jnp.asarray(self.param("bias", self.bias_init, (self.features,)), self.dtype), y.shape)
        return y


def conv(
    x: Float[Array, "batch height width in"],
    kernel: Float[Array, "rows columns in_of_a_group out"],
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Float[Array, "batch rows_seen columns_seen out"]:
    """The convolution of `Conv`, without its parameters."""
    if jax.default_backend() != "cpu" or groups > 1:
        return _plain(x, kernel, stride, padding, dilation, groups)
    for side, window in zip(x.shape[1:3], kernel.shape[:2], strict=True):
        window = (window - 1) * dilation + 1
        # The gradient is a convolution as well, of the result's map.
        if window > min(side, (side + 2 * padding - window) // stride + 1):
            return _conv_of_patches(x, kernel, stride, padding, dilation)
    if kernel.shape[:2] == (1, 1):
        return _plain(x, kernel, stride, padding, dilation)
    return _conv(lax.optimization_barrier(x), kernel, stride, padding, dilation)


def _plain(x: Array, kernel: Array, stride: int, padding: int, dilation: int, groups: int = 1) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _conv(x: Array, kernel: Array, stride: int, padding: int, dilation: int) -> Array:
    if _suits_winograd(x, kernel, stride, padding, dilation):
        return winograd_conv(x, kernel, padding)
    return _plain(x, kernel, stride, padding, dilation)


@functools.partial(_conv.defjvp, symbolic_zeros=True)
def _conv_jvp(stride: int, padding: int, dilation: int, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, kernel), (dx, dkernel) = primals, tangents
    y = _conv(x, kernel, stride, padding, dilation)
    suits_winograd = _suits_winograd(x, kernel, stride, padding, dilation)
    terms = []
    # Training computes the transpose of what stands here, so it is written to have a fast one.
    if not isinstance(dx, SymbolicZero):
        if suits_winograd:

            def gradient(g: Array) -> Array:
                return winograd_conv(lax.optimization_barrier(g), kernel, 2 - padding, turned=True)

            terms += jax.linear_transpose(gradient, y)(dx)
        else:
            # JAX turns the kernel by 180 degrees in the transpose, which undoes this.
            turned = lax.optimization_barrier(lax.rev(kernel, (0, 1)))
            terms.append(_plain(dx, lax.rev(turned, (0, 1)), stride, padding, dilation))
    if not isinstance(dkernel, SymbolicZero):
        # Several devices would add up their products before they are transformed to 9 numbers: 2 to 4 times the bytes.
        if suits_winograd and jax.device_count() == 1:
            # Behind a barrier the windows of `x` are made again; else they would be kept from the forward pass.
            again = lax.optimization_barrier(x)
            kernel_gradient = functools.partial(winograd_kernel_gradient, again, padding=padding)
            terms += jax.linear_transpose(kernel_gradient, y)(dkernel)
        else:
            terms.append(_plain(x, dkernel, stride, padding, dilation))
    return y, functools.reduce(operator.add, terms)


def _suits_winograd(x: Array, kernel: Array, stride: int, padding: int, dilation: int) -> bool:
    """Whether it is faster that way, and does not take too much memory."""
    plain = (
        kernel.shape[:2] == (3, 3)
        and stride == dilation == 1
        and padding <= 2
        and x.dtype == kernel.dtype == jnp.float32
    )
    narrow, wide = sorted(kernel.shape[2:])
    cells = x.size // x.shape[-1]
    # Measured on two cores. Transforming the kernel pays from some hundred cells on; transforming maps from 64 channels
    # on while they are small, and else from 128. Products take 1.5 to 2 times the result, at most 0.5 GB.
    largest = 2**24 if narrow < 128 else 2**26
    return plain and narrow >= 64 and cells >= 512 and cells * wide <= largest


def _conv_of_patches(x: Array, kernel: Array, stride: int, padding: int, dilation: int) -> Array:
    rows, columns, ins, outs = kernel.shape
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = ((x.shape[i + 1] - (kernel.shape[i] - 1) * dilation - 1) // stride + 1 for i in (0, 1))

    def seen(row: int, column: int) -> Array:
        last = (len(x), row + (height - 1) * stride + 1, column + (width - 1) * stride + 1, ins)
        return lax.slice(x, (0, row, column, 0), last, (1, stride, stride, 1))

    patches = [seen(row * dilation, column * dilation) for row in range(rows) for column in range(columns)]
    return jnp.concatenate(patches, axis=-1) @ kernel.reshape(-1, outs)
