"""`fcn-jax weights describe FILE` and `fcn-jax weights import FILE --out FILE`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fcn_jax.cli.words import choose, parse_flags, require_writable
from fcn_jax.runtime.progress import hide_progress, show_step

if TYPE_CHECKING:
    from fcn_jax.weights.weights import Weights


@dataclass(frozen=True)
class Describe:
    """Show what a file of weights has: network, input, classes, and the arrays of each module."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """file of weights (.pth, .safetensors, .caffemodel, .h5), or run directory (its best checkpoint)"""
    quiet: bool = False
    """show no progress; results, warnings and errors are still printed"""


@dataclass(frozen=True)
class Import(Describe):
    """Convert weights of another framework, or of a run, to a file for --model.weights, and describe them."""

    out: Path = dataclasses.field(kw_only=True)
    """safetensors file to write; it also stores the input of the network (order, mean and std)"""
    classes: Path | None = None
    """file with one class name per line, for weights that do not name their classes; None: no names are added"""


def run(words: list[str]) -> None:
    """Describe weights, or convert and describe them."""
    match choose("weights command", words[0], ("describe", "import")):
        case "describe":
            flags = parse_flags(Describe, "weights describe", words[1:])
            from fcn_jax.weights.describe import describe_weights

            print(describe_weights(_read(flags)))
        case "import":
            _import(parse_flags(Import, "weights import", words[1:]))


def _read(flags: Describe) -> "Weights":
    hide_progress(flags.quiet)
    from fcn_jax.runtime.devices import require_devices
    from fcn_jax.training.start import read_file_or_run

    with show_step(f"reading {flags.file}"):
        require_devices()
        return read_file_or_run(flags.file)


def _import(flags: Import) -> None:
    require_writable(flags.out)
    from fcn_jax.data.sources.class_file import read_classes
    from fcn_jax.weights import ours
    from fcn_jax.weights.classes import name_classes
    from fcn_jax.weights.describe import describe_weights

    weights = _read(flags)
    if flags.classes is not None:
        weights = name_classes(weights, read_classes(flags.classes).names)
    print(describe_weights(weights))
    ours.write(flags.out, weights)
    print(f"written: {flags.out}, {flags.out.stat().st_size / 1e6:.1f} MB")
