"""The compiled training step of a network: its collectives and its memory, read off the program.

Devices are virtual ones of the CPU, or those of a slice of TPUs, whose compiler needs no TPU (`pip install libtpu`).
`read_program` and `compare_devices` set up JAX for their case, so each call needs a process of its own.
"""

import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from traffic import BYTES, read_traffic

CLASSES = 21
SMALL = 100_000  # bytes; statistics of a BatchNorm have 16 kB at most, gradients come in parts of many MB
PLAIN = "--xla_backend_optimization_level=0"  # of LLVM's code: programs are read here, not timed
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


class Case(NamedTuple):
    """A step to compile.

    Attributes:
        platform: "cpu", or a slice of TPUs such as "v5e:2x4", which has that number of devices.
        devices: number of devices of the mesh.
        network: backbone of the FCN-8s.
        crop: side of the images, pixels.
        batch: images on a device.
        dtype: dtype of the computation.
        accumulate: number of parts in which the batch is computed.
    """

    platform: str
    devices: int
    network: str
    crop: int
    batch: int
    dtype: str = "float32"
    accumulate: int = 1


def read_program(**fields: Any) -> dict[str, Any]:
    """Compile a step and read the program.

    Args:
        fields: fields of the `Case`.

    Returns:
        The bytes of the `parameters` and of a device's `memory`, the `flops`, the `collectives` (count and bytes of
        each kind), the number of `small` all-reduces, whose cost is latency, and the `traffic` (of TPUs, traffic.py).
    """
    case = Case(**fields)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={case.devices} {PLAIN}"
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no TPU whose metadata could be asked for

    from functools import partial

    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import NamedSharding, PartitionSpec

    from fcn_jax.config import AugmentConfig, Config, ModelConfig, OptimConfig
    from fcn_jax.data.augment import draw_changes
    from fcn_jax.data.canvas import Batch
    from fcn_jax.data.defaults import fill_config
    from fcn_jax.models.build import build
    from fcn_jax.runtime.memory import read_memory
    from fcn_jax.training.state import init_state
    from fcn_jax.training.step import make_step

    if case.platform == "cpu":
        mesh = jax.make_mesh((case.devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    else:
        jax.default_backend = lambda: "tpu"  # the layers choose their methods by it
        slice_ = topologies.get_topology_desc(platform="tpu", topology_name=case.platform)
        mesh = topologies.make_mesh(slice_, (case.devices,), ("data",))
    batch = case.devices * case.batch
    config = fill_config(
        Config(
            model=ModelConfig(backbone=case.network, dtype=case.dtype),
            augment=AugmentConfig(crop=case.crop, scale=(0.5, 2.0), colour=0.3),
            optim=OptimConfig(learning_rate=1e-3),
            batch_size=batch,
            accumulate=case.accumulate,
            steps=100,
        )
    )
    model = build(config.model, CLASSES)

    def shaped(tree: Any, *axes: str) -> Any:
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    state = shaped(jax.eval_shape(partial(init_state, model, config)))
    side = (batch, case.crop, case.crop)
    sizes = np.full((batch, 2), case.crop, np.int32)
    image, label = jax.ShapeDtypeStruct((*side, 3), jnp.uint8), jax.ShapeDtypeStruct(side, jnp.uint8)
    changes = draw_changes(config.seed, 0, sizes, 0, batch, config.augment)
    images = shaped(Batch(image, label, sizes, changes), "data")
    compiled = make_step(model, config).lower(state, images).compile()
    hlo = compiled.as_text()
    found = list(collectives(hlo, case.accumulate))
    return {
        "parameters": sum(4 * leaf.size for leaf in jax.tree.leaves(state.variables["params"])),
        "memory": sum(read_memory(compiled)),
        "flops": compiled.cost_analysis()["flops"],
        "collectives": {
            kind: [sum(n for k, _, n in found if k == kind), sum(n * size for k, size, n in found if k == kind)]
            for kind in KINDS
        },
        "traffic": read_traffic(hlo)._asdict(),
        "small": sum(n for kind, size, n in found if kind == "all-reduce" and size < SMALL),
    }


def collectives(hlo: str, trips: int = 1) -> Iterator[tuple[str, int, int]]:
    """Find the collectives of a compiled program.

    Args:
        hlo: text of the program of one device.
        trips: number of iterations of a loop whose text does not have it.

    Yields:
        For each collective its kind, the bytes of its results on a device, and how often a run of the program executes
        it.
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
            # The start of an asynchronous collective lists operands beside results, except for an all-reduce.
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


def compare_devices() -> dict[str, float]:
    """Measure the largest difference between a step on one device and on eight, relative to the largest value."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {PLAIN}"

    from functools import partial

    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from fcn_jax.config import AugmentConfig, Config, OptimConfig
    from fcn_jax.data.augment import draw_changes
    from fcn_jax.data.canvas import Batch
    from fcn_jax.data.defaults import fill_config
    from fcn_jax.layers.backend import jit_options
    from fcn_jax.models.build import build
    from fcn_jax.training.state import init_state
    from fcn_jax.training.step import train_step

    config = fill_config(
        Config(
            augment=AugmentConfig(crop=64, scale=(0.5, 2.0), colour=0.3),
            optim=OptimConfig(learning_rate=1e-3, weight_decay=0.0),
            batch_size=8,
            steps=100,
        )
    )
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
    light = np.linspace(0.2, 1, 8)[:, None, None, None]  # the batch statistics of one device differ from those of all
    sizes = np.full((8, 2), 64, np.int32)
    batch = Batch(
        (light * rng.integers(0, 256, (8, 64, 64, 3))).astype(np.uint8),
        rng.integers(0, CLASSES, (8, 64, 64), np.uint8),
        sizes,
        draw_changes(config.seed, 0, sizes, 0, 8, config.augment),
    )
    results = []
    for devices in (1, 8):
        mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
        on_all, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
        step = jax.jit(partial(train_step, model=model, config=config), **jit_options())
        after, metrics = step(jax.device_put(state, on_all), jax.device_put(batch, split))
        # After one step without decay the momentum is the gradient.
        gradient = jax.tree.leaves(after.opt_state)
        results.append(jax.device_get((metrics["loss"], gradient, after.variables["batch_stats"])))

    def difference(one: Any, eight: Any) -> float:
        pairs = zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True)
        return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)) for a, b in pairs)

    names = ("loss", "gradient", "batch statistics")
    return {name: difference(*pair) for name, pair in zip(names, zip(*results, strict=True), strict=True)}
