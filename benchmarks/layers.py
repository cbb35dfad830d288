"""The layers against their peers, side by side in one run: `python benchmarks/layers.py [--quick]`.

Prints Markdown tables of medians and of ratios (a peer's time divided by ours: above 1, ours is faster). Every
candidate is warmed up and waited for; PyTorch uses all cores and the better of its two memory layouts. Without
PyTorch its columns stay empty. One exception: grouped `lax` takes seconds at stride 16 and a minute at stride 32. It
is called once there, and its time includes compilation (below a second); `--quick` leaves it out. On a GPU (JAX's
default backend) another table takes the place of these.
"""

import argparse
import functools
import os
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import flax.linen as nn
import history
import jax
import jax.numpy as jnp
import numpy as np
from candidates import (
    CHANNELS,
    add,
    arrays,
    best_torch,
    flax_transposed,
    jax_runs,
    lax_grouped,
    measure_ms,
    once_ms,
    torch,
    torch_functional,
    torch_interpolate,
    torch_runs,
    torch_transposed,
)
from markdown_table import head, row

from fcn_jax.layers import conv_transpose, max_pool, upsample_bilinear

CASES = ((64, 32, 16), (32, 16, 32), (16, 8, 64), (4, 2, 32))  # kernel, stride, input size
LEARNED, FIXED, POOLING = "learned transposed convolution", "fixed bilinear", "max pooling"
COPIED = 1 << 28  # numbers in the copy that measures the bandwidth of a GPU's memory
PASSES = {"forward": "forward", "both": "forward + backward"}


class Case:
    """A layer in one setting, with its times; it records comparisons with peers."""

    def __init__(self, recorder: history.Recorder, task: str, setting: str, ours: Sequence[float]):
        self.recorder, self.task, self.setting, self.ours = recorder, task, setting, ours

    def over(self, peer: str, theirs: Sequence[float], note: str = "") -> float | None:
        """Record the comparison with a peer; return the ratio, or None where the peer was not measured."""
        if not theirs:
            return None
        return self.recorder.add(self.task, self.setting, "ms", self.ours, peer, theirs, note).ratio


def middle(times: Sequence[float]) -> float | None:
    """Return the median, or None if there are no times."""
    return statistics.median(times) if times else None


def transposed_tables(recorder: history.Recorder, repeats: int) -> None:
    """Compare learned and fixed upsampling, forward and with gradients."""
    results = {case: measure_transposed(*case, repeats, recorder.quick) for case in CASES}
    for what, title in PASSES.items():
        print(f"\n## Learned transposed convolution, {title}, {CHANNELS} channels, float32\n")
        flax_columns = ("nn.ConvTranspose, ms", "× nn.ConvTranspose")
        print(head("kernel, stride, input", "ours, ms", *flax_columns, "PyTorch, ms", "× PyTorch"))
        for (kernel, stride, n), times in results.items():
            setting = f"{kernel}, {stride}, {n}²"
            ours, flax, peer = times[f"ours {what}"], times[f"flax {what}"], best_torch(times, "learned", what)
            case = Case(recorder, f"{LEARNED}, {title}", setting, ours)
            flax_ratio, torch_ratio = case.over("nn.ConvTranspose", flax), case.over("PyTorch", peer)
            print(row(setting, middle(ours), middle(flax), flax_ratio, middle(peer), torch_ratio))
        print(f"\n## Fixed bilinear, {title}, {CHANNELS} channels, float32\n")
        columns = ("ours, ms", "× jax.image.resize", "PyTorch interpolate, ms", "× interpolate", "× our learned")
        print(head("kernel, stride, input", *columns, "grouped lax, ms", "× grouped lax"))
        for (kernel, stride, n), times in results.items():
            setting = f"{kernel}, {stride}, {n}²"
            ours, peer = times[f"fixed {what}"], best_torch(times, "fixed", what)
            grouped = times.get(f"grouped {what}", [])
            case = Case(recorder, f"{FIXED}, {title}", setting, ours)
            ratios = [
                case.over("jax.image.resize", times[f"resize {what}"]),
                middle(peer),
                case.over("PyTorch interpolate", peer),
                case.over("our learned one", times[f"ours {what}"]),
            ]
            once = "a single call, compilation included" if stride > 8 else ""
            print(row(setting, middle(ours), *ratios, middle(grouped), case.over("grouped lax", grouped, once)))


def measure_transposed(kernel: int, stride: int, n: int, repeats: int, quick: bool) -> dict[str, list[float]]:
    """Measure all candidates of a case."""
    x, w = arrays(kernel, n)
    candidates = {}
    add(candidates, "ours", jax_runs(lambda x, w: conv_transpose(x, w, stride, stride // 2), (x, w)))
    add(candidates, "fixed", jax_runs(functools.partial(upsample_bilinear, stride=stride), (x,)))
    shape = (1, n * stride, n * stride, CHANNELS)
    add(candidates, "resize", jax_runs(lambda x: jax.image.resize(x, shape, "bilinear"), (x,)))
    if torch:
        nchw, weight = x.transpose(0, 3, 1, 2), w.transpose(2, 3, 0, 1)
        for last in (False, True):
            learned = functools.partial(torch_transposed, stride=stride)
            fixed = functools.partial(torch_interpolate, stride=stride)
            add(candidates, f"torch learned {last}", torch_runs(learned, (nchw, weight), last))
            add(candidates, f"torch fixed {last}", torch_runs(fixed, (nchw,), last))
    times = measure_ms(candidates, repeats)
    # A few runs suffice for the slow candidates.
    slow = {}
    add(slow, "flax", jax_runs(functools.partial(flax_transposed, stride=stride), (x, w)))
    times |= measure_ms(slow, 1 if quick else 3, rounds=1 if quick else 2)
    if not quick:
        grouped, depthwise = {}, w[:, :, :1]
        add(grouped, "grouped", jax_runs(lambda x, w=depthwise: lax_grouped(x, w, stride), (x,)))
        if stride <= 8:
            times |= measure_ms(grouped, 3, rounds=1)
        else:
            times |= {name: [once_ms(run)] for name, run in grouped.items()}
    return times


def pooling_table(recorder: history.Recorder, repeats: int) -> None:
    """Compare 2x2/2 and 3x3/2 pooling, forward and backward."""
    print("\n## Max pooling, forward + backward, float32\n")
    print(head("input", "window", "ours, ms", "nn.max_pool, ms", "× nn.max_pool", "PyTorch, ms", "× PyTorch"))
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
                candidates[f"torch pool {last} both"] = torch_runs(run, (x.transpose(0, 3, 1, 2),), last)["both"]
        times = measure_ms(candidates, max(1, repeats // 2))
        ours, flax, peer = times["ours"], times["flax"], best_torch(times, "pool", "both")
        name, size = "x".join(map(str, shape)), f"{window}x{window}/2"
        case = Case(recorder, f"{POOLING}, {PASSES['both']}", f"{name}, {size}", ours)
        flax_ratio, torch_ratio = case.over("nn.max_pool", flax), case.over("PyTorch", peer)
        print(row(name, size, middle(ours), middle(flax), flax_ratio, middle(peer), torch_ratio))


def gpu_table(recorder: history.Recorder, repeats: int) -> None:
    """Compare batch 16 on the GPU: every method, both dtypes, and the share of the memory's bandwidth."""
    big = jnp.zeros((COPIED,), jnp.float32)
    copy = jax_runs(lambda x: x + 1, (big,))["forward"]
    bandwidth = 2 * big.nbytes / statistics.median(measure_ms({"copy": copy}, repeats)["copy"]) * 1e3
    del big
    print(f"\n## GPU: {jax.devices()[0].device_kind}, batch 16; a copy moves {bandwidth / 1e9:.0f} GB/s\n")
    columns = ("default, ms", "matmul / conv / dilated, ms", "× nn.ConvTranspose", "× PyTorch")
    last_columns = ("fixed, ms", "fixed × interpolate", "bandwidth: default, fixed")
    print(head("kernel, stride, input", "dtype", "what", *columns, *last_columns))
    for dtype in ("float32", "bfloat16"):
        cases = {case: gpu_candidates(*case, dtype) for case in CASES}
        # Compiling takes far longer than measuring, and the threads of a compiler do not use all cores.
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda run: run(), [run for runs, _ in cases.values() for run in runs.values()]))
        for (kernel, stride, n), (candidates, size) in cases.items():
            show_gpu_rows(recorder, (kernel, stride, n), dtype, measure_ms(candidates, repeats), size, bandwidth)


def gpu_candidates(kernel: int, stride: int, n: int, dtype: str) -> tuple[dict[str, Callable], int]:
    """Return the candidates of a case on a GPU, and the bytes of input and kernel."""
    x, w = arrays(kernel, n, 16, dtype)
    candidates = {}
    for method in (None, "matmul", "conv", "dilated"):
        forward = functools.partial(conv_transpose, strides=stride, padding=stride // 2, method=method)
        add(candidates, f"ours {method}", jax_runs(lambda x, w, f=forward: f(x, w), (x, w)))
    add(candidates, "fixed", jax_runs(functools.partial(upsample_bilinear, stride=stride), (x,)))
    add(candidates, "flax", jax_runs(functools.partial(flax_transposed, stride=stride), (x, w)))
    if torch:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        for last in (False, True):
            learned = functools.partial(torch_transposed, stride=stride)
            fixed = functools.partial(torch_interpolate, stride=stride)
            nchw, weight = x.transpose(0, 3, 1, 2), w.transpose(2, 3, 0, 1)
            add(candidates, f"torch learned {last}", torch_runs(learned, (nchw, weight), last, device, dtype))
            add(candidates, f"torch fixed {last}", torch_runs(fixed, (nchw,), last, device, dtype))
    return candidates, x.nbytes + w.nbytes


def show_gpu_rows(
    recorder: history.Recorder,
    case: tuple[int, int, int],
    dtype: str,
    times: dict[str, list[float]],
    size: int,
    bandwidth: float,
) -> None:
    """Record a case and print its rows; `size` is the bytes of input and kernel, `bandwidth` in bytes/s."""
    kernel, stride, n = case
    output = 16 * (n * stride) ** 2 * CHANNELS * (2 if dtype == "bfloat16" else 4)
    # What has to move: input and kernel in, output out; backward the same with the cotangent, plus both gradients.
    moved = {"forward": size + output, "both": 3 * size + 2 * output}
    setting = f"{kernel}, {stride}, {n}², batch 16, {dtype}"
    for what, title in PASSES.items():
        ours, fixed_times = times[f"ours None {what}"], times[f"fixed {what}"]
        learned = Case(recorder, f"{LEARNED}, {title}", setting, ours)
        fixed = Case(recorder, f"{FIXED}, {title}", setting, fixed_times)
        methods = {name: times[f"ours {name} {what}"] for name in ("matmul", "conv", "dilated")}
        for name, found in methods.items():
            learned.over(f"our method {name}", found)
        shares = []
        for case in (learned, fixed):
            share = [100 * moved[what] / (ms * 1e-3) / bandwidth for ms in case.ours]
            shares.append(recorder.add(f"bandwidth, {case.task}", setting, "%", share).ours)
        shown = [
            middle(ours),
            " / ".join(f"{statistics.median(found):.3g}" for found in methods.values()),
            learned.over("nn.ConvTranspose", times[f"flax {what}"]),
            learned.over("PyTorch", best_torch(times, "learned", what)),
            middle(fixed_times),
            fixed.over("PyTorch interpolate", best_torch(times, "fixed", what)),
            ", ".join(f"{share:.0f}%" for share in shares),
        ]
        print(row(f"{kernel}, {stride}, {n}²", dtype, what, *shown))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repetitions, without grouped lax")
    history.add_argument(parser)
    options = parser.parse_args()
    recorder = history.Recorder("layers", options.quick, options.history)
    # JAX computes where it is called, as PyTorch does; handing a call to another thread takes longer than the smallest
    # of these computations.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if torch:
        torch.set_num_threads(os.cpu_count() or 1)
    print(f"{recorder.describe()}, {jax.default_backend()}, PyTorch {torch.__version__ if torch else 'absent'}")
    repeats = 3 if options.quick else 9
    if jax.default_backend() == "cpu":
        transposed_tables(recorder, repeats)
        pooling_table(recorder, repeats)
    else:
        gpu_table(recorder, repeats)


if __name__ == "__main__":
    main()
