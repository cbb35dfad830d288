"""A training step and a forward pass against PyTorch: `python benchmarks/train_step.py [--quick] [--sides SIDE ...]`.

FCN-8s on VGG16 (fc6 and fc7 as in the paper) and on ResNet34, random images, float32 on CPUs; on a GPU bfloat16 too,
where the peer is `torch.compile` with autocast and cuDNN's benchmark, and both multiply float32 in TF32. PyTorch uses
channels last and all cores. Ours is the program's own step, augmentation included; the peer's has none. Each
measurement is a process of its own, ours and the peer's by turns, so that the peak of its memory is its own too: the
resident set on CPUs, the allocator's on a GPU. On a GPU, where compiling takes minutes and measuring seconds, all cases
of a side compile at once, and then measure one after the other.
"""

import argparse
import os
from collections.abc import Sequence

import history
from machine import has_gpu
from markdown_table import head, row, times
from meters import ON_GPU, Effort, resident, seconds
from pytorch_fcn8s import CLASSES, torch_fcn8s
from separate import answer, measure, measure_in_turns

PEER = "PyTorch"
SIDES = (224, 512)
QUICK, ON_CPU = Effort(1, 1, 3), Effort(2, 1, 8)


def main() -> None:
    if answer((ours, pytorch)):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ResNet34 alone, few steps")
    parser.add_argument("--sides", type=int, nargs="+", choices=SIDES, default=SIDES, help="sides of the square images")
    history.add_argument(parser)
    options = parser.parse_args()
    gpu = has_gpu()
    # About as many pixels in both sizes of a CPU, where a step of VGG16 takes seconds.
    batches = {224: 16, 512: 8} if gpu else {224: 8, 512: 2}
    cases = [(backbone, side, batches[side]) for side in options.sides for backbone in ("resnet34", "vgg16")]
    cases = cases[:1] if options.quick else cases
    effort = QUICK if options.quick else ON_GPU if gpu else ON_CPU
    dtypes = ("float32", "bfloat16") if gpu else ("float32",)
    recorder = history.Recorder("train_step", options.quick, options.history)
    print(f"{recorder.describe()}\n")
    columns = ("network", "images", "dtype", "ours, images/s", "PyTorch, images/s", "× PyTorch", "forward, ×")
    print(head(*columns, "GFLOP/s", "memory, ×"))
    names, measured = ("ours", "pytorch"), {"rounds": effort.rounds, "repeats": effort.repeats}
    cases = [
        {"backbone": backbone, "side": side, "batch": batch, "dtype": dtype, **measured}
        for backbone, side, batch in cases
        for dtype in dtypes
    ]
    if gpu:  # the cases of a side compile together
        for side in options.sides:
            of_side = [case for case in cases if case["side"] == side]
            calls = [(name, case) for case in of_side for name in names]
            found = measure_in_turns(__file__, calls)
            for case, us, peer in zip(of_side, found, found, strict=True):
                compare(recorder, case, [us], [peer])
    else:
        for case in cases:
            turns = [[measure(__file__, name, **case) for name in names] for _ in range(effort.processes)]
            compare(recorder, case, *zip(*turns, strict=True))


def compare(recorder: history.Recorder, case: dict, us: Sequence[dict], peer: Sequence[dict]) -> None:
    """Print the row of a case and record it."""
    backbone, side, batch, dtype = (case[name] for name in ("backbone", "side", "batch", "dtype"))
    setting = f"FCN-8s {backbone}, {batch} x {side}², {dtype}"

    def rate(name: str, found: Sequence[dict], amount: float = batch) -> list[float]:
        return [amount / time for one in found for time in one[name]]

    def gigabytes(found: Sequence[dict]) -> list[float]:
        return [one["memory"] / 1e9 for one in found]

    step = recorder.add("training step", setting, "images/s", rate("step", us), PEER, rate("step", peer))
    forward = recorder.add("forward pass", setting, "images/s", rate("forward", us), PEER, rate("forward", peer))
    operations = recorder.add("operations", setting, "GFLOP/s", rate("step", us, us[0]["flops"] / 1e9))
    memory = recorder.add("memory", setting, "GB", gigabytes(us), PEER, gigabytes(peer))
    shown = [f"FCN-8s {backbone}", f"{batch} x {side}²", dtype, step.ours, step.peer_value]
    shown += [times(step.ratio), times(forward.ratio), f"{operations.ours:.0f}", times(memory.ratio)]
    print(row(*shown), flush=True)


def ours(backbone: str, side: int, batch: int, dtype: str, rounds: int, repeats: int) -> dict:
    """Measure the program's own step, its operations, its memory, and the forward pass."""
    from functools import partial

    import jax
    import jax.numpy as jnp
    import numpy as np

    from fcn_jax.config import AugmentConfig, Config, ModelConfig, OptimConfig
    from fcn_jax.data.augment import draw_changes
    from fcn_jax.data.batches import Batch
    from fcn_jax.data.defaults import fill_config
    from fcn_jax.layers.backend import compiler_options
    from fcn_jax.models.build import build
    from fcn_jax.runtime.compile_cache import give_back_memory
    from fcn_jax.runtime.operations import count_flops
    from fcn_jax.training.state import init_state
    from fcn_jax.training.step import make_step

    give_back_memory()  # as `fcn-jax` does
    config = fill_config(
        Config(
            model=ModelConfig(backbone=backbone, dtype=dtype),
            augment=AugmentConfig(crop=side, scale=(1.0, 1.0)),
            optim=OptimConfig(learning_rate=1e-3),
            batch_size=batch,
            steps=100,
        )
    )
    model = build(config.model, CLASSES)
    state = jax.jit(partial(init_state, model, config))()
    rng = np.random.default_rng(0)
    sizes = np.full((batch, 2), side, np.int32)
    data = Batch(
        rng.integers(0, 256, (batch, side, side, 3), np.uint8),
        rng.integers(0, CLASSES, (batch, side, side), np.uint8),
        sizes,
        draw_changes(config.seed, 0, sizes, 0, batch, config.augment),
    )
    data = jax.device_put(data)
    traced = make_step(model, config).trace(state, data)
    step = traced.lower().compile()
    forward = jax.jit(model.apply, compiler_options=compiler_options(training=False))
    images = jnp.asarray(rng.normal(size=(batch, side, side, 3)), jnp.float32)

    def one() -> None:
        nonlocal state
        state, metrics = step(state, data)
        jax.block_until_ready(metrics)

    jax.block_until_ready(forward(state.variables, images))  # compiled before this process has its turn
    on_gpu = jax.default_backend() == "gpu"
    result = {"step": seconds(one, rounds, repeats), "flops": count_flops(traced.jaxpr.jaxpr)}
    result["memory"] = jax.devices()[0].memory_stats()["peak_bytes_in_use"] if on_gpu else resident()
    result["forward"] = seconds(lambda: jax.block_until_ready(forward(state.variables, images)), rounds, repeats)
    return result


def pytorch(backbone: str, side: int, batch: int, dtype: str, rounds: int, repeats: int) -> dict:
    """Measure the same network, loss and optimizer in PyTorch."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True  # as JAX does, and as cuDNN's convolutions do
    model = torch_fcn8s(backbone).to(device, memory_format=torch.channels_last)
    call = torch.compile(model) if cuda else model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(batch, 3, side, side, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (batch, side, side), device=device)
    autocast = torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")
    wait = torch.cuda.synchronize if cuda else lambda: None

    def one() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            logits = call(images)
        torch.nn.functional.cross_entropy(logits.float(), labels, ignore_index=255).backward()
        optimizer.step()
        wait()

    def forward() -> None:
        with torch.no_grad(), autocast:
            call(images)
        wait()

    model.eval()
    forward()  # compiled before this process has its turn
    model.train()
    result = {"step": seconds(one, rounds, repeats)}
    result["memory"] = torch.cuda.max_memory_allocated() if cuda else resident()
    model.eval()
    result["forward"] = seconds(forward, rounds, repeats)
    return result


if __name__ == "__main__":
    main()
