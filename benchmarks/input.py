"""From files to batches, and whether training waits for them: `python benchmarks/input.py [--quick]`.

Images/s of `train_batches` for decoding, for the file of decoded images and for a split on the devices, against a plain
PyTorch DataLoader that decodes the same files with Pillow and puts them on the same canvas; with one worker and one a
core (ours are threads, PyTorch's processes). Then the share of time that training steps wait for input, and what
photographs of 6000x4000 pixels cost, in parts and whole. `--voc` and `--camvid` name the folders of the data; a data
set whose folder is missing is left out. Each side is a process of its own, and so is the peak of its memory. Those that
are compared take turns (turns.py).
"""

import argparse
import functools
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import history
from feeding import BATCH, CORES, LARGE, large, ours, photographs, pytorch, waiting
from markdown_table import head, row
from separate import answer, measure, start
from turns import ROUNDS, take_turns

SHARED = Path(__file__).parents[2] / "shared" / "data"
QUIET = {"PYTHONWARNINGS": "ignore"}
MODES = ("never", "disk", "device")


def main() -> None:
    if answer((ours, pytorch, waiting, large)):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="CamVid alone, decoded each time, few batches")
    parser.add_argument("--voc", type=Path, default=SHARED / "VOCdevkit")
    parser.add_argument("--camvid", type=Path, default=SHARED / "camvid")
    parser.add_argument("--only", choices=("files", "waiting", "large"), help="one table alone")
    history.add_argument(parser)
    options = parser.parse_args()
    recorder = history.Recorder("input", options.quick, options.history)
    print(f"{recorder.describe()}, batch {BATCH}")
    data = {"camvid": options.camvid} if options.quick else {"voc2012": options.voc, "camvid": options.camvid}
    with tempfile.TemporaryDirectory() as folder:
        for name, table in (("files", compare_rates), ("waiting", measure_waiting), ("large", measure_large)):
            if options.only in (None, name):
                table(recorder, {key: value for key, value in data.items() if value.is_dir()}, Path(folder))


def compare_rates(recorder: history.Recorder, data: dict[str, Path], cache: Path) -> None:
    """Measure images/s from files to batches, and print the table."""
    quick = recorder.quick
    print("\n### Files to batches, images/s\n")
    print(head("data", "workers", "decoding", "PyTorch", "× PyTorch", "decoded, disk", "decoded, device"))
    for name, folder in data.items():
        for workers in [CORES] if quick else sorted({1, CORES}):
            common = {"name": name, "dir": str(folder), "workers": workers}
            with ExitStack() as stack:
                sides = {mode: ("ours", {"cache": str(cache), "mode": mode}) for mode in MODES} | {
                    "peer": ("pytorch", {})
                }
                candidates = {
                    side: stack.enter_context(start(__file__, function, os.environ | QUIET, **common, **further))
                    for side, (function, further) in sides.items()
                }
                for worker in candidates.values():
                    worker.wait_until_ready()
                turns = {side: functools.partial(worker.ask, "rate") for side, worker in candidates.items()}
                found = take_turns(turns, 2 if quick else ROUNDS)
            setting = f"{name}, {workers} worker{'s' if workers > 1 else ''}"
            decoding = recorder.add(
                "files to batches", setting, "images/s", found["never"], "PyTorch DataLoader", found["peer"]
            )
            disk = recorder.add("decoded on disk to batches", setting, "images/s", found["disk"])
            device = recorder.add("decoded on the device to batches", setting, "images/s", found["device"])
            ratio = history.describe_ratio(decoding)
            print(row(name, workers, decoding.ours, decoding.peer_value, ratio, disk.ours, device.ours), flush=True)


def measure_waiting(recorder: history.Recorder, data: dict[str, Path], cache: Path) -> None:
    """Measure the share of time that training waits, and print the table."""
    print("\n### Waiting for input while training, FCN-8s ResNet18, CamVid\n")
    print(head("decoded", "images/s", "waiting"))
    for mode in modes_of(recorder.quick) if "camvid" in data else ():
        steps = 5 if recorder.quick else 30
        result = run("waiting", dir=str(data["camvid"]), cache=str(cache), mode=mode, steps=steps)
        recorder.add("training on CamVid", mode, "images/s", [result["rate"]])
        recorder.add("share of time that training waits", mode, "%", [100 * result["share"]])
        print(row(mode, f"{result['rate']:.2f}", f"{result['share']:.2%}"), flush=True)


def measure_large(recorder: history.Recorder, data: dict[str, Path], cache: Path) -> None:
    """Measure what large photographs cost, with the augmentation that a step begins with, and print the table."""
    del data
    folder = photographs(cache / "large")
    print(f"\n### Eight photographs of {LARGE[1]}x{LARGE[0]}, crop 224, zoom 0.5 to 2, batches and augmentation\n")
    print(head("what", "resident set, GB", "images/s"))
    quick = recorder.quick
    cases = [] if quick else [("whole images, decoded each time", "never", False)]
    cases += [(f"parts, decoded: {mode}", mode, True) for mode in modes_of(quick)]
    for what, mode, parts in cases:
        count = 1 if quick else 4 if mode == "never" else 20
        result = run("large", dir=str(folder), cache=str(cache), mode=mode, parts=parts, count=count)
        recorder.add("memory of large photographs", what, "GB", [result["memory"] / 1e9])
        recorder.add("large photographs to augmented batches", what, "images/s", [result["rate"]])
        print(row(what, f"{result['memory'] / 1e9:.2f}", f"{result['rate']:.1f}"), flush=True)


def modes_of(quick: bool) -> tuple[str, ...]:
    return MODES[:1] if quick else MODES


def run(name: str, /, **arguments: Any) -> dict[str, float]:
    """Take one measurement in a process of its own."""
    return measure(__file__, name, os.environ | QUIET, **arguments)


if __name__ == "__main__":
    main()
