"""How time and memory grow: `python benchmarks/growth.py [--quick] [SWEEP ...]`.

- `pixels`: images of 500x750 to 2000x3000 pixels in memory to class maps, FCN-8s on ResNet34, whole and in the tiles of
  `fcn-jax predict`, against PyTorch, which computes them whole. Ours puts them on a canvas.
- `batch`: a training step of 1 to 8 images of 224², FCN-8s on ResNet34, against PyTorch.
- `classes`: a training step of one image of 224² with 2 to 1000 classes, against PyTorch. Labels are below 255.
- `examples`: data sets of 1000 to 100,000 images of 32²: building and opening them, and making the first batch of an
  epoch, which needs its order.

Times are measured by turns (turns.py). Memory is the largest resident set of a process that does nothing else. For each
sweep a power of the size is fitted to the medians by least squares of the logarithms: 1 is linear.
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import history
import numpy as np
from growing import TILES, ours_image, pytorch_image, use_examples, write_examples
from markdown_table import head, number, row, times
from separate import answer, measure, start
from stepping import ours, pytorch
from turns import ROUNDS, prepare, take_turns

PEER = "PyTorch"
WHOLE = "whole"
SIZES = ((500, 750), (1000, 1500), (2000, 3000))
BATCHES = (1, 2, 4, 8)
CLASSES = (2, 21, 150, 1000)
EXAMPLES = (1000, 10_000, 100_000)
LATE = 1_000_000  # a step after many epochs of each data set
HEAD = ("what", "ours, s", "PyTorch, s", "×", "ours, GB", "PyTorch, GB", "×")
Medians = dict[str, list[float]]


def main() -> None:
    if answer((ours, pytorch, ours_image, pytorch_image, use_examples, write_examples)):
        return
    sweeps = {"pixels": sweep_pixels, "batch": sweep_batch, "classes": sweep_classes, "examples": sweep_examples}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help=f"default: all of {', '.join(sweeps)}")
    parser.add_argument("--quick", action="store_true", help="the two smallest sizes of each sweep, few rounds")
    history.add_argument(parser)
    options = parser.parse_args()
    if unknown := set(options.sweeps) - set(sweeps):
        parser.error(f"{', '.join(unknown)}: sweeps are {', '.join(sweeps)}")
    recorder = history.Recorder("growth", options.quick, options.history)
    print(recorder.describe())
    for name in options.sweeps or sweeps:
        sweeps[name](recorder, slice(2 if options.quick else None))


def sweep_pixels(recorder: history.Recorder, taken: slice) -> None:
    """Segment larger and larger images."""
    sizes = SIZES[taken]
    print(f"\n### Pixels\n\n{head(*HEAD)}")
    found: dict[str, list[Medians]] = {WHOLE: [], TILES: []}
    for height, width in sizes:
        sides = {how: ("ours_image", {"how": how}) for how in found} | {PEER: ("pytorch_image", {})}
        values = compare(recorder, sides, "segment", height=height, width=width)
        for how, medians in found.items():
            medians.append(report(recorder, f"an image of {height}x{width}, {how}", values, how))
    pixels = [height * width for height, width in sizes]
    for how, medians in found.items():
        fit(recorder, f"pixels of an image, {how}", pixels, medians)


def sweep_batch(recorder: history.Recorder, taken: slice) -> None:
    """Train on more and more images at once."""
    sweep_steps(recorder, "images of a step", {n: {"batch": n} for n in BATCHES[taken]}, "a step of {} x 224²")


def sweep_classes(recorder: history.Recorder, taken: slice) -> None:
    """Train with more and more classes."""
    cases = {n: {"batch": 1, "classes": n} for n in CLASSES[taken]}
    sweep_steps(recorder, "classes of a step", cases, "a step of 1 x 224², {} classes")


def sweep_steps(recorder: history.Recorder, title: str, cases: Mapping[int, dict[str, int]], setting: str) -> None:
    """Measure training steps whose cost grows with the keys of `cases`."""
    print(f"\n### {title.capitalize()}\n\n{head(*HEAD)}")
    found = []
    for size, case in cases.items():
        sides = {"ours": ("ours", {}), PEER: ("pytorch", {})}
        values = compare(recorder, sides, "step", network="resnet34", side=224, dtype="float32", **case)
        found.append(report(recorder, setting.format(size), values, "ours"))
    fit(recorder, title, list(cases), found)


def compare(
    recorder: history.Recorder, sides: Mapping[str, tuple[str, dict[str, Any]]], call: str, **arguments: Any
) -> dict[str, tuple[list[float], float]]:
    """Let the sides take turns.

    Args:
        recorder: of the run.
        sides: the function of each side, with its own arguments.
        call: the name of what is measured.
        arguments: arguments of all sides.

    Returns:
        The seconds of each side in each round, and its largest resident set, bytes.
    """
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(start(__file__, function, **arguments, **own))
            for name, (function, own) in sides.items()
        }
        turns = {name: prepare(worker, call) for name, worker in workers.items()}
        seconds = take_turns(turns, 2 if recorder.quick else ROUNDS)
        return {name: (seconds[name], worker.ask("memory")) for name, worker in workers.items()}


def report(
    recorder: history.Recorder, setting: str, values: Mapping[str, tuple[list[float], float]], name: str
) -> Medians:
    """Record time and memory of one of our sides beside the peer's, print the row, and return the medians of both."""
    (mine, our_bytes), (theirs, their_bytes) = values[name], values[PEER]
    time = recorder.add("time", setting, "s", mine, PEER, theirs)
    memory = recorder.add("memory", setting, "GB", [our_bytes / 1e9], PEER, [their_bytes / 1e9])
    shown = [number(time.ours), number(time.peer_value), history.describe_ratio(time)]
    shown += [number(memory.ours), number(memory.peer_value), times(memory.ratio)]
    print(row(setting, *shown), flush=True)
    return {"time": [time.ours, time.peer_value], "memory": [memory.ours, memory.peer_value]}


def fit(recorder: history.Recorder, title: str, sizes: Sequence[int], found: Sequence[Medians]) -> None:
    """Fit the power of the size with which time and memory grow, ours and the peer's; record and print them."""
    for what in ("time", "memory"):
        mine, theirs = (fit_power(sizes, [medians[what][side] for medians in found]) for side in (0, 1))
        recorder.add(f"power of {what}", title, "", [mine], PEER, [theirs])
        print(f"\n{title}: {what} grows with the power {mine:.2f}, PyTorch's {theirs:.2f}", flush=True)


def sweep_examples(recorder: history.Recorder, taken: slice) -> None:
    """Build, open and use longer and longer data sets."""
    columns = {"built": "open", "opened again": "open", "first batch": "batch", "batch of a late step": "batch"}
    print(f"\n### Examples of a data set\n\n{head('examples', *(f'{name}, s' for name in columns), 'memory, GB')}")
    counts = EXAMPLES[taken]
    medians: dict[str, list[float]] = {name: [] for name in (*columns, "memory")}
    for count in counts:
        with tempfile.TemporaryDirectory() as temporary:
            folder, cache = f"{temporary}/data", f"{temporary}/cache"
            measure(__file__, "write_examples", folder=folder, count=count)

            def use(step: int, folder: str = folder, cache: str = cache) -> dict[str, float]:
                return measure(__file__, "use_examples", folder=folder, cache=cache, step=step)

            built = use(0)
            rounds = 1 if recorder.quick else 5
            again, late = [use(0) for _ in range(rounds)], [use(LATE) for _ in range(rounds)]
        runs = {"built": [built], "opened again": again, "first batch": again, "batch of a late step": late}
        for name, key in columns.items():
            values = [run[key] for run in runs[name]]
            medians[name].append(statistics.median(values))
            recorder.add(name, f"{count} examples", "s", values)
        gigabytes = [run["memory"] / 1e9 for run in again]
        medians["memory"].append(statistics.median(gigabytes))
        recorder.add("memory of training's input", f"{count} examples", "GB", gigabytes)
        print(row(count, *(number(values[-1]) for values in medians.values())), flush=True)
    for name, values in medians.items():
        power = fit_power(counts, values)
        recorder.add("power of memory" if name == "memory" else "power of time", f"examples, {name}", "", [power])
        print(f"\n{name} grows with the power {power:.2f}", flush=True)


def fit_power(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the power p of the curve a * size**p that is nearest to the values, by least squares of the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


if __name__ == "__main__":
    main()
