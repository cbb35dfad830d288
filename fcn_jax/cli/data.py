"""`fcn-jax data list`, `fcn-jax data prepare NAME [flags]` and `fcn-jax data check NAME [flags]`."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from fcn_jax.cli.words import choose, parse_flags, require_writable
from fcn_jax.config import DataConfig, DataOptions
from fcn_jax.errors import InputError
from fcn_jax.runtime.progress import hide_progress

if TYPE_CHECKING:
    from fcn_jax.data.dataset import Dataset


@dataclass(frozen=True)
class Prepare:
    """Build a data set from its official files, ready for training."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """data set; `fcn-jax data list` shows them all"""
    dir: Path | None = None
    """folder or archive of the data set, which stays unchanged; None: the images are drawn or downloaded"""
    cache: Path | None = None
    """folder for prepared data; None: fcn_jax in the user's cache directory"""
    classes: Path | None = None
    """file with a class name, or name,red,green,blue, per line (for `folder voc coco labelme`); None: it is in dir"""
    void: tuple[int, ...] = ()
    """label values that mean void, besides 255 (only for the data sets `folder` and `voc`)"""
    map: tuple[str, ...] = ()
    """what values of masks mean, as 255=1 7=road 0=void 1-150=0 #800000=1 (only for `folder` and `voc`)"""
    label_suffix: str = ""
    """what the name of a mask has after that of its image, as _mask (only for the data sets `folder` and `voc`)"""
    train_split: str = "train"
    """split to train on: hold-out takes from it, and class weights, mean and deviation are computed on it"""
    hold_out: float = 0.0
    """share of train-split to set apart as the split held-out, 0 to below 1"""
    inputs: tuple[str, ...] = ()
    """inputs of the data set to use, as colour depth (`nyud`) or bands (`folder`); none: the first one"""
    on_bad_example: Literal["stop", "skip"] = "stop"
    """what to do with examples whose files are missing or damaged; skip: list and leave out"""
    quiet: bool = False
    """show no progress; results, warnings and errors are still printed"""


@dataclass(frozen=True)
class Check(Prepare):
    """Check a data set before a training: labels, sizes, void, repeated images, and a sheet of images with labels."""

    out: Path | None = None
    """HTML file for the sheet, or PNG file for a picture of the first images; None: NAME_check.html"""
    json: Path | None = None
    """JSON file for everything that was found; None: it is only printed"""


def run(words: list[str]) -> None:
    """List the data sets, or prepare or check one."""
    match choose("data command", words[0], ("list", "prepare", "check")):
        case "list":
            from fcn_jax.data.sources import describe_sources

            print(describe_sources())
        case "prepare":
            dataset = _prepare(parse_flags(Prepare, "data prepare", words[1:]))
            for split in dataset.splits:
                print("\n".join(_describe_split(dataset, split)))
            for line in _describe_unlabelled(dataset):
                print(line)
        case "check":
            _check(parse_flags(Check, "data check", words[1:]))


def _prepare(flags: Prepare) -> "Dataset":
    hide_progress(flags.quiet)
    from fcn_jax.data.dataset import prepare_configured

    try:
        dataset = prepare_configured(
            DataConfig(flags.name, flags.void, flags.map, flags.train_split, flags.hold_out, flags.inputs),
            DataOptions(flags.dir, flags.cache, classes=flags.classes, label_suffix=flags.label_suffix),
            flags.on_bad_example == "skip",
        )
    except InputError as error:
        # The message names flags of `train` and `eval`, which have a prefix that those of `data` lack.
        raise InputError(str(error).replace("--data.", "--")) from error
    if flags.train_split not in (*dataset.splits, Prepare.train_split):
        known = ", ".join(dataset.splits)
        raise InputError(f"{flags.name} has no split {flags.train_split!r} here; it has {known}: give one of them")
    if dataset.left_out:
        print(f"warning: {dataset.left_out}", file=sys.stderr)
    return dataset


def _describe_split(dataset: "Dataset", split: str) -> list[str]:
    """Describe the size of a split, and the classes that it does not have."""
    from fcn_jax.data.absent import describe_absent_classes
    from fcn_jax.data.sources import get_source

    lines = [f"{dataset.name} {split}: {dataset.splits[split]} images"]
    takes_map = get_source(dataset.name).takes_map
    for task, pixels in zip(dataset.tasks, dataset.pixels[split], strict=True):
        absent = describe_absent_classes(pixels, task, takes_map)
        lines += [f"  {absent.replace('--data.', '--')}"] if absent else []
    return lines


def _describe_map(flags: Prepare, dataset: "Dataset") -> list[str]:
    """Describe what the flags say of the values in masks."""
    if not (flags.map or flags.void):
        return []
    from fcn_jax.data.label_map import describe_label_map, parse_label_map

    label_map = parse_label_map(flags.map, flags.void, dataset.class_names)
    return [f"values of masks: {describe_label_map(label_map, dataset.class_names)}; 255 is void unless it is listed"]


def _describe_unlabelled(dataset: "Dataset") -> list[str]:
    """Describe the splits without labels."""
    return [
        f"{dataset.name} {split}: {count} images without labels, only for `fcn-jax predict RUN --split {split}`"
        for split, count in dataset.unlabelled.items()
    ]


def _check(flags: Check) -> None:
    from fcn_jax.data.sources import get_source

    get_source(flags.name)  # before its name becomes that of a file
    out = flags.out or Path(f"{flags.name}_check.html")
    require_writable(out, flags.json)
    if out.suffix not in (".html", ".png"):
        raise InputError(f"out is {out}; give it the ending .html for a sheet of images, or .png for a picture")
    dataset = _prepare(flags)
    from fcn_jax.data.survey.survey import survey_dataset, to_values
    from fcn_jax.data.survey.text import describe_class_weights, describe_repeats, describe_split
    from fcn_jax.inference.sheet.page import render_sheet
    from fcn_jax.runtime.files import write_atomically
    from fcn_jax.runtime.json_values import to_json

    survey = survey_dataset(dataset, flags.train_split)
    for split in dataset.splits:
        first, *absent = _describe_split(dataset, split)
        print("\n".join(["", first, *describe_split(survey, split), *absent]))
    for lines in (_describe_map(flags, dataset), _describe_unlabelled(dataset)):
        if lines:
            print("\n".join(["", *lines]))
    print("\n".join(["", *describe_class_weights(survey), "", *describe_repeats(survey)]))
    if flags.json:
        write_atomically(flags.json, json.dumps(to_json(to_values(survey)), indent=1) + "\n")
    if out.suffix == ".html":
        write_atomically(out, render_sheet(dataset, survey))
    else:
        _draw_first(dataset, out)
    print(f"\nimages with their labels: {out}")


def _draw_first(dataset: "Dataset", out: Path) -> None:
    """Draw the first images of each split, each beside its labels."""
    from fcn_jax.inference.visualize import overlay_tasks, save_png, stack

    rows = []
    for split in dataset.splits:
        source = dataset.source(split)
        examples = (source[index] for index in range(min(4, len(source))))
        rows += [overlay_tasks(example.picture, example.label, dataset.tasks) for example in examples]
    save_png(stack(rows), out)
