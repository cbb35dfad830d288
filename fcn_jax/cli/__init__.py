"""The `fcn-jax` command: finds the subcommand, lets tyro read its flags, and prints bad input without a trace.

JAX and the data sets are imported by the commands that need them, so that help is there at once.
"""

import dataclasses
import datetime
import difflib
import gc
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from fcn_jax.config import DESCRIPTIONS, PRESETS, Config, DataConfig
from fcn_jax.errors import InputError, OutOfMemory

HELP = f"""fcn-jax: Fully Convolutional Networks for semantic segmentation, in JAX

  fcn-jax train PRESET [flags]          train; presets: {", ".join(PRESETS)}
  fcn-jax eval RUN [flags]              score a run's best checkpoint on a split
  fcn-jax predict RUN IMAGE... [flags]  segment photographs: files, folders or globs
  fcn-jax weights import FILE --out F   convert weights of another framework, or a run's, and describe them
  fcn-jax data list                     the data sets there are
  fcn-jax data prepare NAME [flags]     build a data set from its official files
  fcn-jax data check NAME [flags]       count its labels and draw some of them

`fcn-jax COMMAND --help` shows a command's flags, `fcn-jax train PRESET --help` those of a training."""


@dataclass(frozen=True)
class OtherData:
    """Where it differs from the run's own."""

    name: str | None = None
    """data set"""
    dir: Path | None = None
    """where its files are"""
    cache: Path | None = None
    """where prepared data goes"""
    classes: Path | None = None
    """folder data: file with a class name a line"""
    void: tuple[int, ...] | None = None
    """folder data: label values that mean void, besides 255"""


@dataclass(frozen=True)
class Eval:
    """Scores a run on a split of its data, or of other data with the same classes."""

    run: tyro.conf.Positional[Path]
    """run directory"""
    split: str = "val"
    """split to score"""
    data: OtherData = field(default_factory=OtherData)
    json: Path | None = None
    """also write the scores and the confusion matrix to this file"""
    picture: Path | None = None
    """also draw the first images, their truth and prediction into this PNG"""
    step: int | None = None
    """checkpoint to use; None: the best on val"""
    batch_size: int | None = None
    """images at once; None: as in training"""


@dataclass(frozen=True)
class Predict:
    """Segments photographs of any size: OUT/<stem>.png (class indices) and OUT/<stem>_overlay.png."""

    run: tyro.conf.Positional[Path]
    """run directory"""
    images: tyro.conf.Positional[tuple[str, ...]]
    """files, folders or globs"""
    out: Path = Path("predictions")
    """folder for the results"""
    step: int | None = None
    """checkpoint to use; None: the best on val"""
    batch_size: int | None = None
    """images at once; None: as in training"""


@dataclass(frozen=True)
class Import:
    """Converts weights of another framework, or those of a run, into one file of ours, and describes them."""

    file: tyro.conf.Positional[Path]
    """file of weights, or run directory (its best checkpoint)"""
    out: Path
    """file to write, in safetensors, with what the network takes as input"""
    classes: Path | None = None
    """file with the name of a class a line, for scores of a file that does not name them"""


@dataclass(frozen=True)
class Data:
    """A data set to build or to look at."""

    name: tyro.conf.Positional[str]
    """data set; `fcn-jax data list` shows them"""
    dir: Path | None = None
    """where its files are (only read)"""
    cache: Path | None = None
    """where prepared data goes; None: fcn_jax in the user's cache directory"""
    classes: Path | None = None
    """folder data: file with a class name a line; None: classes.txt in dir"""
    void: tuple[int, ...] = ()
    """folder data: label values that mean void, besides 255"""
    out: Path | None = None
    """check: picture of the first images with their labels; None: NAME_check.png"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; exits with 2 on bad input, 1 when training has diverged or memory is out, 130 on Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Importing and tracing make half a million objects that stay. Garbage is looked for among all of them a tenth as
    # often as usual, which is not before the first step.
    gc.set_threshold(*gc.get_threshold()[:2], 100)
    try:
        _dispatch("command", COMMANDS, HELP, words)
    except InputError as error:
        print(f"fcn-jax: {error}", file=sys.stderr)
        sys.exit(2)
    except (FloatingPointError, OutOfMemory) as error:
        print(f"fcn-jax: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("fcn-jax: stopped", file=sys.stderr)
        sys.exit(130)


def _dispatch(what: str, commands: dict[str, Callable[[list[str]], None]], text: str, words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(text)
    elif words[0] in commands:
        commands[words[0]](words[1:])
    else:
        near = difflib.get_close_matches(words[0], commands, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"{what} {words[0]!r} is unknown, there are {', '.join(commands)}{hint}")


def _train(words: list[str]) -> None:
    if words and not words[0].startswith("-") and words[0] not in PRESETS:
        near = difflib.get_close_matches(words[0], PRESETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"preset {words[0]!r} is unknown, there are {', '.join(PRESETS)}{hint}")
    # tyro has no flags for the parts of what is None.
    presets = {
        name: (DESCRIPTIONS[name], _with_model(config, input=config.model.settled_input))
        for name, config in PRESETS.items()
    }
    config = tyro.extras.overridable_config_cli(presets, prog="fcn-jax train", args=words)
    if not any(word.startswith("--model.input.") for word in words):
        config = _with_model(config, input=PRESETS[words[0]].model.input)
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = config.run_dir.expanduser() if config.run_dir else Path("runs", f"{words[0]}-{config.data.name}-{now}")
    if re.match(r"\w+:/", str(folder)):
        raise InputError(f"run-dir is {folder}, which is not a folder here; mount it, or give a local --run-dir")
    if config.data.name == "shapes":
        print(
            "Data: shapes, built in (drawn by this program): training needs nothing else. For PASCAL VOC 2012:\n"
            f"  ./launch.sh {words[0]} --data.name voc2012 --data.dir VOCdevkit   (downloaded without --data.dir)"
        )
    config = config.resolved()  # what is wrong with the flags is said before JAX is loaded
    from fcn_jax.data.dataset import cache_folder
    from fcn_jax.runtime.compile_cache import give_back_memory, keep_compiled
    from fcn_jax.training.loop import train
    from fcn_jax.training.staged import train_staged

    config = _absolute(config)
    keep_compiled(config.data.cache or cache_folder())
    give_back_memory()
    (train_staged if config.staged else train)(config, folder)


def _with_model(config: Config, **changes: Any) -> Config:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))


def _absolute(config: Config) -> Config:
    """With absolute paths, so that data and weights are found and known again from anywhere."""
    paths = {name: _whole(value) for name, value in vars(config.data).items() if isinstance(value, Path)}
    model = config.model
    weights = model.weights if model.weights in (None, "imagenet") else str(_whole(Path(model.weights)))
    init_from = None if model.init_from is None else _whole(model.init_from)
    config = _with_model(config, weights=weights, init_from=init_from)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **paths))


def _whole(path: Path) -> Path:
    """An absolute path; shells leave the ~ of --flag=~/folder as it is."""
    return path.expanduser().absolute()


def _eval(words: list[str]) -> None:
    options = tyro.cli(Eval, prog="fcn-jax eval", args=words)
    _can_be_written(options.json, options.picture)
    from fcn_jax.data import dataset as datasets
    from fcn_jax.inference import evaluate
    from fcn_jax.inference.visualize import Panels, save_png
    from fcn_jax.runtime.memory import IN_EVALUATION, explain_out_of_memory

    run, config, forward, variables, batch_size, step = _trained(options, labelled=True)
    changed = {name: value for name, value in dataclasses.asdict(options.data).items() if value is not None}
    other = changed.get("name", config.data.name) != config.data.name
    data = dataclasses.replace(DataConfig(cache=config.data.cache) if other else config.data, **changed)
    dataset = datasets.prepare(data.name, data.dir, data.cache, classes=data.classes, void=data.void)
    if dataset.class_names != run.class_names:
        raise InputError(
            f"{run.folder} was trained on the classes {', '.join(run.class_names)}, and {data.name} has "
            f"{', '.join(dataset.class_names)}; score it on data with the same classes"
        )
    source = dataset.source(options.split)
    panels = Panels(source, run.palette, run.class_names)
    with explain_out_of_memory(forward, "evaluation", IN_EVALUATION) as noted:
        result = evaluate.evaluate(
            noted, variables, source, len(run.class_names), batch_size, config.workers, panels.add
        )
    print(evaluate.format_table(result, run.class_names))
    print(
        f"{result.num_examples} images of {data.name} {options.split} in {result.seconds:.1f} s, "
        f"{result.num_examples / result.seconds:.1f} images/s, {result.programs} programs compiled; "
        f"step {step} of {run.folder}"
    )
    if options.json:
        from fcn_jax.runs.run_dir import to_plain, write_whole

        scores = {"step": step, "split": options.split, **evaluate.to_json(result, run.class_names)}
        write_whole(options.json, json.dumps(to_plain(scores), indent=1) + "\n")
    if options.picture and (picture := panels.draw()) is not None:
        save_png(picture, options.picture)


def _predict(words: list[str]) -> None:
    options = tyro.cli(Predict, prog="fcn-jax predict", args=words)
    from fcn_jax.inference import predict
    from fcn_jax.runtime.memory import IN_EVALUATION, explain_out_of_memory

    files = predict.find_images(options.images)
    run, config, forward, variables, batch_size, _ = _trained(options, labelled=False)
    began = time.perf_counter()
    with explain_out_of_memory(forward, "prediction", IN_EVALUATION) as noted:
        results = predict.predict(noted, variables, files, options.out, run.palette, batch_size, config.workers)
        for count, file in enumerate(results, 1):
            print(f"{count}/{len(files)} {file}")
    print(f"{len(files)} images in {time.perf_counter() - began:.1f} s")


def _trained(options: Eval | Predict, labelled: bool) -> tuple[Any, Config, Any, Any, int, int]:
    """A run, its configuration, its network's forward pass and variables, the images to compute at once, the step."""
    from fcn_jax.data.dataset import cache_folder
    from fcn_jax.inference.segment import default_batch_size, make_forward
    from fcn_jax.models.build import build
    from fcn_jax.runs.restore import restore_variables
    from fcn_jax.runs.run_dir import open_run
    from fcn_jax.runtime.compile_cache import give_back_memory, keep_compiled

    run = open_run(options.run)
    keep_compiled(run.config.data.cache or cache_folder())
    give_back_memory()
    model = build(run.config.model, len(run.class_names))
    variables, step = restore_variables(run, model, options.step)
    forward = make_forward(model, run.config.model.settled_input, labelled)
    batch_size = default_batch_size(options.batch_size or run.config.eval_batch_size)
    return run, run.config, forward, variables, batch_size, step


def _weights(words: list[str]) -> None:
    _dispatch("weights command", {"import": _import}, HELP, words)


def _import(words: list[str]) -> None:
    options = tyro.cli(Import, prog="fcn-jax weights import", args=words)
    _can_be_written(options.out)
    from fcn_jax.data.sources.folder import read_class_names
    from fcn_jax.training import start as transfer
    from fcn_jax.weights import merge, ours

    weights = transfer.of(options.file)
    if options.classes is not None:
        weights = merge.name_classes(weights, read_class_names(options.classes))
    print(merge.describe_weights(weights))
    ours.write(options.out, weights)
    print(f"written: {options.out}, {options.out.stat().st_size / 1e6:.1f} MB")


def _can_be_written(*files: Path | None) -> None:
    """Said before hours of work, not after."""
    for file in files:
        if file is None:
            continue
        trial = file.with_name(file.name + ".tmp")
        try:
            if file.is_dir():
                raise IsADirectoryError("it is a folder")
            trial.touch()
            trial.unlink()
        except OSError as error:
            raise InputError(f"{file} cannot be written ({error}): give a file in a folder that is there") from error


def _data(words: list[str]) -> None:
    _dispatch("data command", {"list": _list, "prepare": _prepare, "check": _check}, HELP, words)


def _list(words: list[str]) -> None:
    from fcn_jax.data.sources import describe_sources

    print(describe_sources())


def _prepared(words: list[str], command: str) -> tuple[Data, Any]:
    from fcn_jax.data import dataset as datasets

    options = tyro.cli(Data, prog=f"fcn-jax data {command}", args=words)
    try:
        dataset = datasets.prepare(options.name, options.dir, options.cache, classes=options.classes, void=options.void)
    except InputError as error:
        # The flags of `train` and `eval` by the names they have here.
        raise InputError(str(error).replace("--data.", "--")) from error
    for split, count in dataset.splits.items():
        print(f"{dataset.name} {split}: {count} images")
    return options, dataset


def _prepare(words: list[str]) -> None:
    _prepared(words, "prepare")


def _check(words: list[str]) -> None:
    options, dataset = _prepared(words, "check")
    out = options.out or Path(f"{dataset.name}_check.png")
    _can_be_written(out)
    import numpy as np

    from fcn_jax.data import dataset as datasets
    from fcn_jax.data.labels import IGNORE
    from fcn_jax.inference.visualize import overlay, save_png, stack

    rows = []
    for split in dataset.splits:
        counts = datasets.count_labels(dataset, split)
        print(f"\n{split}: pixels by label")
        names = {**dict(enumerate(dataset.class_names)), IGNORE: "void"}
        for value in np.flatnonzero(counts).tolist():
            print(f"  {value:>3} {names[value]:20} {counts[value]:>14,} {100 * counts[value] / counts.sum():6.2f} %")
        if np.flatnonzero(counts[:IGNORE]).tolist() == [0] and counts[IGNORE]:
            print("      only 0 and 255: black-and-white masks? Then white, 255, is void here; save it as class 1")
        for absent in [name for value, name in enumerate(dataset.class_names) if not counts[value]]:
            print(f"      {absent}: in no image of {split}")
        source = dataset.source(split)
        for example in (source[index] for index in range(min(4, len(source)))):
            rows.append(np.concatenate([example.image, overlay(example.image, example.label, dataset.palette)], axis=1))
    save_png(stack(rows), out)
    print(f"\nfirst images with their labels: {out}")


COMMANDS = {"train": _train, "eval": _eval, "predict": _predict, "weights": _weights, "data": _data}
