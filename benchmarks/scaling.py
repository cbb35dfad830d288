"""What a data-parallel step says to other devices, and needs of each: `python benchmarks/scaling.py [--quick]`.

Read off the compiled program of the project's own step, FCN-8s on ResNet34 and VGG16 (fc6 and fc7 as in the paper):
the collectives of a step by kind, and the memory of a device. Devices are virtual ones of the CPU, so neither times nor
speed-ups are measured: two cores do not become faster by being called eight. What is run is compared: the gradient and
the batch statistics of one device and of eight. `--tpu v5e:2x4` reads the program for that slice instead, which its
compiler makes without a TPU (`pip install libtpu`); `--extrapolate` prints what published figures of accelerators make
of that, for docs/scaling.md. Each program is compiled in a process of its own.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

CLASSES = 21
SMALL = 100_000  # bytes; statistics of a BatchNorm have 16 kB at most, gradients come in parts of many MB
PLAIN = "--xla_backend_optimization_level=0"  # of LLVM's code: programs are read here, not timed
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
NETWORKS = ("resnet34", "vgg16")
BYTES = {"pred": 1, "bf16": 2, "f16": 2} | {f"{kind}{bits}": bits // 8 for kind in "suf" for bits in (8, 16, 32, 64)}


class Case(NamedTuple):
    """A step to compile.

    Attributes:
        platform: "cpu", or a slice of TPUs such as "v5e:2x4", whose number of devices it then is.
        devices: of the mesh.
        network: backbone of the FCN-8s.
        crop: side of the images, pixels.
        batch: images a device.
        dtype: of the computation.
        accumulate: parts the batch is computed in.
    """

    platform: str
    devices: int
    network: str
    crop: int
    batch: int
    dtype: str = "float32"
    accumulate: int = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer programs, under two minutes")
    parser.add_argument("--tpu", metavar="SLICE", help="compile for TPUs, such as v5e:2x4, instead of for the CPU")
    parser.add_argument("--extrapolate", action="store_true", help="step times on 8, 64 and 256 accelerators")
    parser.add_argument("--utilisation", type=float, default=0.5, help="share of the matrix rate, for --extrapolate")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, *values = json.loads(options.measure)
        print(json.dumps(compared() if name == "compared" else program(Case(*values))))
        return
    platform = options.tpu or "cpu"
    devices = math.prod(map(int, platform.split(":")[1].split("x"))) if options.tpu else 8
    print(f"programs for {platform}\n")
    if options.extrapolate:
        extrapolate(platform, devices, options.utilisation)
        return
    communication(platform, devices, options.quick)
    memory(platform, devices, options.quick)
    if not options.tpu:
        difference = run("compared")
        print("\n### One device against eight, ResNet34, 8 images of 64 pixels\n")
        print("Largest difference after a step, over the largest value of its array; of the worst array:")
        print(", ".join(f"{name} {value:.1e}" for name, value in difference.items()))


def run(name: str, *case: Any) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", json.dumps([name, *case])]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def communication(platform: str, devices: int, quick: bool) -> None:
    """The table of collectives."""
    cases = [Case(platform, devices, network, 64, 2) for network in NETWORKS]
    if platform == "cpu":
        cases[:1] = [Case(platform, n, "resnet34", 64, 2) for n in ((8,) if quick else (1, 2, 4, 8))]
        if not quick:
            cases[-1:] = [Case(platform, n, "vgg16", 64, 2) for n in (1, 2, 4, 8)]
    if not quick:
        cases += [Case(platform, devices, network, 64, 2, "bfloat16") for network in NETWORKS]
        cases += [Case(platform, devices, network, 64, 4, "float32", 2) for network in NETWORKS]
    print("### Collectives of a step, FCN-8s\n")
    print("Beyond: bytes all-reduced less those of the float32 parameters, over these. Others: all other kinds.\n")
    table("network", "devices", "dtype", "accumulate", "parameters, MB", "all-reduces", "their MB", "beyond", "others")
    for case in cases:
        found = run("program", *case)
        reduces, size = found["collectives"]["all-reduce"]
        others = {kind: values for kind, values in found["collectives"].items() if kind != "all-reduce" and values[0]}
        beyond = size / found["parameters"] - 1
        row(
            case.network,
            case.devices,
            case.dtype,
            case.accumulate,
            f"{found['parameters'] / 1e6:.3f}",
            reduces,
            f"{size / 1e6:.3f}",
            f"{beyond:+.3%}" if reduces else "",
            others or "none",
        )


def memory(platform: str, devices: int, quick: bool) -> None:
    """The table of memory."""
    crops, batches = ((224,), (2,)) if quick else ((224, 320, 512), (2, 8))
    dtypes = ("float32",) if quick else ("float32", "bfloat16")
    print("\n### Memory of a device, GB, as the compiler plans it: parameters, momentum, batch, and all between\n")
    table("network", "dtype", *(f"{batch} x {crop}²" for crop in crops for batch in batches))
    for network in NETWORKS[:1] if quick else NETWORKS:
        for dtype in dtypes:
            cases = [Case(platform, devices, network, crop, batch, dtype) for crop in crops for batch in batches]
            row(network, dtype, *(f"{run('program', *case)['memory'] / 1e9:.2f}" for case in cases))


class Gpus(NamedTuple):
    """Hosts of eight GPUs, each GPU with a network card of its own; rates in FLOP/s or bytes/s, one way.

    The latencies are those of NCCL's own model (src/graph/tuning.cc, a tree in protocol LL), in microseconds.
    """

    rate: float
    memory_rate: float
    link: float
    card: float
    host: int = 8

    def all_reduce(self, size: float, devices: int) -> float:
        """Seconds: a ring within each host, then the shares of eight rings across."""
        hosts = devices // self.host
        inside = 2 * (self.host - 1) / self.host * size / self.link
        across = 2 * (hosts - 1) / hosts * (size / self.host) / self.card
        hop = 0.52 if hosts == 1 else 0.52 * 1.8
        return inside + across + 1e-6 * (4.4 + 2 * ((self.host - 1) * hop + math.log2(hosts) * 5.0))


class Tpus(NamedTuple):
    """Slices of a torus; rates in FLOP/s or bytes/s, of a link one way.

    A microsecond a hop, from neighbour to neighbour (jax-ml.github.io/scaling-book, part 3).
    """

    rate: float
    memory_rate: float
    link: float
    host: int
    slices: dict[int, tuple[int, ...]]
    ring: int  # an axis of a multiple of this is closed to a ring, whose both directions carry half each

    def all_reduce(self, size: float, devices: int) -> float:
        """Seconds: rings or lines along all axes at once, and the way along each of them there and back."""
        axes = self.slices[devices]
        rings = [axis % self.ring == 0 for axis in axes]
        width = sum(self.link * (2 if closed else 1) for closed in rings)
        hops = sum(axis / 2 if closed else axis - 1 for axis, closed in zip(axes, rings, strict=True))
        return 2 * (devices - 1) / devices * size / width + 2 * hops * 1e-6


IMAGES = {"VOC 2012 train": 1464, "VOC 2012 trainaug": 10582}
# docs/scaling.md has the sources.
ACCELERATORS = {
    "A100 80 GB": Gpus(312e12, 2.039e12, 300e9, 25e9),
    "H100 SXM": Gpus(989.4e12, 3.35e12, 450e9, 50e9),
    "TPU v5e": Tpus(197e12, 819e9, 50e9, 8, {8: (2, 4), 64: (8, 8), 256: (16, 16)}, 16),
    "TPU v5p": Tpus(459e12, 2.765e12, 100e9, 4, {8: (2, 2, 2), 64: (4, 4, 4), 256: (4, 8, 8)}, 4),
    "TPU v6e": Tpus(918e12, 1.638e12, 100e9, 8, {8: (2, 4), 64: (8, 8), 256: (16, 16)}, 16),
}
COUNTS = (8, 64, 256)


def extrapolate(platform: str, devices: int, utilisation: float) -> None:
    """The tables of docs/scaling.md: arithmetic on published figures, nothing of it measured."""
    print(f"Extrapolated, not measured: bfloat16, 512² pixels, {utilisation:.0%} of the matrix rate. Values for")
    print(f"{', '.join(map(str, COUNTS))} accelerators.\n")
    table(
        "network", "images each", "TFLOP each", "parameters, MB", "all-reduced, MB", "small all-reduces", "memory, GB"
    )
    programs = {}
    for network in NETWORKS:
        for batch in (8, 1):
            found = programs[network, batch] = run("program", *Case(platform, devices, network, 512, batch, "bfloat16"))
            size = found["collectives"]["all-reduce"][1]
            row(
                network,
                batch,
                f"{found['flops'] / 1e12:.3f}",
                f"{found['parameters'] / 1e6:.0f}",
                f"{size / 1e6:.0f}",
                found["small"],
                f"{found['memory'] / 1e9:.2f}",
            )
    print()
    table(
        "network",
        "images each",
        "accelerator",
        "compute, ms",
        "gradient, ms",
        "BatchNorm, ms",
        "efficiency, gradient hidden",
        "efficiency, not hidden",
        "images/s a host must feed",
    )
    for (network, batch), found in programs.items():
        for name, machine in ACCELERATORS.items():
            size = found["collectives"]["all-reduce"][1]
            # SGD with momentum reads gradient, parameter and velocity and writes the last two: five numbers of 4 bytes.
            seconds = found["flops"] / (utilisation * machine.rate) + 5 * found["parameters"] / machine.memory_rate
            gradient = {n: machine.all_reduce(size, n) for n in COUNTS}
            norms = {n: found["small"] * machine.all_reduce(0, n) for n in COUNTS}
            # Two thirds of the step are backward, beside which the gradient of later layers can travel.
            hidden = {n: seconds + norms[n] + max(0.0, gradient[n] - 2 / 3 * seconds) for n in COUNTS}
            plain = {n: seconds + norms[n] + gradient[n] for n in COUNTS}
            row(
                network,
                batch,
                name,
                f"{1e3 * seconds:.2f}",
                ", ".join(f"{1e3 * gradient[n]:.2f}" for n in COUNTS),
                ", ".join(f"{1e3 * norms[n]:.2f}" for n in COUNTS),
                ", ".join(f"{seconds / hidden[n]:.0%}" for n in COUNTS),
                ", ".join(f"{seconds / plain[n]:.0%}" for n in COUNTS),
                f"{machine.host * batch / hidden[8]:.0f}",
            )

    print("\nSteps an epoch, for the same numbers of accelerators:\n")
    table("images each", "global batch", *IMAGES)
    for batch in (8, 1):
        steps = [", ".join(f"{images / (batch * n):.1f}" for n in COUNTS) for images in IMAGES.values()]
        row(batch, ", ".join(str(batch * n) for n in COUNTS), *steps)


def table(*columns: str) -> None:
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}", flush=True)


def row(*values: Any) -> None:
    print(f"| {' | '.join(map(str, values))} |", flush=True)


# What a process measures.


def program(case: Case) -> dict[str, Any]:
    """Compiles the step and reads the program.

    Returns:
        Bytes of the `parameters` and of a device's `memory`, its `flops`, and its `collectives`: count, bytes by kind;
        `small` is the number of all-reduces that carry next to nothing, but are waited for.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={case.devices} {PLAIN}"
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no TPU whose metadata could be asked for

    from functools import partial

    import jax
    import jax.numpy as jnp
    from jax.experimental import topologies
    from jax.sharding import NamedSharding, PartitionSpec

    from fcn_jax.config import AugmentConfig, Config, ModelConfig, OptimConfig
    from fcn_jax.data.batches import Batch
    from fcn_jax.models.build import build
    from fcn_jax.runtime import memory as needs
    from fcn_jax.training.loop import make_step
    from fcn_jax.training.state import init_state

    if case.platform == "cpu":
        mesh = jax.make_mesh((case.devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    else:
        jax.default_backend = lambda: "tpu"  # by which the layers choose their form
        slice_ = topologies.get_topology_desc(platform="tpu", topology_name=case.platform)
        mesh = topologies.make_mesh(slice_, (case.devices,), ("data",))
    batch = case.devices * case.batch
    config = Config(
        model=ModelConfig(backbone=case.network, dtype=case.dtype),
        augment=AugmentConfig(crop=case.crop, scale=(0.5, 2.0), colour=0.3),
        optim=OptimConfig(learning_rate=1e-3),
        batch_size=batch,
        accumulate=case.accumulate,
        steps=100,
    ).resolved()
    model = build(config.model, CLASSES)

    def shaped(tree: Any, *axes: str) -> Any:
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    state = shaped(jax.eval_shape(partial(init_state, model, config)))
    side = (batch, case.crop, case.crop)
    shapes = ((*side, 3), jnp.uint8), (side, jnp.uint8), ((batch, 2), jnp.int32)
    images = shaped(Batch(*(jax.ShapeDtypeStruct(*shape) for shape in shapes)), "data")
    compiled = make_step(model, config).lower(state, images).compile()
    found = list(collectives(compiled.as_text(), case.accumulate))
    return {
        "parameters": sum(4 * leaf.size for leaf in jax.tree.leaves(state.variables["params"])),
        "memory": sum(needs.read_memory(compiled)),
        "flops": compiled.cost_analysis()["flops"],
        "collectives": {
            kind: [sum(n for k, _, n in found if k == kind), sum(n * size for k, size, n in found if k == kind)]
            for kind in KINDS
        },
        "small": sum(n for kind, size, n in found if kind == "all-reduce" and size < SMALL),
    }


def collectives(hlo: str, trips: int = 1) -> Iterator[tuple[str, int, int]]:
    """The collectives of a compiled program.

    Args:
        hlo: its text, of one device.
        trips: how often a loop goes round that does not say so itself.

    Yields:
        Of each its kind, the bytes of its results on a device, and how often a run of the program executes it.
    """
    found, calls, name, entry = [], defaultdict(list), "", ""
    for line in hlo.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line):
            name = head[2]
            entry = name if head[1] else entry
        elif made := re.match(rf"\s+(?:ROOT )?%?\S+ = (.*?) ({'|'.join(KINDS)})(-start)?\(", line):
            sizes = [
                math.prod(map(int, filter(None, shape.split(",")))) * BYTES[dtype]
                for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", made[1])
            ]
            # The start of an asynchronous one lists operands beside results, but for all-reduce.
            found.append((name, made[2], max(sizes) if made[3] and made[2] != "all-reduce" else sum(sizes)))
        times = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line)
        for role, callee in re.findall(r"\b(body|condition|calls|to_apply)=%?([\w.-]+)", line):
            calls[name].append((callee, int(times[1]) if times else trips) if role == "body" else (callee, 1))
        for branches in re.findall(r"branch_computations=\{([^}]*)\}", line):
            calls[name] += [(callee.strip().lstrip("%"), 1) for callee in branches.split(",")]

    runs: Counter[str] = Counter()

    def count(computation: str, times: int) -> None:
        runs[computation] += times
        for callee, repeats in calls[computation]:
            count(callee, times * repeats)

    count(entry, 1)
    return ((kind, size, runs[computation]) for computation, kind, size in found)


def compared() -> dict[str, float]:
    """The largest difference between a step on one device and on eight, relative to the largest value."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {PLAIN}"

    from functools import partial

    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from fcn_jax.config import AugmentConfig, Config, OptimConfig
    from fcn_jax.data.batches import Batch
    from fcn_jax.layers.conv import compiler_options
    from fcn_jax.models.build import build
    from fcn_jax.training.loop import train_step
    from fcn_jax.training.state import init_state

    config = Config(
        augment=AugmentConfig(crop=64, scale=(0.5, 2.0), colour=0.3),
        optim=OptimConfig(learning_rate=1e-3, weight_decay=0.0),
        batch_size=8,
        steps=100,
    ).resolved()
    model = build(config.model, CLASSES)
    state = jax.jit(partial(init_state, model, config))()
    rng = np.random.default_rng(0)
    # Scores start at zero, which would hide the gradient of all that lies before them.
    state = state.replace(
        variables=jax.tree_util.tree_map_with_path(
            lambda path, x: x + rng.normal(0, 0.1, x.shape).astype(np.float32) if "score" in str(path) else x,
            state.variables,
        )
    )
    light = np.linspace(0.2, 1, 8)[:, None, None, None]  # so that a device's batch statistics are not those of all
    batch = Batch(
        (light * rng.integers(0, 256, (8, 64, 64, 3))).astype(np.uint8),
        rng.integers(0, CLASSES, (8, 64, 64), np.uint8),
        np.full((8, 2), 64, np.int32),
    )
    results = []
    for devices in (1, 8):
        mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
        on_all, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
        step = jax.jit(partial(train_step, model=model, config=config), compiler_options=compiler_options())
        after, metrics = step(jax.device_put(state, on_all), jax.device_put(batch, split))
        # After one step without decay the momentum is the gradient.
        gradient = jax.tree.leaves(after.opt_state)
        results.append(jax.device_get((metrics["loss"], gradient, after.variables["batch_stats"])))

    def difference(one: Any, eight: Any) -> float:
        pairs = zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True)
        return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)) for a, b in pairs)

    names = ("loss", "gradient", "batch statistics")
    return {name: difference(*pair) for name, pair in zip(names, zip(*results, strict=True), strict=True)}


if __name__ == "__main__":
    main()
