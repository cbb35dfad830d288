"""A training step and a forward pass against PyTorch: `python benchmarks/train_step.py [--quick] [--sides SIDE ...]`.

FCN-8s on VGG16 (fc6 and fc7 as in the paper) and on ResNet34, random images, float32 on CPUs; on a GPU bfloat16 too,
where the peer is `torch.compile` with autocast and cuDNN's benchmark, and both multiply float32 in TF32. PyTorch uses
channels last and all cores. Ours is the program's own step, augmentation included; the peer's has none. On a CPU a
plain step is measured as well: our network in a step as another project would write it, under a bare `jax.jit` and
with `fcn_jax.layers.jit_options()`.

Every side is a process of its own, and they take turns (turns.py). So the peak of its memory is its own too: the
resident set on CPUs, the allocator's on a GPU. On a GPU all cases of a side of the images compile at once.
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack

import history
from machine import has_gpu
from markdown_table import head, row, times
from separate import Worker, answer, start
from stepping import ours, plain, pytorch
from turns import ROUNDS, prepare, take_turns

PEER = "PyTorch"
SIDES = (224, 512)
PLAIN = {"jax.jit": "plain step", "jit_options": "plain step with jit_options"}
Case = dict[str, int | str]


def main() -> None:
    if answer((ours, plain, pytorch)):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ResNet34 alone, few rounds")
    parser.add_argument("--sides", type=int, nargs="+", choices=SIDES, default=SIDES, help="sides of the square images")
    history.add_argument(parser)
    options = parser.parse_args()
    gpu = has_gpu()
    # About as many pixels in both sizes of a CPU, where a step of VGG16 takes seconds.
    batches = {224: 16, 512: 8} if gpu else {224: 8, 512: 2}
    groups = [
        [
            {"backbone": backbone, "side": side, "batch": batches[side], "dtype": dtype}
            for backbone in ("resnet34", "vgg16")
            if gpu or (backbone, side) != ("vgg16", 512)  # a round of it takes 10 s on a CPU
            for dtype in (("float32", "bfloat16") if gpu else ("float32",))
        ]
        for side in options.sides
    ]
    if options.quick:
        groups = [groups[0][:1]]
    if not gpu:  # compiling takes a part of the time that the rounds take, and VGG16 gigabytes of memory
        groups = [[case] for group in groups for case in group]
    recorder = history.Recorder("train_step", options.quick, options.history)
    print(f"{recorder.describe()}\n")
    columns = ("network", "images", "dtype", "ours, images/s", "PyTorch, images/s", "× PyTorch", "forward, ×")
    print(head(*columns, "plain step, ×", "with jit_options, ×", "GFLOP/s", "memory, ×"))
    for group in groups:
        with ExitStack() as stack:
            sides = [
                [(name, stack.enter_context(side)) for name, side in start_sides(case, gpu).items()] for case in group
            ]
            for _, side in (pair for pairs in sides for pair in pairs):
                side.wait_until_ready()
            for case, workers in zip(group, sides, strict=True):
                measure_case(recorder, case, dict(workers))


def start_sides(case: Case, gpu: bool) -> dict[str, Worker]:
    """Start the processes of a case."""
    workers = {name: start(__file__, name, **case) for name in ("ours", "pytorch")}
    if not gpu and case["backbone"] == "resnet34":
        workers["plain"] = start(__file__, "plain", **{name: case[name] for name in ("backbone", "side", "batch")})
    return workers


def measure_case(recorder: history.Recorder, case: Case, workers: dict[str, Worker]) -> None:
    """Let the sides of a case take turns, record it and print its row."""
    us, peer = workers["ours"], workers["pytorch"]
    candidates = {"ours step": prepare(us, "step"), "peer step": prepare(peer, "step")}
    memory = {"ours memory": [us.ask("memory")], "peer memory": [peer.ask("memory")]}  # of the step alone
    candidates |= {"ours forward": prepare(us, "forward"), "peer forward": prepare(peer, "forward")}
    if "plain" in workers:
        candidates |= {name: prepare(workers["plain"], name) for name in PLAIN}
    found = take_turns(candidates, 3 if recorder.quick else ROUNDS)
    record(recorder, case, found | memory, us.ask("flops"))


def record(recorder: history.Recorder, case: Case, found: dict[str, Sequence[float]], flops: float) -> None:
    """Record a case, given its seconds and bytes, and print its row."""
    backbone, side, batch, dtype = (case[name] for name in ("backbone", "side", "batch", "dtype"))
    setting = f"FCN-8s {backbone}, {batch} x {side}², {dtype}"

    def rate(name: str, amount: float = batch) -> list[float]:
        return [amount / seconds for seconds in found[name]]

    def gigabytes(name: str) -> list[float]:
        return [size / 1e9 for size in found[name]]

    step = recorder.add("training step", setting, "images/s", rate("ours step"), PEER, rate("peer step"))
    forward = recorder.add("forward pass", setting, "images/s", rate("ours forward"), PEER, rate("peer forward"))
    plains = [
        times(recorder.add(task, setting, "images/s", rate(name), PEER, rate("peer step")).ratio)
        for name, task in PLAIN.items()
        if name in found
    ]
    operations = recorder.add("operations", setting, "GFLOP/s", rate("ours step", flops / 1e9))
    memory = recorder.add("memory", setting, "GB", gigabytes("ours memory"), PEER, gigabytes("peer memory"))
    shown = [f"FCN-8s {backbone}", f"{batch} x {side}²", dtype, step.ours, step.peer_value]
    shown += [history.describe_ratio(step), history.describe_ratio(forward), *(plains or ("", ""))]
    print(row(*shown, f"{operations.ours:.0f}", times(memory.ratio)), flush=True)


if __name__ == "__main__":
    main()
