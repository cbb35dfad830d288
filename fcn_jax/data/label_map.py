"""What the samples of a mask mean: the label of each number and of each colour."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt, UInt8

from fcn_jax.data.colour_table import Colour, match_colours
from fcn_jax.data.labels import IGNORE
from fcn_jax.errors import InputError, suggest_nearest

RULE = (
    "an entry is NUMBER=CLASS, FIRST-LAST=CLASS (FIRST becomes CLASS, the next number the next class) or "
    "#RRGGBB=CLASS, and CLASS is the number or the name of a class, or void"
)
_ENTRY = re.compile(r"(?:#(?P<colour>[0-9a-fA-F]{6})|(?P<first>\d{1,3})(?:-(?P<last>\d{1,3}))?)=(?P<label>.+)")
_SHOWN = 5  # number of wrong values that an error names


@dataclass(frozen=True)
class LabelMap:
    """The labels of the numbers and colours in masks. A number that is not listed is its own label; 255 is void.

    Attributes:
        void: numbers that mean void, besides 255.
        numbers: pairs of a number and its class, for numbers that are not their own.
        colours: pairs of a colour and its label, for masks in colour.
    """

    void: tuple[int, ...] = ()
    numbers: tuple[tuple[int, int], ...] = ()
    colours: tuple[tuple[Colour, int], ...] = ()

    def look_up(
        self, mask: UInt[np.ndarray, "height width *rgb"], name: str, num_classes: int
    ) -> UInt8[np.ndarray, "height width"]:
        """Return the label of each pixel of a mask.

        Args:
            mask: numbers, uint8 or uint16 [height, width], or colours, uint8 [height, width, 3].
            name: file of the mask, for the message.
            num_classes: labels are 0..num_classes - 1 and 255.

        Returns:
            Labels, uint8 [height, width]. It is `mask` itself if that is uint8 and all its numbers are labels.

        Raises:
            InputError: a number is not a label, or a colour is not in the map.
        """
        return self._look_up_colours(mask, name) if mask.ndim == 3 else self._look_up_numbers(mask, name, num_classes)

    def require_one_meaning(
        self, mask: UInt8[np.ndarray, "height width"], name: str, num_classes: int, largest: int = 255
    ) -> None:
        """Check that the numbers of a grey mask cannot also be greys of the table of colours, with other labels.

        Many programs save a picture in grey if all its colours are. Then its numbers are colours, not classes.

        Args:
            mask: the numbers that it stores.
            name: file of the mask, for the message.
            num_classes: number of classes.
            largest: the number that stands for white: 255 with 8 bits, 1 with one bit.

        Raises:
            InputError: all numbers that the map does not list are greys of the table, and one has another label there.
        """
        table = dict(self.colours)
        present = set(np.unique(mask).tolist()) - set(self.void) - {number for number, _ in self.numbers}
        greys: dict[int, Colour] = {number: (number * 255 // largest,) * 3 for number in sorted(present)}
        if not all(grey in table for grey in greys.values()):
            return
        for number, grey in greys.items():
            if table[grey] != number:
                own = "void" if number == IGNORE else f"class {number}" if number < num_classes else "no class"
                given = "void" if table[grey] == IGNORE else f"class {table[grey]}"
                raise InputError(
                    f"mask {name} is grey, and its numbers may be classes or colours: {number} is {own} as a number "
                    f"and {given} as the colour {_format(grey)}; save the mask in RGB if they are colours, "
                    f"or say what each means with --data.map, as {number}={given.removeprefix('class ')}"
                )

    def _look_up_numbers(self, mask: np.ndarray, name: str, num_classes: int) -> np.ndarray:
        table = np.arange(1 << 16, dtype=np.uint16)
        for number, label in (*((number, IGNORE) for number in self.void), *self.numbers):
            table[number] = label
        present = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
        labels = table[present]
        wrong = present[(labels >= num_classes) & (labels != IGNORE)].tolist()
        if wrong:
            values, are = ("label", "is") if len(wrong) == 1 else ("labels", "are")
            raise InputError(
                f"{values} {_join(map(str, wrong), len(wrong))} in {name} {are} outside 0..{num_classes - 1} and {are} "
                "not 255; correct the mask, or for images of your own add the class to classes.txt, or say with "
                f"--data.map what the number means: {_suggest(wrong, num_classes)}"
            )
        is_label = mask.dtype == np.uint8 and np.array_equal(labels, present)
        return mask if is_label else table.astype(np.uint8)[mask]

    def _look_up_colours(self, mask: np.ndarray, name: str) -> np.ndarray:
        if not self.colours:
            raise InputError(
                f"mask {name} has colours, and there is no table of them; give each with --data.map, as "
                f"'{_format(mask[0, 0].tolist())}=0', or give --data.classes a file with lines 'name,red,green,blue'"
            )
        result, wrong = match_colours(mask, dict(self.colours))
        if wrong:
            shown = (f"{_format(colour)} (in {count} pixels)" for colour, count in wrong.most_common())
            colours = "a colour" if len(wrong) == 1 else f"{len(wrong)} colours"
            remedy = f"give --data.map '{_format(wrong.most_common(1)[0][0])}=void', or the number of its class"
            if len(wrong) > _SHOWN:
                remedy = "so many come from smoothed edges or a lossy file: save the mask anew, without both"
            raise InputError(f"mask {name} has {colours} without a class: {_join(shown, len(wrong))}; {remedy}")
        return result


def find_values(label_map: LabelMap, num_classes: int) -> UInt8[np.ndarray, "{num_classes}"]:
    """Find the number that stands for each class in masks: the one that the map lists, otherwise the class itself.

    Raises:
        InputError: the map lists several numbers for a class, gives the number of an unlisted class to another one, has
            a number above 255, or lists colours.
    """
    if label_map.colours:
        raise InputError("masks of the run's data have colours, which no grey mask can hold; leave out --source-values")
    taken = {number for number, _ in label_map.numbers} | set(label_map.void)
    values = np.empty(num_classes, np.uint8)
    for label in range(num_classes):
        numbers = [number for number, own in label_map.numbers if own == label]
        if not numbers and label not in taken:
            numbers = [label]
        if len(numbers) != 1:
            listed = _join(map(str, numbers), len(numbers)) or "no number"
            raise InputError(
                f"{listed} of the run's masks became class {label}, so it has no value of its own; leave out "
                "--source-values, and the masks hold the indices of the classes"
            )
        if numbers[0] > IGNORE:
            raise InputError(
                f"{numbers[0]} of the run's masks became class {label}, and the masks to write hold numbers up to "
                f"{IGNORE}; leave out --source-values, and they hold the indices of the classes"
            )
        values[label] = numbers[0]
    return values


def parse_label_map(
    entries: Iterable[str], void: Sequence[int], class_names: Sequence[str], colours: Sequence[Colour] = ()
) -> LabelMap:
    """Make a label map of the user's flags.

    Args:
        entries: values of `--data.map`, as 255=1, 7=road, 0=void, 1-150=0, #800000=1.
        void: numbers that mean void, besides 255; they are not classes.
        class_names: the name of each class.
        colours: colour of each class, from the file of classes; empty if it has none.

    Raises:
        InputError: an entry does not have this form, names a class that does not exist, or repeats a value.
    """
    num_classes = len(class_names)
    for label in void:
        if not num_classes <= label <= IGNORE:
            raise InputError(
                f"void label {label} is not within {num_classes}..{IGNORE}; labels below {num_classes} are classes, so "
                f"remove it from --data.void, remove its class name, or write --data.map {label}=void"
            )
    numbers: dict[int, int] = {}
    listed: dict[Colour, int] = {}
    for entry in entries:
        values, labels = _parse_entry(entry, class_names)
        known = listed if isinstance(values[0], tuple) else numbers
        if not known.keys().isdisjoint(values) or not set(void).isdisjoint(values):
            raise InputError(
                f"--data.map has {entry!r}, and the same value is in an entry before or in --data.void; give each "
                "value once"
            )
        known.update(zip(values, labels, strict=True))
    return LabelMap(
        void=(*void, *(number for number, label in numbers.items() if label == IGNORE)),
        numbers=tuple(pair for pair in numbers.items() if pair[1] != IGNORE),
        colours=tuple(({colour: label for label, colour in enumerate(colours)} | listed).items()),
    )


def describe_label_map(label_map: LabelMap, class_names: Sequence[str]) -> str:
    """Describe what a map lists, as "0 is void, 1 to 3 are sky to sea, #800000 is car"; successive numbers together."""
    names = dict(enumerate(class_names)) | {IGNORE: "void"}
    runs: list[list[tuple[int, int]]] = []
    for number, label in sorted([*((number, IGNORE) for number in label_map.void), *label_map.numbers]):
        if runs and (number - 1, label - 1) == runs[-1][-1]:
            runs[-1].append((number, label))
        else:
            runs.append([(number, label)])
    parts = [
        f"{first} is {names[label]}"
        if first == last
        else f"{first} to {last} are {names[label]} to {names[last_label]}"
        for (first, label), (last, last_label) in ((run[0], run[-1]) for run in runs)
    ]
    return ", ".join(parts + [f"{_format(colour)} is {names[label]}" for colour, label in label_map.colours])


def _parse_entry(entry: str, class_names: Sequence[str]) -> tuple[list[Any], list[int]]:
    """Return the numbers or the colour of an entry, and their labels."""
    found = _ENTRY.fullmatch(entry)
    if not found:
        raise InputError(f"--data.map has {entry!r}; {RULE}")
    if found["colour"]:
        values: list[Any] = [tuple(bytes.fromhex(found["colour"]))]
    else:
        first, last = int(found["first"]), int(found["last"] or found["first"])
        if not first <= last <= IGNORE:
            raise InputError(f"--data.map has {entry!r}; numbers go from 0 to {IGNORE}, the smaller one first")
        values = list(range(first, last + 1))
    wanted, num_classes = unicodedata.normalize("NFC", found["label"]), len(class_names)
    if wanted == "void":
        return values, [IGNORE] * len(values)
    if not re.fullmatch(r"\d{1,3}", wanted):
        if wanted not in class_names:
            nearest = suggest_nearest(wanted, class_names) or ";"
            raise InputError(
                f"--data.map has {entry!r}, and no class has the name {wanted!r}{nearest} the classes are "
                f"{', '.join(class_names)}"
            )
        if len(values) > 1:
            raise InputError(
                f"--data.map has {entry!r}; a range leads to successive classes, so give the number of the first one, "
                f"or each number of the range as {values[0]}={wanted}"
            )
        return values, [class_names.index(wanted)]
    label = int(wanted)
    if label + len(values) > num_classes:
        raise InputError(
            f"--data.map has {entry!r}, which leads to class {label + len(values) - 1}; the classes are "
            f"0..{num_classes - 1}"
        )
    return values, list(range(label, label + len(values)))


def _format(colour: Sequence[int]) -> str:
    return f"#{bytes(colour).hex()}"


def _join(shown: Iterable[str], count: int) -> str:
    """List the first values, and say how many more there are."""
    first = [text for _, text in zip(range(_SHOWN), shown, strict=False)]
    return ", ".join(first) + (f" and {count - _SHOWN} more" if count > _SHOWN else "")


def _suggest(wrong: list[int], num_classes: int) -> str:
    """Suggest a map for numbers that are not labels."""
    if wrong == [num_classes]:  # without 0=void, 0 would stay class 0 beside 1
        return f"0=void 1-{num_classes}=0 if the classes count from 1, {num_classes}=void if it is no class"
    return f"{wrong[0]}=void if it is no class, {wrong[0]}={num_classes - 1} if it is class {num_classes - 1}"
