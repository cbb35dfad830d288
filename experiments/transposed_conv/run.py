"""Stride and padding of transposed convolutions: `python experiments/transposed_conv/run.py PART [flags]`.

Every part is resumed by calling it again, and ends by drawing its plots and writing its tables.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
import tyro

matplotlib.use("agg")
matplotlib.rcParams["svg.hashsalt"] = "transposed_conv"  # ids in SVGs that do not change from call to call

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """The stride/padding experiments."""

    part: tyro.conf.Positional[Literal["response", "shapes", "camvid", "camvid-full"]]
    """response: without training; shapes, camvid: the studies sized for two cores; camvid-full: all of it, for a GPU"""
    data_dir: Path | None = None
    """CamVid's files (only read)"""
    data_cache: Path | None = None
    """where prepared data goes; None: fcn_jax in the user's cache directory"""
    variants: tuple[str, ...] = ()
    """only these lines of the table of variants"""
    out: Path = HERE
    """where results.csv, tables and plots go"""
    smoke: bool = False
    """a few steps of a tiny network, to see that everything runs"""


def main() -> None:
    """Runs a part."""
    options = tyro.cli(Options)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part == "response":
        from response import measure

        measure(options.out, options.smoke)
        return
    import report
    import training

    unknown = set(options.variants) - set(training.VARIANTS)
    if unknown:
        raise SystemExit(f"unknown variants {', '.join(sorted(unknown))}; there are {', '.join(training.VARIANTS)}")
    study = "smoke" if options.smoke else options.part
    training.run_study(study, options.out, options.data_dir, options.data_cache, options.variants)
    report.write(study, options.out)


if __name__ == "__main__":
    main()
