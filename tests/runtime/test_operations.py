"""The count of operations, against loops over single products and against XLA."""

import itertools

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from fcn_jax.runtime.operations import count_flops


def count(function, *args) -> int:
    return count_flops(jax.jit(function).trace(*args).jaxpr.jaxpr)


def count_products(size, kernel, stride, padding, holes, dilation) -> int:
    """Walk over all outputs and kernel positions of one channel, and count the products with an input."""
    width = [(n - 1) * h + 1 for n, h in zip(size, holes, strict=True)]
    outputs = [
        (w + lo + hi - (k - 1) * d - 1) // s + 1
        for w, (lo, hi), k, d, s in zip(width, padding, kernel, dilation, stride, strict=True)
    ]
    found = 0
    for out in itertools.product(*map(range, outputs)):
        for tap in itertools.product(*map(range, kernel)):
            place = [o * s + t * d - p[0] for o, s, t, d, p in zip(out, stride, tap, dilation, padding, strict=True)]
            found += all(0 <= p < w and p % h == 0 for p, w, h in zip(place, width, holes, strict=True))
    return found


@pytest.mark.parametrize(
    ("stride", "padding", "holes", "dilation"),
    [
        ((1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1)),
        ((2, 1), ((1, 1), (2, 0)), (1, 1), (1, 1)),
        ((1, 1), ((3, 3), (1, 2)), (1, 1), (2, 3)),
        ((1, 1), ((2, 2), (3, 1)), (2, 4), (1, 1)),  # a transposed convolution
        ((1, 1), ((-1, 2), (0, -1)), (2, 1), (1, 1)),
    ],
)
def test_a_convolution_counts_each_product_with_an_input(stride, padding, holes, dilation):
    x, kernel = jnp.zeros((2, 7, 9, 4)), jnp.zeros((3, 4, 2, 6))

    def convolve(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, stride, padding, holes, dilation, ("NHWC", "HWIO", "NHWC"), feature_group_count=2
        )

    # 2 images, 6 output channels, each from the 2 input channels of its group
    expected = 2 * 2 * 6 * 2 * count_products((7, 9), (3, 4), stride, padding, holes, dilation)
    assert count(convolve, x, kernel) == expected


def test_the_gradients_of_a_convolution_count_as_xla_counts_them():
    x, kernel = jnp.zeros((4, 12, 10, 3)), jnp.zeros((3, 3, 3, 5))

    def loss(x, kernel):
        y = lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.vdot(y, y)

    ours = count(jax.grad(loss, (0, 1)), x, kernel)
    xla = jax.jit(jax.grad(loss, (0, 1))).lower(x, kernel).cost_analysis()["flops"]
    assert ours == pytest.approx(xla, rel=0.02)  # XLA counts the doubling of y, too


def test_a_product_of_batches_of_matrices():
    assert count(jnp.matmul, jnp.zeros((5, 3, 4)), jnp.zeros((5, 4, 6))) == 2 * 5 * 3 * 4 * 6


def test_programs_within_a_program():
    square = jnp.zeros((8, 8))
    once = 2 * 8**3

    @jax.custom_vjp
    def product(x):
        return x @ x

    product.defvjp(lambda x: (x @ x, x), lambda x, cotangent: (cotangent @ x.T + x.T @ cotangent,))

    def repeated(x):
        return lax.scan(lambda carry, _: (carry @ x, None), x, length=7)[0]

    def branched(x):
        return lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert count(jax.jit(product), square) == once
    assert count(jax.grad(lambda x: product(x).sum()), square) == 3 * once
    assert count(jax.checkpoint(product), square) == once
    assert count(repeated, square) == 7 * once
    assert count(branched, square) == 2 * once
    assert count(lambda x: x + jnp.sin(x), square) == 0
