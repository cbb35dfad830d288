"""The classes of data sets whose files name the class of each outline."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fcn_jax.data.colour_table import Colour
from fcn_jax.data.labels import IGNORE
from fcn_jax.data.sources.class_file import read_classes
from fcn_jax.errors import InputError


class NumberedClasses(NamedTuple):
    """Classes, of which the first is the background, which has no outlines.

    Attributes:
        names: the name of each label from 0 on.
        colours: the colour of each class; None if nobody gives colours.
        labels: the label of each name in the files of outlines.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...] | None
    labels: dict[str, int]


def number_classes(found: Iterable[str], file: Path | None) -> NumberedClasses:
    """Number classes from 1 on, and put the background before them.

    A class whose name is background, in any case and with or without `_`, is the background.

    Args:
        found: the names in the files of outlines, in the order of their labels unless there is a file of classes.
        file: the user's file of classes, which decides the order; None if there is none.

    Raises:
        InputError: the file of classes is invalid or lacks a name, or there are too many classes.
    """
    found = list(dict.fromkeys(found))
    names, colours = read_classes(file) if file else (tuple(found), None)
    if missing := [name for name in found if name not in names and not _is_background(name)]:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise InputError(
            f"{file} does not have {', '.join(missing[:5])}{more}, which the outlines name; add the names, or remove "
            "these outlines"
        )
    order = [place for place, name in enumerate(names) if not _is_background(name)]
    ground = [place for place, name in enumerate(names) if _is_background(name)][:1]
    if len(order) >= IGNORE:
        raise InputError(f"there are {len(order)} classes beside the background; at most {IGNORE - 1} are possible")
    own = tuple(names[place] for place in [*ground, *order])
    own_colours = None if colours is None else tuple(colours[place] for place in [*ground, *order])
    if not ground:
        own = ("background", *own)
        own_colours = None if own_colours is None else ((0, 0, 0), *own_colours)
    labels = {name: own.index(name) for name in own} | {name: 0 for name in found if _is_background(name)}
    return NumberedClasses(own, own_colours, labels)


def _is_background(name: str) -> bool:
    return name.strip("_ ").lower() == "background"
