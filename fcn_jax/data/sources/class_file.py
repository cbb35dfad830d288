"""Files of class names, with or without their colours."""

import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from fcn_jax.data.colour_table import Colour
from fcn_jax.data.labels import IGNORE
from fcn_jax.errors import InputError

_RULE = "it has one class name per line, the first for label 0, or one 'name,red,green,blue' or 'name:red,green,blue::'"
# No colour has more than three digits; more are read, up to nine, so that an error can name the line.
_COLOURED = re.compile(
    r"(?P<name>[^:,]+)[:,]\s*(?P<red>\d{1,9})\s*,\s*(?P<green>\d{1,9})\s*,\s*(?P<blue>\d{1,9})\s*(:.*)?"
)
_HEADS = ("#label:color_rgb:parts:actions", "name,r,g,b")  # of CVAT's labelmap.txt, and of the tables of colours
_VOID_NAME = "__ignore__"  # first line of labelme's class_names.txt: the name of -1, which masks store as 255


class Classes(NamedTuple):
    """The classes of a data set.

    Attributes:
        names: the name of each label from 0 on.
        colours: the colour of each class; None if the file has none.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...] | None


def read_classes(file: Path) -> Classes:
    """Read one class per line: its name, or its name and its colour.

    Also read are labelmap.txt of CVAT, class_names.txt of labelme and tables with the head name,r,g,b.

    Raises:
        InputError: the file cannot be read as text, has a blank line, a name or a colour twice, a colour in some lines
            only, or does not have 1 to 255 names.
    """
    try:
        # In one Unicode form: names that look alike are the same.
        text = unicodedata.normalize("NFC", file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the class names cannot be read from {file} ({error}); {_RULE}") from error
    lines = [line.strip() for line in text.rstrip().splitlines()]
    skipped = int(bool(lines) and (lines[0] == _VOID_NAME or lines[0].replace(" ", "").lower() in _HEADS))
    lines = lines[skipped:]
    found = [_COLOURED.fullmatch(line) for line in lines]
    names, colours = lines, None
    if lines and all(found):
        names = [match["name"].strip() for match in found if match]
        colours = [(int(match["red"]), int(match["green"]), int(match["blue"])) for match in found if match]
    if not 0 < len(names) <= IGNORE:
        raise InputError(f"{file} has {len(names)} class names; {_RULE}, and 1 to {IGNORE} of them")
    for place, name in enumerate(names):
        number = place + skipped + 1
        if not name or name in names[:place]:
            raise InputError(f"line {number} of {file} is {name!r}, blank or used before; {_RULE}")
        if colours and (max(colours[place]) > 255 or colours[place] in colours[:place]):
            raise InputError(
                f"line {number} of {file} has the colour {colours[place]}, above 255 or used before; give each class "
                "its own colour"
            )
        if colours is None and found[place]:
            raise InputError(f"line {number} of {file} has a colour, and other lines have none; {_RULE}")
    return Classes(tuple(names), None if colours is None else tuple(colours))
