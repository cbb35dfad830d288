"""Compare stride and padding of transposed convolutions: `python experiments/transposed_conv/run.py PART [flags]`.

A part that was stopped continues when it is called again. Every part ends by drawing its plots and writing its tables.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
import tyro

matplotlib.use("agg")
matplotlib.rcParams["svg.hashsalt"] = "transposed_conv"  # keeps the ids in SVGs the same in every call

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Compare stride and padding of transposed convolutions."""

    part: tyro.conf.Positional[Literal["response", "shapes", "camvid", "camvid-full"]]
    """response: all exact settings, without training. shapes, camvid: trainings sized for two CPU cores. camvid-full:
    every variant, for a GPU"""
    data_dir: Path | None = None
    """folder of CamVid's files, which are only read"""
    data_cache: Path | None = None
    """folder for prepared data; None: fcn_jax in the user's cache directory"""
    variants: tuple[str, ...] = ()
    """names of the variants to train; none: all of the part"""
    out: Path = HERE
    """folder for results.csv, tables and plots"""
    smoke: bool = False
    """take two steps of a tiny network on shapes, to see that everything runs"""


def main() -> None:
    """Run a part."""
    options = tyro.cli(Options)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part == "response":
        from response import write_responses

        write_responses(options.out, options.smoke)
        return
    import training
    from report import write_report

    unknown = set(options.variants) - set(training.VARIANTS)
    if unknown:
        raise SystemExit(f"unknown variants {', '.join(sorted(unknown))}; choose from {', '.join(training.VARIANTS)}")
    study = "smoke" if options.smoke else options.part
    training.run_study(study, options.out, options.data_dir, options.data_cache, options.variants)
    write_report(study, options.out)


if __name__ == "__main__":
    main()
