"""The interface of a data set's file: its name, its defaults, and how to find its examples.

The file of a data set ends with `SOURCE = DataSource(...)`. Its function `find` lists the examples of each split
without reading them; `fcn_jax.data.builder` reads, checks and stores them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fcn_jax.data.colour_table import Colour
from fcn_jax.data.inputs import COLOUR, Input
from fcn_jax.data.label_map import LabelMap
from fcn_jax.errors import InputError


class Files(NamedTuple):
    """An example stored in a file for each input and one for the mask.

    Attributes:
        name: the name of the example, unique in its split.
        image: the file of the first input: a picture, if that is colour.
        mask: a PNG that holds the class of each pixel, or a MATLAB file.
        variable: for a MATLAB file, the variable that is the mask, or a field in it, such as `GTcls.Segmentation`.
        others: the files of the further inputs that are used, in their order.
        other_masks: the masks of the tasks after the first one, with the same variable.
    """

    name: str
    image: Path
    mask: Path
    variable: str = ""
    others: tuple[Path, ...] = ()
    other_masks: tuple[Path, ...] = ()


class Slice(NamedTuple):
    """An example in a MATLAB file that has the images and masks of all examples, in two arrays.

    Attributes:
        name: the name of the example, unique in its split.
        file: the file, of version 7.3.
        index: number of the example in the file, from 0.
        mask: the variable of the masks, in MATLAB of the shape [height, width, examples].
        count: number of examples in the file.
        arrays: for each input that is used, the variables that it is made of, in MATLAB of the shape [height, width,
            examples] or [height, width, 3, examples], and the function that makes it of the arrays of an example.
    """

    name: str
    file: Path
    index: int
    mask: str
    count: int
    arrays: tuple[tuple[tuple[str, ...], Callable[..., np.ndarray]], ...]


class Outlined(NamedTuple):
    """An example whose image is a file, and whose mask is drawn from another file, which may have many masks.

    Attributes:
        name: the name of the example, unique in its split.
        image: a picture.
        outlines: the file that the mask is drawn from.
        shape: height and width of the mask.
        draw: returns the mask, uint8 [height, width], whose numbers are labels. It raises InputError if it cannot be
            drawn, and several threads may call it at once.
        mask: the mask file that `draw` reads; `outlines` says what its numbers mean. None: there is none.
    """

    name: str
    image: Path
    outlines: Path
    shape: tuple[int, int]
    draw: Callable[[], np.ndarray]
    mask: Path | None = None


class Drawn(NamedTuple):
    """An example made by a function.

    Attributes:
        name: the name of the example, unique in its split.
        draw: returns the image, uint8 [height, width, 3], and the label, uint8 [height, width], or with several tasks
            [height, width, tasks]. It returns the same arrays each time, and several threads may call it at once.
    """

    name: str
    draw: Callable[[], tuple[np.ndarray, np.ndarray]]


Listed = Files | Slice | Outlined | Drawn
"""An example before it is read."""


@dataclass(frozen=True)
class Request:
    """The user's flags about the files of a data set.

    Attributes:
        dir: folder or archive of the data set, which exists and stays unchanged; None if the user gives none.
        cache: the folder for everything that is downloaded or unpacked.
        classes: a file of class names, only for a data set with `takes_classes`.
        void: labels that count as void besides 255, only for a data set with `takes_map`.
        map: what the samples of masks mean, as 255=1, only for a data set with `takes_map`.
        label_suffix: what the stem of a mask has after that of its image, only for a data set with `takes_map`.
        inputs: names of the inputs to use, of those that the data set has.
    """

    dir: Path | None
    cache: Path
    classes: Path | None = None
    void: tuple[int, ...] = ()
    map: tuple[str, ...] = ()
    label_suffix: str = ""
    inputs: tuple[str, ...] = ("colour",)

    def require_dir(self, name: str, layout: str) -> Path:
        """Return `dir`, which the user must give for a data set that is never downloaded.

        Args:
            name: the name of the data set.
            layout: what `dir` has to be, for the message.

        Raises:
            InputError: the user gives no `dir`.
        """
        if self.dir is None:
            raise InputError(f"{name} is not downloaded by this program; give --data.dir, which is {layout}")
        return self.dir


class Labels(NamedTuple):
    """The classes of a task, and what its masks mean.

    Attributes:
        task: name of the task.
        class_names: the name of each label from 0 on.
        label_map: the labels of the samples in masks.
        colours: red, green and blue of each class; None for the colours of PASCAL VOC.
    """

    task: str
    class_names: tuple[str, ...]
    label_map: LabelMap
    colours: tuple[Colour, ...] | None = None

    def look_up(self, mask: np.ndarray, name: str) -> np.ndarray:
        """Return the label of each pixel of a mask, as `LabelMap.look_up` does."""
        return self.label_map.look_up(mask, name, len(self.class_names))


@dataclass(frozen=True)
class Found:
    """The examples and classes of a data set, listed before any image is read.

    Attributes:
        class_names: the name of each label from 0 on.
        splits: the examples of each split, in order. A file that is missing is reported when it is read.
        label_map: the labels of the samples in masks.
        colours: red, green and blue of each class; None for the colours of PASCAL VOC.
        unlabelled: the image files of each further split, in order, which have no labels, as those of test sets whose
            labels are kept by a server. They are segmented, and not prepared.
        inputs: the inputs that the images of the examples have.
        task: name of the task that these classes belong to; empty if it is the only one.
        others: the classes of further tasks. Each example has a mask for each of them.
    """

    class_names: tuple[str, ...]
    splits: Mapping[str, Sequence[Listed]]
    label_map: LabelMap = field(default_factory=LabelMap)
    colours: tuple[Colour, ...] | None = None
    unlabelled: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    inputs: tuple[Input, ...] = (COLOUR,)
    task: str = ""
    others: tuple[Labels, ...] = ()

    @property
    def tasks(self) -> tuple[Labels, ...]:
        """The classes of all tasks."""
        return Labels(self.task, self.class_names, self.label_map, self.colours), *self.others


@dataclass(frozen=True)
class Defaults:
    """Values for training on a data set where neither the preset nor a flag gives one.

    Attributes:
        crop: side of the square training crop, pixels.
        scale: smallest and largest factor of the random zoom.
        steps: optimizer steps.
        batch_size: images per step.
        learning_rate: highest learning rate, for a mean loss and momentum 0.9.
        eval_every: steps between evaluations.
    """

    crop: int
    scale: tuple[float, float]
    steps: int
    batch_size: int
    learning_rate: float
    eval_every: int


@dataclass(frozen=True)
class Submission:
    """The archive of masks that the test server of a data set takes.

    Attributes:
        endings: the endings of its name; .zip is a ZIP archive, and the others are tar archives that gzip compresses.
        folder: the folder of the masks in it, with {competition} and {split} where these stand; empty: no folder.
        competitions: the competitions to choose from, the usual one first; empty: there is only one, without a name.
        has_palette: whether masks are palette PNGs of class indices. Otherwise they are grey PNGs of the numbers that
            the data set's own masks have.
    """

    endings: tuple[str, ...]
    folder: str = ""
    competitions: tuple[str, ...] = ()
    has_palette: bool = False


@dataclass(frozen=True)
class Outline:
    """What the files of a data set hold, as far as it is known without them.

    Attributes:
        num_classes: the number of classes of each task.
        splits: the splits of its own files.
        further_splits: the splits that need further files.
        unlabelled: the splits without labels.
        max_size: the largest height and the largest width of its images; None: they are not known.
    """

    num_classes: tuple[int, ...]
    splits: tuple[str, ...]
    further_splits: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    max_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class DataSource:
    """A data set that can be prepared by its name.

    Attributes:
        name: what the user writes after `--data.name`.
        size: number of images and size of the download, for the table.
        licence: what its images may be used for, and who says so, for the table.
        description: what the data set is and where to get it, for the table.
        defaults: values for training on it.
        find: the function that lists the examples; it raises InputError if they are not there.
        takes_classes: whether the user may say which classes there are.
        takes_map: whether the user may say which files are masks and what their samples mean.
        outline: what its files hold, for the table, and for a dry run without them; None: that is the user's choice.
        submission: what its test server takes; None: there is no test server.
        inputs: the inputs that it has; the first one is used if the user names none.
    """

    name: str
    size: str
    licence: str
    description: str
    defaults: Defaults
    find: Callable[[Request], Found]
    takes_classes: bool = False
    takes_map: bool = False
    outline: Outline | None = None
    submission: Submission | None = None
    inputs: tuple[Input, ...] = (COLOUR,)
