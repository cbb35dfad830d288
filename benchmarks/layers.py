"""The layers against their peers: `python benchmarks/layers.py [--quick]`.

Prints Markdown tables of medians and of ratios with their quartiles (a peer's time divided by ours: above 1, ours is
faster). JAX and PyTorch have a process each, and all candidates of a case take turns (turns.py). PyTorch uses all cores
and the better of its two memory formats. Without PyTorch its columns stay empty. On a GPU (JAX's default backend)
another table takes the place of these.
"""

import argparse
import importlib.util
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import history
from candidates import (
    CHANNELS,
    FORMATS,
    METHODS,
    jax_pooling,
    jax_upsampling,
    name_call,
    torch_pooling,
    torch_upsampling,
)
from machine import default_device
from markdown_table import head, row
from separate import Worker, answer, start
from turns import ROUNDS, prepare, take_turns

CASES = ((64, 32, 16), (32, 16, 32), (16, 8, 64), (4, 2, 32))  # kernel, stride, input size
POOLS = (((8, 224, 224, 64), 2, 0), ((8, 112, 112, 64), 3, 1))  # input, window, padding; the stride is 2
COPIED = 1 << 28  # numbers in the copy that measures the bandwidth of a GPU's memory
LEARNED, FIXED = "learned transposed convolution", "fixed bilinear"
POOLING, RELU_POOLING = "max pooling", "ReLU and max pooling"
PASSES = {"forward": "forward", "both": "forward + backward"}
Times = dict[str, list[float]]


def main() -> None:
    if answer((jax_upsampling, torch_upsampling, jax_pooling, torch_pooling)):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds")
    history.add_argument(parser)
    options = parser.parse_args()
    recorder = history.Recorder("layers", options.quick, options.history)
    print(recorder.describe())
    rounds = 2 if options.quick else ROUNDS
    if default_device()[0] == "cpu":
        transposed_tables(recorder, rounds)
        pooling_table(recorder, rounds)
    else:
        gpu_table(recorder, rounds)


@contextmanager
def start_libraries(kind: str, for_jax: dict[str, Any] | None = None, **arguments: Any) -> Iterator[dict[str, Worker]]:
    """Start a process for JAX and, if it is installed, one for PyTorch, and wait until both are ready."""
    libraries = {"jax": arguments | (for_jax or {})}
    if importlib.util.find_spec("torch"):
        libraries["torch"] = arguments
    with ExitStack() as stack:
        workers = {
            library: stack.enter_context(start(__file__, f"{library}_{kind}", **given))
            for library, given in libraries.items()
        }
        for worker in workers.values():
            worker.wait_until_ready()
        yield workers


def measure(
    workers: dict[str, Worker], case: Sequence[Any], ours: Iterable[str], theirs: Iterable[str], rounds: int
) -> Times:
    """Let all candidates of a case take turns, and return their times, ms: of JAX and of both formats of PyTorch."""
    names = {"jax": ours, "torch": [f"{name} {form}" for name in theirs for form in FORMATS]}
    candidates = {
        f"{name} {what}": prepare(worker, name_call(case, name, what))
        for library, worker in workers.items()
        for name in names[library]
        for what in PASSES
    }
    return {name: [1e3 * time for time in times] for name, times in take_turns(candidates, rounds).items()}


class Case:
    """A layer in one setting, with its times; it records comparisons with peers."""

    def __init__(self, recorder: history.Recorder, task: str, setting: str, ours: Sequence[float]):
        self.recorder, self.task, self.setting, self.ours = recorder, task, setting, ours

    def over(self, peer: str, theirs: Sequence[float]) -> str:
        """Record the comparison with a peer; return the ratio, or nothing where the peer was not measured."""
        if not theirs:
            return ""
        return history.describe_ratio(self.recorder.add(self.task, self.setting, "ms", self.ours, peer, theirs))


def best_torch(times: Times, kind: str, what: str) -> list[float]:
    """Return the times of the better of PyTorch's two formats; none without PyTorch."""
    found = [times[f"{kind} {form} {what}"] for form in FORMATS if f"{kind} {form} {what}" in times]
    return min(found, key=statistics.median, default=[])


def middle(times: Sequence[float]) -> float | None:
    """Return the median, or None if there are no times."""
    return statistics.median(times) if times else None


def transposed_tables(recorder: history.Recorder, rounds: int) -> None:
    """Compare learned and fixed upsampling, forward and with gradients."""
    names = ("ours", "fixed", "nn.ConvTranspose", "resize"), ("learned", "fixed")
    with start_libraries("upsampling", cases=CASES, batch=1, dtype="float32") as workers:
        results = {case: measure(workers, case, *names, rounds) for case in CASES}
    for what, title in PASSES.items():
        print(f"\n## Learned transposed convolution, {title}, {CHANNELS} channels, float32\n")
        flax_columns = ("nn.ConvTranspose, ms", "× nn.ConvTranspose")
        print(head("kernel, stride, input", "ours, ms", *flax_columns, "PyTorch, ms", "× PyTorch"))
        for (kernel, stride, n), times in results.items():
            setting = f"{kernel}, {stride}, {n}²"
            ours, flax = times[f"ours {what}"], times[f"nn.ConvTranspose {what}"]
            peer = best_torch(times, "learned", what)
            case = Case(recorder, f"{LEARNED}, {title}", setting, ours)
            flax_ratio, torch_ratio = case.over("nn.ConvTranspose", flax), case.over("PyTorch", peer)
            print(row(setting, middle(ours), middle(flax), flax_ratio, middle(peer), torch_ratio))
        print(f"\n## Fixed bilinear, {title}, {CHANNELS} channels, float32\n")
        columns = ("ours, ms", "× jax.image.resize", "PyTorch interpolate, ms", "× interpolate", "× our learned")
        print(head("kernel, stride, input", *columns))
        for (kernel, stride, n), times in results.items():
            setting = f"{kernel}, {stride}, {n}²"
            ours, peer = times[f"fixed {what}"], best_torch(times, "fixed", what)
            case = Case(recorder, f"{FIXED}, {title}", setting, ours)
            ratios = [
                case.over("jax.image.resize", times[f"resize {what}"]),
                middle(peer),
                case.over("PyTorch interpolate", peer),
                case.over("our learned one", times[f"ours {what}"]),
            ]
            print(row(setting, middle(ours), *ratios))


def pooling_table(recorder: history.Recorder, rounds: int) -> None:
    """Compare 2x2/2 and 3x3/2 pooling, forward and with gradients, alone and after a ReLU."""
    ours, theirs = ("ours", "ours after ReLU", "nn.max_pool"), ("pool", "pool after ReLU")
    with start_libraries("pooling", cases=POOLS) as workers:
        results = {case: measure(workers, case, ours, theirs, rounds) for case in POOLS}
    for what, title in PASSES.items():
        print(f"\n## Max pooling, {title}, float32\n")
        columns = ("ours, ms", "nn.max_pool, ms", "× nn.max_pool", "PyTorch, ms", "× PyTorch")
        after = ("after ReLU, ms", "PyTorch, ms", "× PyTorch")
        print(head("input", "window", *columns, *after))
        for (shape, window, _), times in results.items():
            name, size = "x".join(map(str, shape)), f"{window}x{window}/2"
            alone, flax = times[f"ours {what}"], times[f"nn.max_pool {what}"]
            case = Case(recorder, f"{POOLING}, {title}", f"{name}, {size}", alone)
            peer, flax_ratio = best_torch(times, "pool", what), case.over("nn.max_pool", flax)
            cells = [middle(alone), middle(flax), flax_ratio, middle(peer), case.over("PyTorch", peer)]
            joined, peer = times[f"ours after ReLU {what}"], best_torch(times, "pool after ReLU", what)
            case = Case(recorder, f"{RELU_POOLING}, {title}", f"{name}, {size}", joined)
            print(row(name, size, *cells, middle(joined), middle(peer), case.over("PyTorch", peer)))


def gpu_table(recorder: history.Recorder, rounds: int) -> None:
    """Compare batch 16 on the GPU: every method, both dtypes, and the share of the memory's bandwidth."""
    for dtype in ("float32", "bfloat16"):
        with start_libraries("upsampling", {"copied": COPIED}, cases=CASES, batch=16, dtype=dtype) as workers:
            copied = take_turns({"copy": prepare(workers["jax"], "copy")}, rounds)["copy"]
            bandwidth = 2 * 4 * COPIED / statistics.median(copied)
            print(f"\n## {recorder.run['machine']}, batch 16, {dtype}; a copy moves {bandwidth / 1e9:.0f} GB/s\n")
            columns = ("default, ms", f"{' / '.join(METHODS)}, ms", "× nn.ConvTranspose", "× PyTorch")
            last_columns = ("fixed, ms", "fixed × interpolate", "bandwidth: default, fixed")
            print(head("kernel, stride, input", "what", *columns, *last_columns))
            for case in CASES:
                names = ("ours", "fixed", "nn.ConvTranspose", *METHODS), ("learned", "fixed")
                show_gpu_rows(recorder, case, dtype, measure(workers, case, *names, rounds), bandwidth)


def show_gpu_rows(
    recorder: history.Recorder, case: tuple[int, int, int], dtype: str, times: Times, bandwidth: float
) -> None:
    """Record a case and print its rows; `bandwidth` in bytes/s."""
    kernel, stride, n = case
    size = 2 if dtype == "bfloat16" else 4
    x, weights = size * CHANNELS * 16 * n**2, size * CHANNELS**2 * kernel**2
    output = size * CHANNELS * 16 * (n * stride) ** 2
    # What has to move: input and kernel in, output out; backward the cotangent in, what the gradients are made of, and
    # both gradients out. The fixed layer has no kernel, and its gradient is made of the cotangent alone.
    given = x + weights
    moved = {"learned": {"forward": given + output, "both": 3 * given + 2 * output}}
    moved["fixed"] = {"forward": x + output, "both": 2 * x + 2 * output}
    setting = f"{kernel}, {stride}, {n}², batch 16, {dtype}"
    for what, title in PASSES.items():
        ours, fixed_times = times[f"ours {what}"], times[f"fixed {what}"]
        learned = Case(recorder, f"{LEARNED}, {title}", setting, ours)
        fixed = Case(recorder, f"{FIXED}, {title}", setting, fixed_times)
        methods = {name: times[f"{name} {what}"] for name in METHODS}
        for name, found in methods.items():
            learned.over(f"our method {name}", found)
        shares = []
        for name, layer in (("learned", learned), ("fixed", fixed)):
            share = [100 * moved[name][what] / (ms * 1e-3) / bandwidth for ms in layer.ours]
            shares.append(recorder.add(f"bandwidth, {layer.task}", setting, "%", share).ours)
        shown = [
            middle(ours),
            " / ".join(f"{statistics.median(found):.3g}" for found in methods.values()),
            learned.over("nn.ConvTranspose", times[f"nn.ConvTranspose {what}"]),
            learned.over("PyTorch", best_torch(times, "learned", what)),
            middle(fixed_times),
            fixed.over("PyTorch interpolate", best_torch(times, "fixed", what)),
            ", ".join(f"{share:.0f}%" for share in shares),
        ]
        print(row(f"{kernel}, {stride}, {n}²", what, *shown))


if __name__ == "__main__":
    main()
