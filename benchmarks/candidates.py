"""The candidates of layers.py, for workers (separate.py): our layers and their peers, forward and with all gradients.

A function returns the calls of all cases, each of which waits for its result. Names are those of `name_call`.
"""

import functools
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from separate import alone

CHANNELS = 21
METHODS = ("matmul", "conv", "rows", "dilated")
FORMATS = ("channels first", "channels last")
Calls = dict[str, Callable[[], object]]


def name_call(case: Sequence[Any], candidate: str, what: str) -> str:
    """Name a call: of a case and a candidate, "forward" or "both" (forward and gradients)."""
    return f"{json.dumps(case)} {candidate} {what}"


def jax_upsampling(cases: Sequence[Sequence[int]], batch: int, dtype: str, copied: int = 0) -> Calls:
    """Prepare our learned and fixed upsampling, and those of JAX and Flax.

    With `copied`, for a GPU, every method of ours takes the place of JAX's `resize`, and "copy" copies so many float32.
    """
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from fcn_jax.layers import conv_transpose, upsample_bilinear

    _compute_where_called()
    calls = {}
    for case in cases:
        kernel, stride, n = case
        x, w = (jnp.asarray(array, dtype) for array in _draw(kernel, n, batch))

        def learned(x: jax.Array, w: jax.Array, stride: int = stride, method: str | None = None) -> jax.Array:
            return conv_transpose(x, w, stride, stride // 2, method=method)

        def flax(x: jax.Array, w: jax.Array, stride: int = stride) -> jax.Array:
            layer = nn.ConvTranspose(CHANNELS, w.shape[:2], (stride, stride), "SAME", use_bias=False)
            return layer.apply({"params": {"kernel": w}}, x)

        fixed = functools.partial(upsample_bilinear, stride=stride)
        calls |= _run_jax(case, "ours", learned, (x, w))
        calls |= _run_jax(case, "fixed", fixed, (x,))
        calls |= _run_jax(case, "nn.ConvTranspose", flax, (x, w))
        if not copied:
            shape = (batch, n * stride, n * stride, CHANNELS)
            calls |= _run_jax(case, "resize", lambda x, shape=shape: jax.image.resize(x, shape, "bilinear"), (x,))
        else:
            for method in METHODS:
                calls |= _run_jax(case, method, functools.partial(learned, method=method), (x, w))
    if copied:
        big, copy = jnp.zeros((copied,), jnp.float32), jax.jit(lambda x: x + 1)
        calls["copy"] = lambda: jax.block_until_ready(copy(big))
    with alone(), ThreadPoolExecutor() as pool:  # compiles; the threads of a compiler do not use all cores
        list(pool.map(lambda call: call(), calls.values()))
    return calls


def torch_upsampling(cases: Sequence[Sequence[int]], batch: int, dtype: str) -> Calls:
    """Prepare PyTorch's learned and fixed upsampling, in both memory formats."""
    from torch.nn import functional

    calls = {}
    for case in cases:
        kernel, stride, n = case
        x, w = _draw(kernel, n, batch)
        x, w = x.transpose(0, 3, 1, 2), w.transpose(2, 3, 0, 1)
        learned = functools.partial(functional.conv_transpose2d, stride=stride, padding=stride // 2)
        fixed = functools.partial(functional.interpolate, scale_factor=stride, mode="bilinear", align_corners=False)
        calls |= _run_torch(case, "learned", learned, (x, w), dtype)
        calls |= _run_torch(case, "fixed", fixed, (x,), dtype)
    return calls


def jax_pooling(cases: Sequence[tuple[Sequence[int], int, int]]) -> Calls:
    """Prepare our max pooling and Flax's at stride 2, for input, window and padding of each case.

    Networks pool what a ReLU gives, and XLA computes both in one pass over memory; so ours is there after one, too.
    """
    import flax.linen as nn
    import jax.numpy as jnp

    from fcn_jax.layers import max_pool

    _compute_where_called()
    calls = {}
    for case in cases:
        shape, k, p = case
        x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
        calls |= _run_jax(case, "ours", lambda x, k=k, p=p: max_pool(x, k, 2, p), (x,))
        calls |= _run_jax(case, "ours after ReLU", lambda x, k=k, p=p: max_pool(nn.relu(x), k, 2, p), (x,))
        calls |= _run_jax(
            case, "nn.max_pool", lambda x, k=k, p=p: nn.max_pool(x, (k, k), (2, 2), ((p, p), (p, p))), (x,)
        )
    return calls


def torch_pooling(cases: Sequence[tuple[Sequence[int], int, int]]) -> Calls:
    """Prepare PyTorch's max pooling, alone and after a ReLU, in both memory formats."""
    from torch.nn import functional

    calls = {}
    for case in cases:
        shape, k, p = case
        x = np.random.default_rng(0).normal(size=shape).transpose(0, 3, 1, 2)
        pool = functools.partial(functional.max_pool2d, kernel_size=k, stride=2, padding=p)
        calls |= _run_torch(case, "pool", pool, (x,))
        calls |= _run_torch(case, "pool after ReLU", lambda x, pool=pool: pool(functional.relu(x)), (x,))
    return calls


def _compute_where_called() -> None:
    """Make JAX compute in the calling thread on CPUs, as PyTorch does.

    Handing a call to another thread takes longer than the smallest of these computations.
    """
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)


def _draw(kernel: int, n: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw scores and a dense kernel."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, n, n, CHANNELS)), rng.normal(size=(kernel, kernel, CHANNELS, CHANNELS)) / kernel


def _run_jax(case: Sequence[Any], candidate: str, forward: Callable[..., Any], arguments: tuple) -> Calls:
    import jax
    import jax.numpy as jnp

    @jax.jit
    def both(g: jax.Array, *arguments: jax.Array) -> tuple:
        y, back = jax.vjp(forward, *arguments)
        return y, back(g)

    shape = jax.eval_shape(forward, *arguments)
    g = jnp.asarray(np.random.default_rng(0).normal(size=shape.shape), shape.dtype)
    compiled = jax.jit(forward)
    return {
        name_call(case, candidate, "forward"): lambda: jax.block_until_ready(compiled(*arguments)),
        name_call(case, candidate, "both"): lambda: jax.block_until_ready(both(g, *arguments)),
    }


def _run_torch(
    case: Sequence[Any], candidate: str, forward: Callable[..., Any], arguments: tuple, dtype: str = "float32"
) -> Calls:
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    cuda = torch.cuda.is_available()
    torch.backends.cudnn.benchmark = cuda
    wait = torch.cuda.synchronize if cuda else lambda: None
    calls = {}
    for form, layout in zip(FORMATS, (torch.contiguous_format, torch.channels_last), strict=True):
        given = [
            torch.tensor(np.asarray(array, np.float32), dtype=getattr(torch, dtype), device="cuda" if cuda else "cpu")
            .contiguous(memory_format=layout)
            .requires_grad_()
            for array in arguments
        ]
        with torch.no_grad():
            g = torch.randn_like(forward(*given)).contiguous(memory_format=layout)

        def run_forward(given: list = given) -> None:
            with torch.no_grad():
                forward(*given)
            wait()

        def run_both(given: list = given, g: Any = g) -> None:
            torch.autograd.grad(forward(*given), given, g)
            wait()

        calls[name_call(case, f"{candidate} {form}", "forward")] = run_forward
        calls[name_call(case, f"{candidate} {form}", "both")] = run_both
    return calls
