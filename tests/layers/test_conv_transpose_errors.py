"""What transposed convolution says of arguments that do not fit."""

import inspect

import jax
import numpy as np
import pytest
from layer_loops import export_for_every_size

from fcn_jax.layers import ConvTranspose, conv_transpose

ONE, KERNEL = np.ones((1, 4, 4, 2), np.float32), np.ones((3, 3, 2, 2), np.float32)


def initialized(*args, **attributes):
    return ConvTranspose(*args, **attributes).init(jax.random.key(0), ONE)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conv_transpose(ONE[0, 0, 0], KERNEL), r"x has the shape \(2,\)"),
        (lambda: conv_transpose(ONE, KERNEL[0, 0]), r"the kernel \(2, 2\).*at least one"),
        (lambda: conv_transpose(ONE, KERNEL.astype(np.float16)), "x is float32 and the kernel float16; cast both"),
        (lambda: conv_transpose(ONE.astype(int), KERNEL.astype(int)), "cast both to one floating-point dtype"),
        (lambda: conv_transpose(ONE, KERNEL[:, :, :1]), "x has 2 channels, the kernel 1 in"),
        (lambda: conv_transpose(ONE, KERNEL[:, :, :1, :1], feature_group_count=2), "groups must divide the outputs"),
        (lambda: conv_transpose(ONE, KERNEL, feature_group_count=0), "feature_group_count 0"),
        (lambda: conv_transpose(ONE[..., :0], KERNEL[:, :, :0]), "x has 0 channels.*each must be at least 1"),
        (lambda: conv_transpose(ONE, KERNEL[..., :0]), "2 in and 0 out.*each must be at least 1"),
        (
            lambda: inspect.unwrap(conv_transpose)("ab", KERNEL),
            r"x is of type str; it must be one array, \[\*batch, \*spatial, in\]",
        ),
        (
            lambda: inspect.unwrap(conv_transpose)(ONE, None),
            r"kernel is of type NoneType; it must be one array, \[\*spatial",
        ),
        (lambda: conv_transpose(ONE, KERNEL, bias=np.ones(3, np.float32)), r"bias has the shape \(3,\).*\(2,\)"),
        (lambda: conv_transpose(ONE[:, :0], KERNEL), r"size \(0, 4\).*at least 1"),
        (lambda: conv_transpose(ONE, KERNEL[:, :0]), r"kernel's \(3, 0\) must be at least 1"),
        (lambda: conv_transpose(ONE, KERNEL, 0), "strides is 0; the smallest value allowed is 1"),
        (lambda: conv_transpose(ONE, KERNEL, (1, 2, 3)), r"strides is \(1, 2, 3\).*2 integers"),
        (
            lambda: conv_transpose(ONE, KERNEL, 2, output_padding=2),
            r"output_padding is \(2, 2\).*smaller than the stride",
        ),
        (lambda: conv_transpose(ONE, KERNEL, 2, output_padding=-1), "output_padding is -1; the smallest value"),
        (lambda: conv_transpose(ONE, KERNEL, 2, "same"), "padding is 'same'.*'SAME', 'VALID'"),
        (lambda: conv_transpose(ONE, KERNEL, 2, ((1, 1),)), r"padding is \(\(1, 1\),\); for 2 spatial axes"),
        (lambda: conv_transpose(ONE, KERNEL, 2, ((1, 1, 1), 1)), "each an integer or a .low, high. pair"),
        (lambda: conv_transpose(ONE[0], KERNEL[0], 2, (1, 1)), r"write \(\(low, high\),\)"),
        (lambda: conv_transpose(ONE, KERNEL, 1, 3), r"the output would have the size \(0, 0\).*lower the padding"),
        (lambda: conv_transpose(ONE, KERNEL, method="fft"), r"method is 'fft'.*matmul, conv, rows, plain, dilated"),
        (
            lambda: initialized(2, (3, 3), feature_group_count=3),
            r"\(1, 4, 4, 2\).*count 3.*groups must divide its chan",
        ),
        (lambda: initialized(2, (3, 3, 3, 3)), r"x has the shape \(1, 4, 4, 2\).*with 4 spatial axes"),
        (lambda: initialized(2, (3, 3), feature_group_count=0), "feature_group_count is 0; the smallest"),
        (lambda: initialized(0, (3, 3)), "features is 0; the smallest value allowed is 1"),
        (lambda: initialized(2, (0, 3)), r"kernel_size is \(0, 3\); the smallest value allowed is 1"),
        (lambda: initialized(2, ()), r"kernel_size is \(\); it must be an integer"),
        (
            lambda: ConvTranspose(2, (3, 3)).init(jax.random.key(0), ONE[..., :0]),
            r"\(1, 4, 4, 0\).*must divide its chan",
        ),
        (
            lambda: export_for_every_size(lambda x: conv_transpose(x, KERNEL, padding=2)),
            r"the output would have the size \(h - 2, w - 2\).*lower the padding",
        ),
    ],
)
def test_bad_arguments_are_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()
