"""The candidates of layers.py: our layers and their peers', as calls that wait for their results, and their timing."""

import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

try:
    import torch
    from torch.nn import functional as torch_functional
except ImportError:
    torch = None

CHANNELS = 21
SAMPLE = 0.02  # seconds


def measure_ms(candidates: dict, repeats: int, rounds: int = 3) -> dict[str, list[float]]:
    """Measure the median time of each candidate in each round, ms.

    Each round measures all candidates, so that a change of the machine's load affects all of them.

    Calls shorter than `SAMPLE` are repeated within a sample until they fill it. The time of a single call of a tenth of
    a millisecond would depend on how fast a core wakes up.
    """
    times = {name: [] for name in candidates}
    for run in candidates.values():
        run()
    for _ in range(rounds):
        for name, run in candidates.items():
            if jax.default_backend() == "cpu":
                time.sleep(0.3)  # PyTorch's idle threads spin for a while, which would slow the next candidate
            began = time.perf_counter()
            run()
            calls = 1 + int(SAMPLE / (time.perf_counter() - began))
            samples = []
            for _ in range(repeats):
                start = time.perf_counter()
                for _ in range(calls):
                    run()
                samples.append((time.perf_counter() - start) / calls)
            times[name].append(1e3 * statistics.median(samples))
    return times


def once_ms(run) -> float:
    """Measure a single call, ms; for calls that take seconds."""
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def jax_runs(forward, arguments: tuple, seed: int = 0) -> dict:
    """Make calls of forward alone, and of forward with the gradients of all arguments."""

    @jax.jit
    def both(g, *arguments):
        y, back = jax.vjp(forward, *arguments)
        return y, back(g)

    shape = jax.eval_shape(forward, *arguments)
    g = jnp.asarray(np.random.default_rng(seed).normal(size=shape.shape), shape.dtype)
    compiled = jax.jit(forward)
    return {
        "forward": lambda: jax.block_until_ready(compiled(*arguments)),
        "both": lambda: jax.block_until_ready(both(g, *arguments)),
    }


def torch_runs(forward, arguments: tuple, channels_last: bool, device: str = "cpu", dtype: str = "float32") -> dict:
    """Make the same calls for PyTorch, whose NCHW arguments get a memory layout."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    arguments = tuple(
        torch.tensor(np.asarray(a, np.float32), dtype=getattr(torch, dtype), device=device)
        .contiguous(memory_format=layout)
        .requires_grad_()
        for a in arguments
    )
    with torch.no_grad():
        shape = forward(*arguments).shape
    g = torch.randn(shape, device=device, dtype=getattr(torch, dtype)).contiguous(memory_format=layout)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def run_forward():
        with torch.no_grad():
            forward(*arguments)
        wait()

    def run_both():
        torch.autograd.grad(forward(*arguments), arguments, g)
        wait()

    return {"forward": run_forward, "both": run_both}


def best_torch(times: dict[str, list[float]], kind: str, what: str) -> list[float]:
    """Return the times of the better of PyTorch's two layouts; none without PyTorch."""
    found = [ms for name, ms in times.items() if name.startswith(f"torch {kind}") and name.endswith(what)]
    return min(found, key=statistics.median, default=[])


def arrays(kernel: int, n: int, batch: int = 1, dtype: str = "float32") -> tuple:
    """Draw scores and a dense kernel."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(batch, n, n, CHANNELS)), dtype)
    w = jnp.asarray(rng.normal(size=(kernel, kernel, CHANNELS, CHANNELS)) / kernel, dtype)
    return x, w


def flax_transposed(x, w, stride: int):
    """Run `nn.ConvTranspose`."""
    layer = nn.ConvTranspose(CHANNELS, w.shape[:2], (stride, stride), "SAME", use_bias=False)
    return layer.apply({"params": {"kernel": w}}, x)


def lax_grouped(x, w, stride: int):
    """Run the fixed filter as a grouped convolution over inserted zeros."""
    pad = (w.shape[0] - 1 - stride // 2,) * 2
    return jax.lax.conv_general_dilated(
        x,
        w,
        (1, 1),
        (pad, pad),
        lhs_dilation=(stride, stride),
        feature_group_count=x.shape[-1],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def torch_transposed(x, w, stride: int):
    return torch_functional.conv_transpose2d(x, w, stride=stride, padding=stride // 2)


def torch_interpolate(x, stride: int):
    return torch_functional.interpolate(x, scale_factor=stride, mode="bilinear", align_corners=False)


def add(candidates: dict, name: str, runs: dict) -> None:
    candidates.update({f"{name} {what}": run for what, run in runs.items()})
