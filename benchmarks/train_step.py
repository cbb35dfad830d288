"""A training step and a forward pass against PyTorch: `python benchmarks/train_step.py [--quick]`.

FCN-8s on VGG16 (fc6 and fc7 as in the paper) and on ResNet34, or on what `--networks` names: `resnet50` is FCN-8s on
ResNet50, `dilated` is torchvision's FCN. Random images, float32 on CPUs; on a GPU bfloat16 too, where the peer is
`torch.compile` with autocast and cuDNN's benchmark, and both multiply float32 in TF32. PyTorch uses channels last and
all cores. Ours is the program's own step, augmentation included; the peer's has none. On a CPU a plain step of
ResNet34 is measured as well: our network in a step as another project would write it, under a bare `jax.jit` and with
`fcn_jax.layers.jit_options()`.

Every side is a process of its own, and they take turns (turns.py). So the peak of its memory is its own too: the
resident set on CPUs, the allocator's on a GPU. On a GPU all cases of a side of the images are prepared at once.
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack

import history
from machine import has_gpu
from markdown_table import head, row, times
from separate import Worker, answer, start
from stepping import DILATED, ours, plain, pytorch
from turns import ROUNDS, prepare, take_turns

PEER = "PyTorch"
SIDES = (224, 512)
NETWORKS = ("resnet34", "vgg16", "resnet50", DILATED)
PLAIN = {"jax.jit": "plain step", "jit_options": "plain step with jit_options"}
Case = dict[str, int | str]


def main() -> None:
    if answer((ours, plain, pytorch)):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ResNet34 alone, few rounds")
    parser.add_argument("--sides", type=int, nargs="+", choices=SIDES, default=SIDES, help="sides of the square images")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS[:2], help="networks to train")
    history.add_argument(parser)
    options = parser.parse_args()
    gpu = has_gpu()
    groups = [
        [
            {"network": network, "side": side, "batch": batch_of(network, side, gpu), "dtype": dtype}
            for network in options.networks
            if gpu or side == 224 or network == "resnet34"  # a round of the others takes more than 10 s on a CPU
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


def batch_of(network: str, side: int, gpu: bool) -> int:
    """Choose the number of images of a step. On a CPU both sides of an image make about as many pixels."""
    if gpu:
        return {224: 16, 512: 8}[side]
    return 2 if side == 512 or network == DILATED else 8  # the dilated network computes eight times as much a pixel


def start_sides(case: Case, gpu: bool) -> dict[str, Worker]:
    """Start the processes of a case."""
    workers = {name: start(__file__, name, **case) for name in ("ours", "pytorch")}
    if not gpu and case["network"] == "resnet34":
        workers["plain"] = start(__file__, "plain", **{name: case[name] for name in ("network", "side", "batch")})
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
    network, side, batch, dtype = (case[name] for name in ("network", "side", "batch", "dtype"))
    title = "dilated FCN resnet50" if network == DILATED else f"FCN-8s {network}"
    setting = f"{title}, {batch} x {side}², {dtype}"

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
    shown = [title, f"{batch} x {side}²", dtype, step.ours, step.peer_value]
    shown += [history.describe_ratio(step), history.describe_ratio(forward), *(plains or ("", ""))]
    print(row(*shown, f"{operations.ours:.0f}", times(memory.ratio)), flush=True)


if __name__ == "__main__":
    main()
