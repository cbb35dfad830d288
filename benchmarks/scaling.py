"""The collectives and the memory of a data-parallel step: `python benchmarks/scaling.py [--quick]`.

Both are read off the compiled program of the project's own step, FCN-8s on ResNet34 and VGG16 (fc6 and fc7 as in the
paper). The devices are virtual and share the cores of the CPU, so neither times nor speed-ups are measured. Only one
program is run: a step on one device and on eight, whose gradients and batch statistics are compared. `--tpu v5e:2x4`
reads the program for that slice instead, which its compiler makes without a TPU (`pip install libtpu`), and what a step
moves through the memory of a device (traffic.py). `--extrapolate` prints the tables of docs/scaling.md, which combine
that program with published figures of accelerators. Each program is compiled in a process of its own.
"""

import argparse
import math
from typing import Any

import history
from extrapolation import extrapolate
from markdown_table import head, row
from separate import answer, measure
from step_program import Case, compare_devices, read_program

NETWORKS = ("resnet34", "vgg16")
TRAFFIC = {"bytes moved": "moved", "bytes of padding": "padding", "bytes of copies": "copied"}


def main() -> None:
    if answer((read_program, compare_devices)):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer programs, under two minutes")
    parser.add_argument("--tpu", metavar="SLICE", help="compile for TPUs, such as v5e:2x4, instead of for the CPU")
    parser.add_argument("--traffic", action="store_true", help="with --tpu: only what a step moves in the memory")
    parser.add_argument("--extrapolate", action="store_true", help="step times on 8, 64 and 256 accelerators")
    parser.add_argument("--utilisation", type=float, default=0.5, help="share of the matrix rate, for --extrapolate")
    history.add_argument(parser)
    options = parser.parse_args()
    if options.traffic and not options.tpu:
        parser.error("--traffic reads a program for TPUs; give --tpu SLICE, such as v5e:2x2")
    platform = options.tpu or "cpu"
    devices = math.prod(map(int, platform.split(":")[1].split("x"))) if options.tpu else 8
    print(f"programs for {platform}\n")
    if options.extrapolate:
        extrapolate(
            lambda network, batch: read(Case(platform, devices, network, 512, batch, "bfloat16")),
            NETWORKS,
            options.utilisation,
        )
        return
    where = f"TPU {options.tpu} (compiled without one)" if options.tpu else "virtual CPU devices"
    recorder = history.Recorder("scaling", options.quick, options.history, where)
    if options.traffic:
        list_traffic(recorder, platform, devices)
        return
    list_collectives(recorder, platform, devices)
    list_memory(recorder, platform, devices)
    if options.tpu:
        list_traffic(recorder, platform, devices)
    else:
        print("\n### One device against eight, ResNet34, 8 images of 64 pixels\n")
        print("Largest difference after a step, relative to the largest value of its array, in the worst array:")
        found = measure(__file__, "compare_devices")
        for name, value in found.items():
            recorder.add(f"largest relative difference, {name}", "resnet34, 8 images of 64²", "", [value])
        print(", ".join(f"{name} {value:.1e}" for name, value in found.items()))


def read(case: Case) -> dict[str, Any]:
    """Read the program of a case in a process of its own."""
    return measure(__file__, "read_program", **case._asdict())


def list_collectives(recorder: history.Recorder, platform: str, devices: int) -> None:
    """Read the collectives of a step and print their table."""
    cases = [Case(platform, devices, network, 64, 2) for network in NETWORKS]
    if platform == "cpu":
        cases[:1] = [Case(platform, n, "resnet34", 64, 2) for n in ((8,) if recorder.quick else (1, 2, 4, 8))]
        if not recorder.quick:
            cases[-1:] = [Case(platform, n, "vgg16", 64, 2) for n in (1, 2, 4, 8)]
    if not recorder.quick:
        cases += [Case(platform, devices, network, 64, 2, "bfloat16") for network in NETWORKS]
        cases += [Case(platform, devices, network, 64, 4, "float32", 2) for network in NETWORKS]
    print("### Collectives of a step, FCN-8s\n")
    print("Beyond: bytes all-reduced less those of the float32 parameters, over these. Others: all other kinds.\n")
    columns = ("network", "devices", "dtype", "accumulate", "parameters, MB", "all-reduces", "their MB", "beyond")
    print(head(*columns, "others"), flush=True)
    for case in cases:
        found = read(case)
        reduces, size = found["collectives"]["all-reduce"]
        others = {kind: values for kind, values in found["collectives"].items() if kind != "all-reduce" and values[0]}
        beyond = size / found["parameters"] - 1
        devices_named = f"{case.devices} device{'s' if case.devices > 1 else ''}"
        setting = f"{case.network}, {devices_named}, {case.dtype}, accumulate {case.accumulate}"
        recorder.add("parameters", setting, "MB", [found["parameters"] / 1e6])
        recorder.add("all-reduces", setting, "", [reduces])
        recorder.add("all-reduced", setting, "MB", [size / 1e6])
        recorder.add("other collectives", setting, "", [sum(count for count, _ in others.values())])
        if reduces:
            recorder.add("all-reduced beyond the parameters", setting, "%", [100 * beyond])
        shown = [case.network, case.devices, case.dtype, case.accumulate, f"{found['parameters'] / 1e6:.3f}", reduces]
        shown += [f"{size / 1e6:.3f}", f"{beyond:+.3%}" if reduces else "", others or "none"]
        print(row(*shown), flush=True)


def list_memory(recorder: history.Recorder, platform: str, devices: int) -> None:
    """Read the memory that the compiler plans for a device and print its table."""
    crops, batches = ((224,), (2,)) if recorder.quick else ((224, 320, 512), (2, 8))
    dtypes = ("float32",) if recorder.quick else ("float32", "bfloat16")
    print("\n### Memory of a device, GB, as the compiler plans it: parameters, momentum, batch, and all between\n")
    sizes = [(crop, batch) for crop in crops for batch in batches]
    print(head("network", "dtype", *(f"{batch} x {crop}²" for crop, batch in sizes)), flush=True)
    for network in NETWORKS[:1] if recorder.quick else NETWORKS:
        for dtype in dtypes:
            planned = []
            for crop, batch in sizes:
                gigabytes = read(Case(platform, devices, network, crop, batch, dtype))["memory"] / 1e9
                recorder.add(f"planned memory, {batch} x {crop}²", f"{network}, {dtype}", "GB", [gigabytes])
                planned.append(f"{gigabytes:.2f}")
            print(row(network, dtype, *planned), flush=True)


def list_traffic(recorder: history.Recorder, platform: str, devices: int) -> None:
    """Read what a step moves through the memory of a TPU and print its table."""
    print("\n### Bytes that a step of 8 x 512² in bfloat16 moves through the memory of a device, GB\n")
    print(head("network", "moved", "of them padding", "of them copies", "estimated cycles, million"), flush=True)
    for network in NETWORKS[:1] if recorder.quick else NETWORKS:
        found = read(Case(platform, devices, network, 512, 8, "bfloat16"))["traffic"]
        setting = f"{network}, 8 x 512², bfloat16"
        shown = [recorder.add(task, setting, "GB", [found[key] / 1e9]).ours for task, key in TRAFFIC.items()]
        cycles = recorder.add("estimated cycles", setting, "million", [found["cycles"] / 1e6])
        print(row(network, *shown, cycles.ours), flush=True)


if __name__ == "__main__":
    main()
