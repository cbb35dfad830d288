"""The layers against their peers, side by side in one run: `python benchmarks/layers.py [--quick]`.

Prints Markdown tables of medians and of ratios (a peer's time divided by ours: above 1, ours is faster). Every
candidate is warmed up and waited for; PyTorch uses all cores and the better of its two memory layouts. Without
PyTorch its columns stay empty. One exception: grouped `lax` takes seconds at stride 16 and a minute at stride 32, so
there it is called once, compilation (below a second) included; `--quick` leaves it out. On a GPU (JAX's default
backend) another table takes the place of these.
"""

import argparse
import functools
import os
import platform
import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax.layers import conv_transpose, max_pool, upsample_bilinear

try:
    import torch
    from torch.nn import functional as torch_functional
except ImportError:
    torch = None

CASES = ((64, 32, 16), (32, 16, 32), (16, 8, 64), (4, 2, 32))  # kernel, stride, input size
CHANNELS = 21
SAMPLE = 0.02  # seconds


def median_ms(candidates: dict, repeats: int, rounds: int = 3) -> dict:
    """The median time of each candidate in ms. In rounds, so that a change of the machine's load meets them all.

    What takes less than `SAMPLE` is repeated within a sample until it takes as long: single calls of a tenth of a
    millisecond would tell how fast a core wakes up.
    """
    times = {name: [] for name in candidates}
    for run in candidates.values():
        run()
    for _ in range(rounds):
        for name, run in candidates.items():
            time.sleep(0.3)  # PyTorch's idle threads spin for a while; nobody shall pay for them
            began = time.perf_counter()
            run()
            calls = 1 + int(SAMPLE / (time.perf_counter() - began))
            for _ in range(repeats):
                start = time.perf_counter()
                for _ in range(calls):
                    run()
                times[name].append((time.perf_counter() - start) / calls)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def once_ms(run) -> float:
    """One call, for what takes seconds."""
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def jax_runs(forward, arguments: tuple, seed: int = 0) -> dict:
    """Forward alone, and forward with the gradients of all arguments."""

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
    """The same for PyTorch, with NHWC arguments given a memory layout."""
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


def best_torch(times: dict, what: str) -> float | None:
    """The better of PyTorch's two layouts."""
    found = [ms for name, ms in times.items() if name.startswith("torch") and name.endswith(what)]
    return min(found) if found else None


def arrays(kernel: int, n: int, batch: int = 1, dtype: str = "float32") -> tuple:
    """Scores and a dense kernel."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(batch, n, n, CHANNELS)), dtype)
    w = jnp.asarray(rng.normal(size=(kernel, kernel, CHANNELS, CHANNELS)) / kernel, dtype)
    return x, w


def flax_transposed(x, w, stride: int):
    """What `nn.ConvTranspose` runs."""
    layer = nn.ConvTranspose(CHANNELS, w.shape[:2], (stride, stride), "SAME", use_bias=False)
    return layer.apply({"params": {"kernel": w}}, x)


def lax_grouped(x, w, stride: int):
    """The fixed filter as a grouped convolution over inserted zeros."""
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


def number(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def row(*cells) -> None:
    print("| " + " | ".join("" if c is None else number(c) if isinstance(c, float) else str(c) for c in cells) + " |")


def head(*cells) -> None:
    row(*cells)
    print("|" + " --- |" * len(cells))


def over(peer: float | None, ours: float) -> float | None:
    return None if peer is None else peer / ours


def transposed_tables(repeats: int, quick: bool) -> None:
    """Learned and fixed, forward and with gradients."""
    results = {}
    for kernel, stride, n in CASES:
        x, w = arrays(kernel, n)
        candidates = {}
        add(candidates, "ours", jax_runs(lambda x, w, s=stride: conv_transpose(x, w, s, s // 2), (x, w)))
        add(candidates, "fixed", jax_runs(functools.partial(upsample_bilinear, stride=stride), (x,)))
        shape = (1, n * stride, n * stride, CHANNELS)
        add(candidates, "resize", jax_runs(lambda x, s=shape: jax.image.resize(x, s, "bilinear"), (x,)))
        if torch:
            nchw, weight = x.transpose(0, 3, 1, 2), w.transpose(2, 3, 0, 1)
            for last in (False, True):
                learned = functools.partial(torch_transposed, stride=stride)
                fixed = functools.partial(torch_interpolate, stride=stride)
                add(candidates, f"torch learned {last}", torch_runs(learned, (nchw, weight), last))
                add(candidates, f"torch fixed {last}", torch_runs(fixed, (nchw,), last))
        times = median_ms(candidates, repeats)
        # The slow ones: a few runs suffice.
        slow = {}
        add(slow, "flax", jax_runs(functools.partial(flax_transposed, stride=stride), (x, w)))
        times |= median_ms(slow, 1 if quick else 3, rounds=1 if quick else 2)
        if not quick:
            grouped, depthwise = {}, w[:, :, :1]
            add(grouped, "grouped", jax_runs(lambda x, w=depthwise, s=stride: lax_grouped(x, w, s), (x,)))
            times |= median_ms(grouped, 3, rounds=1) if stride <= 8 else {k: once_ms(run) for k, run in grouped.items()}
        results[kernel, stride, n] = times

    for what, title in (("forward", "forward"), ("both", "forward + backward")):
        print(f"\n## Learned transposed convolution, {title}, {CHANNELS} channels, float32\n")
        head(
            "kernel, stride, input",
            "ours, ms",
            "nn.ConvTranspose, ms",
            "× nn.ConvTranspose",
            "PyTorch, ms",
            "× PyTorch",
        )
        for (kernel, stride, n), times in results.items():
            ours, flax = times[f"ours {what}"], times[f"flax {what}"]
            peer = best_torch({k: v for k, v in times.items() if "learned" in k}, what)
            row(f"{kernel}, {stride}, {n}²", ours, flax, over(flax, ours), peer, over(peer, ours))
        print(f"\n## Fixed bilinear, {title}, {CHANNELS} channels, float32\n")
        head(
            "kernel, stride, input",
            "ours, ms",
            "× jax.image.resize",
            "PyTorch interpolate, ms",
            "× interpolate",
            "× our learned",
            "grouped lax, ms",
            "× grouped lax",
        )
        for (kernel, stride, n), times in results.items():
            ours = times[f"fixed {what}"]
            peer = best_torch({k: v for k, v in times.items() if "fixed" in k}, what)
            row(
                f"{kernel}, {stride}, {n}²",
                ours,
                over(times[f"resize {what}"], ours),
                peer,
                over(peer, ours),
                over(times[f"ours {what}"], ours),
                times.get(f"grouped {what}"),
                over(times.get(f"grouped {what}"), ours),
            )


def pooling_table(repeats: int) -> None:
    """2x2/2 and 3x3/2, forward and backward."""
    print("\n## Max pooling, forward + backward, float32\n")
    head("input", "window", "ours, ms", "nn.max_pool, ms", "× nn.max_pool", "PyTorch, ms", "× PyTorch")
    for shape, window, padding in (((8, 224, 224, 64), 2, 0), ((8, 112, 112, 64), 3, 1)):
        x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
        square, pads = (window, window), ((padding, padding),) * 2
        candidates = {
            "ours": jax_runs(lambda x, k=window, p=padding: max_pool(x, k, 2, p), (x,))["both"],
            "flax": jax_runs(lambda x, k=square, p=pads: nn.max_pool(x, k, (2, 2), p), (x,))["both"],
        }
        if torch:
            for last in (False, True):
                run = functools.partial(torch_functional.max_pool2d, kernel_size=window, stride=2, padding=padding)
                candidates[f"torch {last} both"] = torch_runs(run, (x.transpose(0, 3, 1, 2),), last)["both"]
        times = median_ms(candidates, max(1, repeats // 2))
        ours, peer = times["ours"], best_torch(times, "both")
        name = "x".join(map(str, shape))
        row(name, f"{window}x{window}/2", ours, times["flax"], over(times["flax"], ours), peer, over(peer, ours))


def gpu_table(repeats: int) -> None:
    """Batch 16 on the GPU: every method, both dtypes, and how much of the memory's bandwidth they use."""
    cuda = bool(torch and torch.cuda.is_available())
    big = jnp.zeros((1 << 28,), jnp.float32)
    copy = jax_runs(lambda x: x + 1, (big,))["forward"]
    bandwidth = 2 * big.nbytes / median_ms({"copy": copy}, repeats)["copy"] * 1e3
    del big
    print(f"\n## GPU: {jax.devices()[0].device_kind}, batch 16; a copy moves {bandwidth / 1e9:.0f} GB/s\n")
    head(
        "kernel, stride, input",
        "dtype",
        "what",
        "default, ms",
        "matmul / conv / dilated, ms",
        "× nn.ConvTranspose",
        "× PyTorch",
        "fixed, ms",
        "fixed × interpolate",
        "bandwidth: default, fixed",
    )
    for (kernel, stride, n), dtype in ((case, dtype) for case in CASES for dtype in ("float32", "bfloat16")):
        x, w = arrays(kernel, n, 16, dtype)
        candidates = {}
        for method in (None, "matmul", "conv", "dilated"):
            forward = functools.partial(conv_transpose, strides=stride, padding=stride // 2, method=method)
            add(candidates, f"ours {method}", jax_runs(lambda x, w, f=forward: f(x, w), (x, w)))
        add(candidates, "fixed", jax_runs(functools.partial(upsample_bilinear, stride=stride), (x,)))
        add(candidates, "flax", jax_runs(functools.partial(flax_transposed, stride=stride), (x, w)))
        if cuda:
            for last in (False, True):
                learned = functools.partial(torch_transposed, stride=stride)
                fixed = functools.partial(torch_interpolate, stride=stride)
                nchw, weight = x.transpose(0, 3, 1, 2), w.transpose(2, 3, 0, 1)
                add(candidates, f"torch learned {last}", torch_runs(learned, (nchw, weight), last, "cuda", dtype))
                add(candidates, f"torch fixed {last}", torch_runs(fixed, (nchw,), last, "cuda", dtype))
        times = median_ms(candidates, repeats)
        output = 16 * (n * stride) ** 2 * CHANNELS * x.dtype.itemsize
        # What has to move: input and kernel in, output out; backward the same with the cotangent, plus both gradients.
        moved = {"forward": x.nbytes + w.nbytes + output, "both": 3 * (x.nbytes + w.nbytes) + 2 * output}
        for what in ("forward", "both"):
            ours, fixed_time = times[f"ours None {what}"], times[f"fixed {what}"]
            learned = best_torch({k: v for k, v in times.items() if "learned" in k}, what)
            interpolate = best_torch({k: v for k, v in times.items() if "torch fixed" in k}, what)
            row(
                f"{kernel}, {stride}, {n}²",
                dtype,
                what,
                ours,
                " / ".join(f"{times[f'ours {m} {what}']:.3g}" for m in ("matmul", "conv", "dilated")),
                over(times[f"flax {what}"], ours),
                over(learned, ours),
                fixed_time,
                over(interpolate, fixed_time),
                ", ".join(f"{moved[what] / (ms * 1e-3) / bandwidth:.0%}" for ms in (ours, fixed_time)),
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repetitions, without grouped lax")
    quick = parser.parse_args().quick
    # JAX computes where it is called, as PyTorch does; handing a call to another thread takes longer than the smallest
    # of these computations.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if torch:
        torch.set_num_threads(os.cpu_count() or 1)
    print(
        f"jax {jax.__version__} on {jax.default_backend()}, PyTorch {torch.__version__ if torch else 'absent'}", end=""
    )
    print(f", {os.cpu_count()} cores {platform.machine()}, load at the start {os.getloadavg()[0]:.1f}")
    repeats = 3 if quick else 9
    if jax.default_backend() == "cpu":
        transposed_tables(repeats, quick)
        pooling_table(repeats)
    else:
        gpu_table(repeats)


if __name__ == "__main__":
    main()
