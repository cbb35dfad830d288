"""`fcn-jax weights import FILE --out FILE`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fcn_jax.cli.words import choose, require_writable


@dataclass(frozen=True)
class Import:
    """Convert weights of another framework, or of a run, to a file for --model.weights, and describe them."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """file of weights (.pth, .safetensors, .caffemodel, .h5), or run directory (its best checkpoint)"""
    out: Path
    """safetensors file to write; it also stores the input of the network (order, mean and std)"""
    classes: Path | None = None
    """file with one class name per line, for weights that do not name their classes; None: no names are added"""


def run(words: list[str]) -> None:
    """Convert weights and describe them."""
    choose("weights command", words[0], ("import",))
    flags = tyro.cli(Import, prog="fcn-jax weights import", args=words[1:])
    require_writable(flags.out)
    from fcn_jax.data.sources.class_file import read_classes
    from fcn_jax.runtime.devices import require_devices
    from fcn_jax.training.start import read_file_or_run
    from fcn_jax.weights import ours
    from fcn_jax.weights.classes import name_classes
    from fcn_jax.weights.describe import describe_weights

    require_devices()
    weights = read_file_or_run(flags.file)
    if flags.classes is not None:
        weights = name_classes(weights, read_classes(flags.classes).names)
    print(describe_weights(weights))
    ours.write(flags.out, weights)
    print(f"written: {flags.out}, {flags.out.stat().st_size / 1e6:.1f} MB")
