"""Sizes and paddings of transposed convolutions."""

import itertools

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_jax.layers import conv_transpose, conv_transpose_padding, conv_transpose_size


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(-4, 4), st.integers(-4, 4)),
)
@settings(deadline=None, derandomize=True, database=None)
def test_size_is_the_formula_and_that_of_the_layer(n, kernel, stride, padding):
    want = tuple((a - 1) * s - 2 * p + k for a, k, s, p in zip(n, kernel, stride, padding, strict=True))
    if min(want) < 1:
        with pytest.raises(ValueError, match="at least 1"):
            conv_transpose_size(n, kernel, stride, padding)
        return
    assert conv_transpose_size(n, kernel, stride, padding) == want
    assert conv_transpose_size(n[0], kernel[0], stride[0], ((padding[0], padding[0]),)) == (want[0],)
    extra = stride[0] - 1
    assert conv_transpose_size(n[0], kernel[0], stride[0], padding[0], extra) == want[0] + extra
    with pytest.raises(ValueError, match="smaller than the stride"):
        conv_transpose_size(n[0], kernel[0], stride[0], padding[0], stride[0])
    x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((*n, 1), (*kernel, 1, 1)))
    assert jax.eval_shape(lambda x, w: conv_transpose(x, w, stride, padding), x, w).shape[:-1] == want


def test_padding_gives_exactly_the_multiple():
    for kernel, stride, n in itertools.product(range(1, 10), range(1, 10), (1, 5)):
        if stride == 1 and kernel % 2 == 0:
            continue
        padding, output_padding = conv_transpose_padding(kernel, stride)
        assert output_padding in (0, 1)
        assert conv_transpose_size(n, kernel, stride, padding, output_padding) == stride * n
        paddings = conv_transpose_padding((kernel, 4), (stride, 2))
        assert conv_transpose_size((n, 3), (kernel, 4), (stride, 2), *paddings) == (stride * n, 6)
    assert conv_transpose_padding((4,), 2) == ((1,), (0,))
    assert conv_transpose_padding(3, (1, 2)) == ((1, 1), (0, 1))
    assert conv_transpose_size(5, 4, 3, "SAME") == 15
    assert conv_transpose_size(5, 2, 3, "VALID") == 15


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conv_transpose_size((4, 4), 3, (2, 2, 2)), r"stride is \(2, 2, 2\).*2 integers"),
        (lambda: conv_transpose_size(4, 3, 1, 3), r"size \(0,\)"),
        (lambda: conv_transpose_size(4, 3, 2, 1, 2), r"output_padding is \(2,\).*smaller than the stride"),
        (lambda: conv_transpose_padding(4, 1), r"kernel 4 with stride 1.*odd kernel.*\(1, 2\)"),
        (lambda: conv_transpose_padding((3, 4), 1), r"kernel 4 with stride 1.*odd kernel"),
        (lambda: conv_transpose_padding((3, 4), (1, 2, 3)), r"kernel is \(3, 4\).*3 integers"),
    ],
)
def test_bad_arguments_are_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()
