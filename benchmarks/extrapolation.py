"""Step times on 8, 64 and 256 accelerators, from a compiled step and published figures; none is measured.

docs/scaling.md has the formulae and the sources of the figures. `scaling.py --extrapolate` prints these tables.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from markdown_table import head, row


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
        """Estimate the seconds of a sum: a ring within each host, then a ring across hosts for each GPU's share."""
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
    ring: int  # an axis whose length is a multiple of this is a ring; half of the bytes go each way round

    def all_reduce(self, size: float, devices: int) -> float:
        """Estimate the seconds of a sum: rings or lines along all axes at once, with latency for each hop and back."""
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


def extrapolate(read: Callable[[str, int], dict[str, Any]], networks: tuple[str, ...], utilisation: float) -> None:
    """Print the tables of docs/scaling.md.

    Args:
        read: returns the program (`step_program.read_program`) of a network with this many images a device.
        networks: their backbones.
        utilisation: share of an accelerator's matrix rate that a step reaches.
    """
    print(f"Extrapolated, not measured: bfloat16, 512² pixels, {utilisation:.0%} of the matrix rate. Values for")
    print(f"{', '.join(map(str, COUNTS))} accelerators.\n")
    _print_head(
        "network", "images each", "TFLOP each", "parameters, MB", "all-reduced, MB", "small all-reduces", "memory, GB"
    )
    programs = {}
    for network in networks:
        for batch in (8, 1):
            found = programs[network, batch] = read(network, batch)
            size = found["collectives"]["all-reduce"][1]
            _print_row(
                network,
                batch,
                f"{found['flops'] / 1e12:.3f}",
                f"{found['parameters'] / 1e6:.0f}",
                f"{size / 1e6:.0f}",
                found["small"],
                f"{found['memory'] / 1e9:.2f}",
            )
    print()
    _print_head(
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
            # Two thirds of the step are the backward pass, during which gradients of later layers can be sent.
            hidden = {n: seconds + norms[n] + max(0.0, gradient[n] - 2 / 3 * seconds) for n in COUNTS}
            plain = {n: seconds + norms[n] + gradient[n] for n in COUNTS}
            _print_row(
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
    _print_head("images each", "global batch", *IMAGES)
    for batch in (8, 1):
        steps = [", ".join(f"{images / (batch * n):.1f}" for n in COUNTS) for images in IMAGES.values()]
        _print_row(batch, ", ".join(str(batch * n) for n in COUNTS), *steps)


def _print_head(*columns: str) -> None:
    print(head(*columns), flush=True)


def _print_row(*cells: object) -> None:
    print(row(*cells), flush=True)
