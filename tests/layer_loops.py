"""Layers written as loops over float64 arrays, and comparisons with them."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

# Compiled without LLVM's optimizations: most of the time of these tests is the compiler's.
quick_jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)
RELATIVE = {"float32": 2e-6, "bfloat16": 2.0**-8, "float64": 1e-14}


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_close(got, want, dtype="float32", scale=1.0):
    """Compare within the rounding of the largest value."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    largest = max(np.abs(want).max(initial=0.0), 1.0)
    np.testing.assert_allclose(got, want, rtol=0, atol=scale * RELATIVE[str(dtype)] * largest)


def with_gradients(forward, g, *args):
    """Compute the result and the gradients of ``sum(result * g)``, in one compiled function."""

    @quick_jit
    def run(g, *args):
        y, back = jax.vjp(forward, *args)
        return y, *back(g.astype(y.dtype))

    return run(g, *args)


def measure_memory(forward, *shapes):
    """Measure what the result and the gradients need in addition to arguments and results, in units of the result."""
    result = jax.eval_shape(forward, *shapes)
    both = [forward, lambda g, *args: jax.vjp(forward, *args)[1](g)]
    needs = [
        jax.jit(run).lower(*args).compile().memory_analysis().temp_size_in_bytes
        for run, args in zip(both, (shapes, (result, *shapes)), strict=True)
    ]
    return [need / (result.size * result.dtype.itemsize) for need in needs]


def export_for_every_size(function, shape="4, h, w, 2"):
    """Export a function with symbols for some of its input's sizes."""
    sizes = jax.export.symbolic_shape(shape)
    return jax.export.export(jax.jit(function))(jax.ShapeDtypeStruct(sizes, jnp.float32))


def crop(full, crops):
    """Crop axes 1 and 2; negative crops add zeros."""
    full = np.pad(full, [(0, 0), *((max(-a, 0), max(-b, 0)) for a, b in crops), (0, 0)])
    (top, bottom), (left, right) = [(max(a, 0), max(b, 0)) for a, b in crops]
    return full[:, top : full.shape[1] - bottom, left : full.shape[2] - right]


def conv_transpose_loop(x, kernel, strides, crops, extra=(0, 0), groups=1):
    """Compute a transposed convolution by its definition: every input value places a copy of the kernel."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)[::-1, ::-1]
    (sh, sw), (kh, kw) = strides, kernel.shape[:2]
    batch, height, width, ins = x.shape
    ins, outs = ins // groups, kernel.shape[-1] // groups
    full = np.zeros((batch, (height - 1) * sh + kh, (width - 1) * sw + kw, groups * outs))
    for g, i, j in itertools.product(range(groups), range(height), range(width)):
        here = np.einsum("bc,hwco->bhwo", x[:, i, j, g * ins : (g + 1) * ins], kernel[..., g * outs : (g + 1) * outs])
        full[:, i * sh : i * sh + kh, j * sw : j * sw + kw, g * outs : (g + 1) * outs] += here
    return crop(full, [(low, high - e) for (low, high), e in zip(crops, extra, strict=True)])


def conv_transpose_loop_gradients(x, kernel, strides, crops, extra, groups, g):
    """Compute the gradients of ``sum(conv_transpose_loop(x, kernel) * g)``: its loop, reading where it adds."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)[::-1, ::-1]
    (sh, sw), (kh, kw) = strides, kernel.shape[:2]
    ins, outs = x.shape[-1] // groups, kernel.shape[-1] // groups
    g = crop(np.asarray(g, np.float64), [(-low, e - high) for (low, high), e in zip(crops, extra, strict=True)])
    dx, dk = np.zeros_like(x), np.zeros_like(kernel)
    for n, i, j in itertools.product(range(groups), range(x.shape[1]), range(x.shape[2])):
        a, b = slice(n * ins, (n + 1) * ins), slice(n * outs, (n + 1) * outs)
        seen = g[:, i * sh : i * sh + kh, j * sw : j * sw + kw, b]
        dx[:, i, j, a] = np.einsum("bhwo,hwco->bc", seen, kernel[..., b])
        dk[..., b] += np.einsum("bc,bhwo->hwco", x[:, i, j, a], seen)
    return dx, dk[::-1, ::-1]


def conv_loop(x, kernel, stride=1, padding=0, dilation=1):
    """Compute a convolution window by window."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    padded, windows = _pad_and_place(x, kernel, stride, padding, dilation)
    y = np.zeros((len(x), *windows.shape, kernel.shape[-1]))
    for at, (rows, columns) in np.ndenumerate(windows):
        y[:, *at] = np.tensordot(padded[:, rows, columns], kernel, 3)
    return y


def conv_loop_gradients(x, kernel, stride, padding, dilation, g):
    """Compute the gradients of ``sum(conv_loop(x, kernel) * g)``: its loop, adding where it reads."""
    x, kernel, g = (np.asarray(array, np.float64) for array in (x, kernel, g))
    padded, windows = _pad_and_place(x, kernel, stride, padding, dilation)
    dx, dk = np.zeros_like(padded), np.zeros_like(kernel)
    for at, (rows, columns) in np.ndenumerate(windows):
        dx[:, rows, columns] += np.tensordot(g[:, *at], kernel, ((1,), (3,)))
        dk += np.tensordot(padded[:, rows, columns], g[:, *at], ((0,), (0,)))
    return dx[:, padding : dx.shape[1] - padding, padding : dx.shape[2] - padding], dk


def _pad_and_place(x, kernel, stride, padding, dilation):
    """Pad a map, and list the slices of rows and columns of every window."""
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    places = []
    for side, taps in zip(padded.shape[1:3], kernel.shape, strict=False):
        window = (taps - 1) * dilation + 1
        places.append([slice(start, start + window, dilation) for start in range(0, side - window + 1, stride)])
    windows = np.empty((len(places[0]), len(places[1])), object)
    for i, j in np.ndindex(windows.shape):
        windows[i, j] = places[0][i], places[1][j]
    return padded, windows
