"""The table of data sets. Each data set has a file in this folder and an entry in `SOURCES`."""

import textwrap
from collections.abc import Iterable

from fcn_jax.data.inputs import Input
from fcn_jax.data.sources import (
    ade20k,
    camvid,
    cityscapes,
    coco,
    folder,
    labelme,
    nyud,
    oxford_iiit_pet,
    panoptic,
    pascal_context,
    sbd,
    shapes,
    siftflow,
    voc,
    voc_layout,
)
from fcn_jax.data.sources.source import DataSource, Outline
from fcn_jax.errors import InputError, suggest_nearest

WIDTH, INDENT = 100, "  "  # of the lines that describe a data set

SOURCES: dict[str, DataSource] = {
    "shapes": shapes.SOURCE,
    "voc2012": voc.SOURCE,
    "sbd": sbd.SOURCE,
    "pascal-context": pascal_context.SOURCE,
    "siftflow": siftflow.SOURCE,
    "siftflow-semantic": siftflow.SEMANTIC_SOURCE,
    "siftflow-geometric": siftflow.GEOMETRIC_SOURCE,
    "nyud": nyud.SOURCE,
    "camvid": camvid.SOURCE,
    "cityscapes": cityscapes.SOURCE,
    "ade20k": ade20k.SOURCE,
    "oxford_iiit_pet": oxford_iiit_pet.SOURCE,
    "folder": folder.SOURCE,
    "voc": voc_layout.SOURCE,
    "coco": coco.SOURCE,
    "panoptic": panoptic.SOURCE,
    "labelme": labelme.SOURCE,
}


def get_source(name: str) -> DataSource:
    """Return a data set by its name.

    Raises:
        InputError: there is no such data set; the text names the nearest one.
    """
    if name not in SOURCES:
        nearest = suggest_nearest(name, SOURCES) or ";"
        raise InputError(
            f"there is no data set {name!r}{nearest} there are {', '.join(SOURCES)}; folder, voc, coco, panoptic and "
            "labelme are for images of your own"
        )
    return SOURCES[name]


def choose_inputs(source: DataSource, names: Iterable[str]) -> tuple[Input, ...]:
    """Return the inputs of a data set by their names, or its first one if there are no names.

    Raises:
        InputError: the data set has no such input, or one is named twice.
    """
    known = {given.name: given for given in source.inputs}
    chosen = tuple(names) or tuple(known)[:1]
    if unknown := [name for name in chosen if name not in known]:
        raise InputError(
            f"{source.name} has no input {unknown[0]!r}; it has {', '.join(known)}: give some of them as --data.inputs"
        )
    if len(set(chosen)) < len(chosen):
        raise InputError(f"data.inputs is {' '.join(chosen)}; name each input once")
    return tuple(known[name] for name in chosen)


def describe_sources() -> str:
    """Describe the data sets in lines of at most 100 characters: what each is, where to get it, and its facts."""
    return "\n\n".join(map(_describe, SOURCES.values()))


def _describe(source: DataSource) -> str:
    wants = source.defaults
    facts = (
        source.description,
        f"{_describe_outline(source.outline)}; size: {source.size}",
        f"licence: {source.licence}",
        f"trained by default for {wants.steps} steps of {wants.batch_size} crops of {wants.crop}, "
        f"rate {wants.learning_rate:g}",
    )
    # Neither paths nor names of splits are broken.
    text = "\n".join(
        textwrap.fill(fact, WIDTH, initial_indent=INDENT, subsequent_indent=f"{INDENT}  ", break_on_hyphens=False)
        for fact in facts
    )
    return f"{source.name}\n{text}"


def _describe_outline(outline: Outline | None) -> str:
    if outline is None:
        return "classes: any; splits: any"
    others = (*outline.further_splits, *(f"{split} without labels" for split in outline.unlabelled))
    splits = " ".join(outline.splits) + (f" ({', '.join(others)})" if others else "")
    return f"classes: {' and '.join(map(str, outline.num_classes))}; splits: {splits}"
