"""Write the tables of RESULTS.md from history.csv: `python benchmarks/results.py`.

The rows and columns of each table are defined here. The text outside the tables is written by hand.
"""

import argparse
from pathlib import Path

import history
from history_tables import (
    Column,
    Headline,
    Table,
    command,
    commit,
    make_summary,
    make_table,
    ours,
    ours_with_range,
    ours_with_unit,
    peer_value,
    peer_with_unit,
    ratio,
    runs,
    write_tables,
)

RESULTS = Path(__file__).parent / "RESULTS.md"

SUMMARY = (
    Headline("train_step", "training step", "FCN-8s resnet34, *, float32", "PyTorch"),
    Headline("train_step", "training step", "FCN-8s vgg16, *, float32", "PyTorch"),
    Headline("inference", "images to class maps", "FCN-8s VGG16, 375x500, batch *, float32", "PyTorch"),
    Headline("inference", "image to scores", "the reference's voc-fcn8s, 375x500, float32", "OpenCV"),
    Headline("inference", "files to PNGs, first pass", "* files of * sizes, FCN-8s ResNet34, float32", "PyTorch"),
    Headline("inference", "files to PNGs, second pass", "* files of * sizes, FCN-8s ResNet34, float32", "PyTorch"),
    Headline("layers", "learned transposed convolution, forward", "64, 32, 16²", "nn.ConvTranspose"),
    Headline("layers", "learned transposed convolution, forward", "64, 32, 16²", "PyTorch"),
    Headline("layers", "learned transposed convolution, forward + backward", "64, 32, 16²", "PyTorch"),
    Headline("layers", "fixed bilinear, forward", "64, 32, 16²", "PyTorch interpolate"),
    Headline("layers", "max pooling, forward + backward", "8x224x224x64, 2x2/2", "PyTorch"),
    Headline("input", "files to batches", "voc2012, 2 workers", "PyTorch DataLoader"),
    Headline("input", "files to batches", "camvid, 2 workers", "PyTorch DataLoader"),
    Headline("startup", "warm start", "fcn-jax train fcn8s, first step", "PyTorch script"),
    Headline("startup", "warm start", "fcn-jax predict, weights to first PNG", "PyTorch script"),
    Headline("whole_program", "val mean IU", "shapes, FCN-8s ResNet34, 850 steps, seed 0"),
)

LEARNED_PEERS = (
    Column("ours, ms", ours(), peer="nn.ConvTranspose"),
    Column("nn.ConvTranspose, ms", peer_value, peer="nn.ConvTranspose"),
    Column("× nn.ConvTranspose", ratio, peer="nn.ConvTranspose"),
    Column("PyTorch, ms", peer_value, peer="PyTorch"),
    Column("× PyTorch", ratio, peer="PyTorch"),
    Column("runs", runs, peer="PyTorch"),
)
FIXED_PEERS = (
    Column("ours, ms", ours(), peer="PyTorch interpolate"),
    Column("× jax.image.resize", ratio, peer="jax.image.resize"),
    Column("PyTorch interpolate, ms", peer_value, peer="PyTorch interpolate"),
    Column("× PyTorch interpolate", ratio, peer="PyTorch interpolate"),
    Column("× our learned one", ratio, peer="our learned one"),
    Column("runs", runs, peer="PyTorch interpolate"),
)
POOLING_PEERS = (
    Column("ours, ms", ours(), peer="nn.max_pool"),
    Column("nn.max_pool, ms", peer_value, peer="nn.max_pool"),
    Column("× nn.max_pool", ratio, peer="nn.max_pool"),
    Column("PyTorch, ms", peer_value, peer="PyTorch"),
    Column("× PyTorch", ratio, peer="PyTorch"),
    Column("runs", runs, peer="PyTorch"),
)
RELU_POOLING_PEERS = (
    Column("ours, ms", ours(), peer="PyTorch"),
    Column("PyTorch, ms", peer_value, peer="PyTorch"),
    Column("× PyTorch", ratio, peer="PyTorch"),
    Column("runs", runs, peer="PyTorch"),
)


def of_layers(task: str, columns: tuple[Column, ...]) -> Table:
    """Make the table that compares a layer with its peers, with a row for each setting."""
    heading = "input, window" if "pooling" in task else "kernel, stride, input"
    shown = tuple(Column(c.heading, c.cell, task, c.peer) for c in columns)
    return Table("layers", ("setting",), (heading,), shown)


TABLES = {
    "whole_program": Table(
        "whole_program",
        ("setting", "task"),
        ("run", "what"),
        (
            Column("figure", ours_with_range(4)),
            Column("runs", runs),
            Column("command", command),
            Column("commit", commit),
        ),
    ),
    "learned_forward": of_layers("learned transposed convolution, forward", LEARNED_PEERS),
    "fixed_forward": of_layers("fixed bilinear, forward", FIXED_PEERS),
    "learned_both": of_layers("learned transposed convolution, forward + backward", LEARNED_PEERS),
    "fixed_both": of_layers("fixed bilinear, forward + backward", FIXED_PEERS),
    "pooling": of_layers("max pooling, forward + backward", POOLING_PEERS),
    "relu_pooling": of_layers("ReLU and max pooling, forward + backward", RELU_POOLING_PEERS),
    "train_step": Table(
        "train_step",
        ("setting",),
        ("network, images, dtype",),
        (
            Column("ours, images/s", ours(), "training step"),
            Column("PyTorch, images/s", peer_value, "training step"),
            Column("× PyTorch", ratio, "training step"),
            Column("forward, × PyTorch", ratio, "forward pass"),
            Column("plain step, × PyTorch", ratio, "plain step"),
            Column("plain step with jit_options, × PyTorch", ratio, "plain step with jit_options"),
            Column("GFLOP/s", ours(), "operations"),
            Column("memory, × PyTorch", ratio, "memory"),
            Column("runs", runs, "training step"),
        ),
    ),
    "inference": Table(
        "inference",
        ("task", "setting"),
        ("task", "case"),
        (
            Column("ours", ours_with_unit),
            Column("peer", peer_with_unit),
            Column("× peer", ratio),
            Column("runs", runs),
        ),
    ),
    "exported": Table(
        "exported",
        ("setting",),
        ("runtime, number format; network, data",),
        (
            Column("images/s", ours(), "exported network"),
            Column("× fcn_jax", ratio, "exported network", "fcn_jax, float32"),
            Column("mean IU, %", ours(4), "mean IU"),
            Column("runs", runs, "exported network"),
        ),
    ),
    "input_files": Table(
        "input",
        ("setting",),
        ("data, workers",),
        (
            Column("decoding, images/s", ours(), "files to batches"),
            Column("PyTorch, images/s", peer_value, "files to batches"),
            Column("× PyTorch", ratio, "files to batches"),
            Column("decoded on disk, images/s", ours(), "decoded on disk to batches"),
            Column("decoded on the device, images/s", ours(), "decoded on the device to batches"),
            Column("runs", runs, "files to batches"),
        ),
    ),
    "input_waiting": Table(
        "input",
        ("setting",),
        ("decoded images are kept",),
        (
            Column("images/s", ours(), "training on CamVid"),
            Column("waiting for input, %", ours(), "share of time that training waits"),
            Column("runs", runs, "training on CamVid"),
        ),
    ),
    "input_large": Table(
        "input",
        ("setting",),
        ("what",),
        (
            Column("resident set, GB", ours(), "memory of large photographs"),
            Column("images/s", ours(), "large photographs to augmented batches"),
            Column("runs", runs, "large photographs to augmented batches"),
        ),
    ),
    "growth_cases": Table(
        "growth",
        ("setting",),
        ("what",),
        (
            Column("ours, s", ours(), "time"),
            Column("PyTorch, s", peer_value, "time"),
            Column("× PyTorch", ratio, "time"),
            Column("memory, ours, GB", ours(), "memory"),
            Column("PyTorch, GB", peer_value, "memory"),
            Column("memory, × PyTorch", ratio, "memory"),
            Column("runs", runs, "time"),
        ),
    ),
    "growth": Table(
        "growth",
        ("setting",),
        ("what grows",),
        (
            Column("power of time", ours(2), "power of time"),
            Column("PyTorch's power of time", peer_value, "power of time"),
            Column("power of memory", ours(2), "power of memory"),
            Column("PyTorch's power of memory", peer_value, "power of memory"),
            Column("runs", runs, "power of time"),
        ),
    ),
    "growth_examples": Table(
        "growth",
        ("setting",),
        ("data set",),
        (
            Column("built, s", ours(), "built"),
            Column("opened again, s", ours(), "opened again"),
            Column("first batch, s", ours(), "first batch"),
            Column("batch of step 1,000,000, s", ours(), "batch of a late step"),
            Column("memory, GB", ours(), "memory of training's input"),
            Column("runs", runs, "built"),
        ),
    ),
    "startup": Table(
        "startup",
        ("setting",),
        ("command",),
        (
            Column("cold, s", ours(), "cold start"),
            Column("warm, s", ours(), "warm start"),
            Column("PyTorch, s", peer_value, "warm start"),
            Column("× PyTorch, warm", ratio, "warm start"),
            Column("runs", runs, "warm start"),
        ),
    ),
    "building": Table(
        "startup",
        ("setting",),
        ("data",),
        (
            Column("built, s", ours(), "time to build the data set"),
            Column("built, MB/s", ours(), "building the data set", "copying"),
            Column("copied, MB/s", peer_value, "building the data set", "copying"),
            Column("SHA-256, MB/s", peer_value, "building the data set", "SHA-256"),
            Column("runs", runs, "building the data set", "copying"),
        ),
    ),
    "collectives": Table(
        "scaling",
        ("setting",),
        ("network, devices, dtype, accumulation",),
        (
            Column("parameters, MB", ours(5), "parameters"),
            Column("all-reduces", ours(), "all-reduces"),
            Column("all-reduced, MB", ours(5), "all-reduced"),
            Column("beyond the parameters, %", ours(), "all-reduced beyond the parameters"),
            Column("other collectives", ours(), "other collectives"),
        ),
    ),
    "planned_memory": Table(
        "scaling",
        ("setting",),
        ("network, dtype",),
        tuple(
            Column(f"{batch} x {crop}², GB", ours(), f"planned memory, {batch} x {crop}²")
            for crop in (224, 320, 512)
            for batch in (2, 8)
        ),
    ),
    "traffic": Table(
        "scaling",
        ("setting", "commit"),
        ("network, images of a device, dtype", "commit"),
        (
            Column("moved, GB", ours(), "bytes moved"),
            Column("of them padding, GB", ours(), "bytes of padding"),
            Column("of them copies, GB", ours(), "bytes of copies"),
            Column("estimated cycles, million", ours(), "estimated cycles"),
        ),
    ),
    "devices": Table(
        "scaling",
        ("setting",),
        ("a step on 1 and on 8 devices",),
        tuple(
            Column(name, ours(2), f"largest relative difference, {name}")
            for name in ("loss", "gradient", "batch statistics")
        ),
    ),
}


def make_all(measurements: list[history.Measurement]) -> dict[str, str]:
    """Make every table of RESULTS.md, by its name."""
    tables = {name: make_table(table, measurements) for name, table in TABLES.items()}
    return {"summary": make_summary(SUMMARY, measurements)} | tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    history.add_argument(parser)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help="Markdown file with the places")
    options = parser.parse_args()
    text = options.results.read_text(encoding="utf-8")
    options.results.write_text(write_tables(text, make_all(history.read(options.history))), encoding="utf-8")


if __name__ == "__main__":
    main()
