"""Layers for any JAX or Flax project: transposed convolution, bilinear upsampling, pooling, convolution, batch norm.

The folder imports jax, flax and numpy alone, so it can be copied into another project. Arrays are
``[*batch, *spatial, channel]``; kernels are ``[*spatial, in / groups, out]``, as in Flax. Each operation has a plain
form beside the fast ones. The argument or attribute `method` chooses between them: None is the fast form for the
backend, "plain" is XLA's own operation. In `plain_methods` None is "plain", for a program of another machine.
"""

from .backend import compiler_options, jit_options, plain_methods
from .batch_norm import BatchNorm
from .bilinear import bilinear_init, bilinear_kernel, upsample_bilinear
from .channel_sums import broadcast_channels, channel_sums
from .conv import Conv, conv
from .conv_transpose import ConvTranspose, conv_transpose
from .dense_scores import convolutionalize, shift_and_stitch
from .depth_to_space import depth_to_space
from .pooling import max_pool
from .sizes import conv_transpose_padding, conv_transpose_size

__all__ = [
    "BatchNorm",
    "Conv",
    "ConvTranspose",
    "bilinear_init",
    "bilinear_kernel",
    "broadcast_channels",
    "channel_sums",
    "compiler_options",
    "conv",
    "conv_transpose",
    "conv_transpose_padding",
    "conv_transpose_size",
    "convolutionalize",
    "depth_to_space",
    "jit_options",
    "max_pool",
    "plain_methods",
    "shift_and_stitch",
    "upsample_bilinear",
]
