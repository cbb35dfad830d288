"""`fcn-jax publish RUN --out DIR [flags]`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fcn_jax.cli.words import parse_flags, start_jax
from fcn_jax.runtime.progress import hide_progress, show_step


@dataclass(frozen=True)
class Publish:
    """Write a trained network with its scores into a folder that can be uploaded as it is.

    DIR gets model.safetensors, README.md, which is a model card, metrics.json with the scores and all that is needed to
    train the network again, and the log metrics.jsonl. `--model.weights DIR/model.safetensors` reads the weights.
    The commands of the training are in it with the paths that were given.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """run directory, made by `fcn-jax train`"""
    out: Path
    """folder to make for the files"""
    step: int | None = None
    """step of the checkpoint to publish; None: the best on val"""
    quiet: bool = False
    """show no progress; results, warnings and errors are still printed"""


def run(words: list[str]) -> None:
    """Publish a network and print its score."""
    flags = parse_flags(Publish, "publish", words)
    hide_progress(flags.quiet)
    from fcn_jax.inference.publish import publish
    from fcn_jax.runs.mirror import copy_for_reading
    from fcn_jax.runs.run_dir import open_run

    with copy_for_reading(flags.run, flags.step) as folder:
        start_jax(None)
        with show_step(f"writing {flags.out}"):
            described = publish(open_run(folder), flags.out, flags.step)
    mean_iu = described["mean_iu"]
    score = "not scored" if mean_iu is None else f"mean IU {100 * mean_iu:.2f} % on {described['split']}"
    print(f"written: {flags.out}; step {described['step']}, {score}")
