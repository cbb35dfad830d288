"""`fcn-jax train PRESET [flags]`."""

import dataclasses
import datetime
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from fcn_jax.cli.words import choose, start_jax
from fcn_jax.config import Config, RunOptions
from fcn_jax.data.defaults import fill_config
from fcn_jax.errors import InputError
from fcn_jax.presets import PRESETS
from fcn_jax.runtime.bucket import explain_refusal, find_url, make_absolute, open_bucket
from fcn_jax.runtime.cluster import Cluster
from fcn_jax.runtime.files import expand_home
from fcn_jax.runtime.progress import hide_progress


@dataclass(frozen=True)
class Training:
    """The flags of a training, which have no prefix."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    options: Annotated[RunOptions, tyro.conf.arg(name="")]
    cluster: Annotated[Cluster, tyro.conf.arg(name="")]
    quiet: bool = False
    """show no progress and no losses of steps; results, warnings and errors are still printed"""


def run(words: list[str]) -> None:
    """Train, or resume a run."""
    preset, config, options, cluster, quiet = read_flags(words)
    hide_progress(quiet)
    run_dir = expand_home(options.run_dir) if options.run_dir else Path("runs", _name_run(preset, config))
    if url := find_url(run_dir):
        open_bucket(url)  # reports a missing package before JAX is loaded
    if config.extend and not _holds_run(run_dir):
        raise InputError(
            f"extend is {' '.join(map(str, config.extend))}, and there is no run {url or run_dir} to extend; "
            "give the --run-dir of a run, or --steps for a new one"
        )
    fill_config(config)  # reports an unknown data set before JAX is loaded
    from fcn_jax.runtime.processes import gather, join_processes, silence_all_but_first
    from fcn_jax.training.loop import train
    from fcn_jax.training.staged import train_staged

    join_processes(cluster)
    start_jax(options.data.cache)
    silence_all_but_first()
    if config.data.name == "shapes":
        print(
            "Data: shapes, built in (drawn by this program): training needs nothing else. For PASCAL VOC 2012:\n"
            f"  ./launch.sh {preset} --data.name voc2012 --data.dir VOCdevkit   (downloaded without --data.dir)"
        )
    name_of_first = gather(str(run_dir))[0]
    if options.run_dir is None:  # its name has a time and digits, of which each host has its own
        run_dir = Path(name_of_first)
    (train_staged if config.staged else train)(config, options, run_dir)


def read_flags(words: list[str]) -> tuple[str, Config, RunOptions, Cluster, bool]:
    """Read the preset and the flags.

    Returns:
        The preset's name, the configuration, the options, the place among several processes, and whether to hide
        progress. Paths are absolute, so that data and weights are found again from any directory.
    """
    if words and not words[0].startswith("-"):
        choose("preset", words[0], PRESETS)
    training = tyro.extras.overridable_config_cli(describe_presets(), prog="fcn-jax train", args=words)
    config, options = training.config, training.options
    if not any(word.startswith("--model.input.") for word in words):
        config = _change_model(config, input=PRESETS[words[0]].config.model.input)
    model = config.model
    weights = model.weights if model.weights in (None, "imagenet") else str(make_absolute(Path(model.weights)))
    init_from = None if model.init_from is None else make_absolute(model.init_from)
    init_streams = tuple(make_absolute(place) for place in model.init_streams)
    paths = {name: make_absolute(value) for name, value in vars(options.data).items() if isinstance(value, Path)}
    return (
        words[0],
        _change_model(config, weights=weights, init_from=init_from, init_streams=init_streams),
        dataclasses.replace(options, data=dataclasses.replace(options.data, **paths)),
        training.cluster,
        training.quiet,
    )


def describe_presets() -> dict[str, tuple[str, Training]]:
    """Return the description of every preset, and the values of its flags, as tyro takes them."""
    # tyro makes no flags for the fields of a value that is None, so `input` is filled here; `read_flags` empties it.
    return {
        name: (
            str(preset),
            Training(
                _change_model(preset.config, input=preset.config.model.input_or_default), preset.options, Cluster()
            ),
        )
        for name, preset in PRESETS.items()
    }


def _name_run(preset: str, config: Config) -> str:
    """Name a new run by the time, with four digits by chance: several trainings may start in the same second."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return f"{preset}-{config.data.name}-{now}-{secrets.token_hex(2)}"


def _holds_run(run_dir: Path) -> bool:
    """Return whether a folder here or in a bucket is a run directory, or has one for each stage."""
    url = find_url(run_dir)
    if url is None:
        return any([*run_dir.glob("config.json"), *run_dir.glob("*/config.json")])
    with explain_refusal(url):
        bucket = open_bucket(url)
        return any([*bucket.glob("config.json"), *bucket.glob("*/config.json")])


def _change_model(config: Config, **changes: Any) -> Config:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))
