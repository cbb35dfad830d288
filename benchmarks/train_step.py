"""A training step and a forward pass against PyTorch: `python benchmarks/train_step.py [--quick]`.

FCN-8s on VGG16 (fc6 and fc7 as in the paper) and on ResNet34, random images, float32 on CPUs; on a GPU bfloat16 too,
where the peer is `torch.compile` with autocast and cuDNN's benchmark. PyTorch uses channels last and all cores. Ours
is the program's own step, augmentation included; the peer's has none. Each measurement is a process of its own, ours
and the peer's by turns, so that the peak of its memory is its own too: the resident set on CPUs, the allocator's on a
GPU.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

CLASSES = 21
STEPS = {"quick": 3, "full": 8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ResNet34 alone, few steps")
    parser.add_argument("--measure", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        who, backbone, side, batch, dtype = options.measure
        measure = {"ours": ours, "pytorch": pytorch}[who]
        steps = STEPS["quick" if options.quick else "full"]
        print(json.dumps(measure(backbone, int(side), int(batch), dtype, steps)))
        return
    gpu = has_gpu()
    # About as many pixels in both sizes of a CPU, where a step of VGG16 takes seconds.
    sizes = ((224, 16), (512, 16)) if gpu else ((224, 8), (512, 2))
    cases = [(backbone, side, batch) for side, batch in sizes for backbone in ("resnet34", "vgg16")]
    cases = cases[:1] if options.quick else cases
    dtypes = ("float32", "bfloat16") if gpu else ("float32",)
    print(f"{os.cpu_count()} cores {platform.machine()}, load at the start {os.getloadavg()[0]:.1f}\n")
    columns = ("network", "images", "dtype", "ours, images/s", "PyTorch, images/s", "× PyTorch", "forward, ×")
    print(f"| {' | '.join([*columns, 'GFLOP/s', 'memory, ×'])} |\n|{' --- |' * (len(columns) + 2)}")
    for backbone, side, batch in cases:
        for dtype in dtypes:
            rounds = [
                [run(who, backbone, side, batch, dtype, options.quick) for who in ("ours", "pytorch")]
                for _ in range(1 if options.quick else 2)
            ]
            us, peer = ({key: statistics.median(r[i][key] for r in rounds) for key in rounds[0][i]} for i in (0, 1))
            print(
                f"| FCN-8s {backbone} | {batch} x {side}² | {dtype} | {batch / us['step']:.3g} "
                f"| {batch / peer['step']:.3g} | {peer['step'] / us['step']:.2f} "
                f"| {peer['forward'] / us['forward']:.2f} | {us['flops'] / us['step'] / 1e9:.0f} "
                f"| {us['memory'] / peer['memory']:.2f} |",
                flush=True,
            )


def run(who: str, backbone: str, side: int, batch: int, dtype: str, quick: bool) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, *(["--quick"] if quick else []), "--measure"]
    command += [who, backbone, str(side), str(batch), dtype]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Median time of calls that wait for their result, after two that warm up."""
    times = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def resident() -> int:
    """Largest resident set of this process so far, bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def ours(backbone: str, side: int, batch: int, dtype: str, repeats: int) -> dict[str, float]:
    """The program's own step."""
    from functools import partial

    import jax
    import jax.numpy as jnp
    import numpy as np

    from fcn_jax.config import AugmentConfig, Config, ModelConfig, OptimConfig
    from fcn_jax.data.batches import Batch
    from fcn_jax.layers.conv import compiler_options
    from fcn_jax.models.build import build
    from fcn_jax.runtime.compile_cache import give_back_memory
    from fcn_jax.training.loop import make_step
    from fcn_jax.training.state import init_state

    give_back_memory()  # as `fcn-jax` does
    config = Config(
        model=ModelConfig(backbone=backbone, dtype=dtype),
        augment=AugmentConfig(crop=side, scale=(1.0, 1.0)),
        optim=OptimConfig(learning_rate=1e-3),
        batch_size=batch,
        steps=100,
    ).resolved()
    model = build(config.model, CLASSES)
    state = jax.jit(partial(init_state, model, config))()
    rng = np.random.default_rng(0)
    data = Batch(
        rng.integers(0, 256, (batch, side, side, 3), np.uint8),
        rng.integers(0, CLASSES, (batch, side, side), np.uint8),
        np.full((batch, 2), side, np.int32),
    )
    data = jax.device_put(data)
    step = make_step(model, config).lower(state, data).compile()
    forward = jax.jit(model.apply, compiler_options=compiler_options(training=False))
    images = jnp.asarray(rng.normal(size=(batch, side, side, 3)), jnp.float32)

    def one() -> None:
        nonlocal state
        state, metrics = step(state, data)
        jax.block_until_ready(metrics)

    result = {"step": seconds(one, repeats), "flops": step.cost_analysis()["flops"]}
    on_gpu = jax.default_backend() == "gpu"
    result["memory"] = jax.devices()[0].memory_stats()["peak_bytes_in_use"] if on_gpu else resident()
    result["forward"] = seconds(lambda: jax.block_until_ready(forward(state.variables, images)), repeats)
    return result


def pytorch(backbone: str, side: int, batch: int, dtype: str, repeats: int) -> dict[str, float]:
    """The same network, loss and optimizer in PyTorch."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    torch.backends.cudnn.benchmark = True
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

    result = {"step": seconds(one, repeats)}
    result["memory"] = torch.cuda.max_memory_allocated() if cuda else resident()
    model.eval()
    result["forward"] = seconds(forward, repeats)
    return result


def torch_fcn8s(backbone: str):
    """FCN-8s as in `fcn_jax.models.fcn`, in PyTorch's words."""
    import torch
    from torch import nn

    def vgg() -> tuple[list[nn.Module], tuple[int, int, int]]:
        parts, ins, layers = [], 3, []
        for stage, (outs, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
            for _ in range(depth):
                layers += [nn.Conv2d(ins, outs, 3, padding=1), nn.ReLU(inplace=True)]
                ins = outs
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            if stage in (2, 3):
                parts.append(nn.Sequential(*layers))
                layers = []
        layers += [nn.Conv2d(512, 4096, 7, padding=3), nn.ReLU(inplace=True), nn.Dropout()]
        layers += [nn.Conv2d(4096, 4096, 1), nn.ReLU(inplace=True), nn.Dropout()]
        return [*parts, nn.Sequential(*layers)], (256, 512, 4096)

    class Block(nn.Module):
        def __init__(self, ins: int, outs: int, stride: int):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(ins, outs, 3, stride, 1, bias=False), nn.BatchNorm2d(outs)
            self.conv2, self.bn2 = nn.Conv2d(outs, outs, 3, 1, 1, bias=False), nn.BatchNorm2d(outs)
            plain = stride == 1 and ins == outs
            shortcut = [nn.Conv2d(ins, outs, 1, stride, bias=False), nn.BatchNorm2d(outs)]
            self.shortcut = nn.Identity() if plain else nn.Sequential(*shortcut)

        def forward(self, x):
            y = torch.relu(self.bn1(self.conv1(x)))
            return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))

    def resnet() -> tuple[list[nn.Module], tuple[int, int, int]]:
        layers = [
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        ]
        parts, ins = [], 64
        for stage, depth in enumerate((3, 4, 6, 3)):
            for index in range(depth):
                outs = 64 * 2**stage
                layers.append(Block(ins, outs, 2 if stage and not index else 1))
                ins = outs
            if stage:
                parts.append(nn.Sequential(*layers))
                layers = []
        return parts, (128, 256, 512)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            parts, channels = vgg() if backbone == "vgg16" else resnet()
            self.parts = nn.ModuleList(parts)
            self.scores = nn.ModuleList(nn.Conv2d(c, CLASSES, 1) for c in channels)

            # As `fcn_jax.models.fcn.alignment` has it: even kernels on VGG, odd ones on ResNet.
            def up(factor: int) -> nn.Module:
                kernel = 2 * factor if backbone == "vgg16" else 2 * factor - 1
                padding, extra = (factor // 2, 0) if backbone == "vgg16" else (factor - 1, factor - 1)
                return nn.ConvTranspose2d(CLASSES, CLASSES, kernel, factor, padding, extra, bias=False)

            self.up = nn.ModuleList(up(factor) for factor in (2, 2, 8))

        def forward(self, x):
            height, width = x.shape[2:]
            maps = []
            for part in self.parts:
                maps.append(x := part(x))
            y = self.scores[2](maps[2])
            for index in (1, 0):
                finer = self.scores[index](maps[index])
                y = self.up[1 - index](y)[:, :, : finer.shape[2], : finer.shape[3]] + finer
            return self.up[2](y)[:, :, :height, :width]

    return Net()


def has_gpu() -> bool:
    """Whether JAX finds a GPU."""
    import jax

    return jax.default_backend() == "gpu"


if __name__ == "__main__":
    main()
