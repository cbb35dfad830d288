"""Prepared data sets, which are read by index.

`name, image, label = prepare("voc2012", dir="VOCdevkit").source("val")[0]`
"""

import dataclasses
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from fcn_jax.config import DataConfig, DataOptions, InputConfig
from fcn_jax.data import labels
from fcn_jax.data.hold_out import set_apart
from fcn_jax.data.inputs import COLOUR, Input, Pixels, decode_image, describe_inputs, get_keys, make_picture
from fcn_jax.data.large_images import lift_limit
from fcn_jax.data.sources import SOURCES, choose_inputs, get_source
from fcn_jax.data.sources.source import Found, Labels, Request
from fcn_jax.data.tasks import Task, count_maps, join_maps, split_maps, unstack_label
from fcn_jax.errors import InputError
from fcn_jax.runtime.files import expand_home, find_cache_folder


class Example(NamedTuple):
    """An image with its label. The arrays are read-only.

    Attributes:
        name: the name of the example, for files the stem of the image file.
        image: the channels of the inputs side by side; of colour red, green and blue, 0..255.
        label: the class of each pixel, 255 for void; of several tasks one beside the other, [height, width, tasks].
    """

    name: str
    image: Pixels
    label: UInt8[np.ndarray, "height width *tasks"]

    @property
    def picture(self) -> UInt8[np.ndarray, "height width 3"]:
        """The image as a picture to look at, RGB; see `make_picture`."""
        return make_picture(self.image)


class Source(Sequence[Example]):
    """The examples of a split in the order of the data set; several threads may read at once."""

    def __init__(
        self,
        records: Sequence[dict[str, Any]],
        folder: Path,
        keys: Sequence[str] = ("image",),
        kept: tuple[int, ...] | None = None,
    ):
        """Take the records of a split, their folder, the keys of the inputs, and the tasks to read; None: all."""
        self._records, self._folder, self._keys, self._kept = records, folder, keys, kept

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: SupportsIndex) -> Example:
        """Read and decode an example; a negative index counts from the end.

        Raises:
            IndexError: the index is outside the split.
            InputError: the prepared data has been damaged.
        """
        place = range(len(self))[index]
        try:
            record = self._records[place]
        except (RuntimeError, OSError) as error:  # RuntimeError is what array_record raises
            raise InputError(
                f"the prepared data in {self._folder} is damaged ({error}); delete that folder, and the same command "
                "builds it again"
            ) from error
        with lift_limit(), Image.open(io.BytesIO(record["label"])) as label:
            image = decode_image([record[key] for key in self._keys], int(record["height"]))
            classes = unstack_label(np.asarray(label), len(image))
        if self._kept is not None:
            maps = split_maps(classes, count_maps(classes))
            classes = join_maps([maps[number] for number in self._kept])
        return Example(record["name"].decode(), image, classes)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A prepared data set.

    Attributes:
        name: the name of the data set.
        tasks: its tasks with their classes, at least one.
        splits: the number of examples of each split.
        max_size: the largest height and the largest width of all images.
        folder: the folder of its records.
        contents: a hash of its names and sizes, the same for a copy in another place.
        pixels: the number of pixels of each label in each split, for each task; label 255 is void.
        left_out: a text that names the examples that were left out, and why; None: there are none.
        unlabelled: the number of images of each further split, which has no labels and is not prepared.
        inputs: the inputs that its images have.
    """

    name: str
    tasks: tuple[Task, ...]
    splits: dict[str, int]
    max_size: tuple[int, int]
    folder: Path
    contents: str
    _open: Callable[[str], Sequence[dict[str, Any]]] = field(repr=False)
    pixels: dict[str, Int64[np.ndarray, "tasks 256"]] = field(default_factory=dict, repr=False)
    left_out: str | None = None
    unlabelled: dict[str, int] = field(default_factory=dict)
    inputs: tuple[Input, ...] = (COLOUR,)
    _kept: tuple[int, ...] | None = field(default=None, repr=False)

    @property
    def input(self) -> InputConfig:
        """The input of a network on its images that starts from no weights."""
        return describe_inputs(self.inputs)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label from 0 on, in the first task."""
        return self.tasks[0].class_names

    @property
    def palette(self) -> UInt8[np.ndarray, "classes 3"]:
        """Red, green and blue of each class of the first task."""
        return self.tasks[0].palette

    def source(self, split: str) -> Source:
        """Open a split.

        Raises:
            InputError: there is no such split, or it has no labels.
        """
        if split in self.unlabelled:
            raise InputError(
                f"{self.name} has no labels for the split {split!r}, so it can be neither trained on nor scored; "
                f"`fcn-jax predict RUN --split {split}` segments its images, and {', '.join(self.splits)} have labels"
            )
        if split not in self.splits:
            raise InputError(f"{self.name} has no split {split!r} here; it has {', '.join(self.splits)}")
        return Source(self._open(split), self.folder, get_keys(self.inputs), self._kept)

    def select(self, tasks: Sequence[Task]) -> "Dataset | None":
        """Return the data set with the labels of these tasks only, found by their classes; None if it lacks one."""
        known = [task.class_names for task in self.tasks]
        if any(task.class_names not in known for task in tasks):
            return None
        places = [known.index(task.class_names) for task in tasks]
        stored = range(len(known)) if self._kept is None else self._kept
        return dataclasses.replace(
            self,
            tasks=tuple(self.tasks[place] for place in places),
            pixels={split: counts[places] for split, counts in self.pixels.items()},
            _kept=tuple(stored[place] for place in places),
        )


def prepare(
    name: str,
    dir: str | Path | None = None,  # noqa: A002
    cache: str | Path | None = None,
    *,
    classes: str | Path | None = None,
    void: Iterable[int] = (),
    map: Iterable[str] = (),  # noqa: A002
    label_suffix: str = "",
    inputs: Iterable[str] = (),
    hold_out: float = 0.0,
    train_split: str = "train",
    skip_bad: bool = False,
) -> Dataset:
    """Check and build a data set, unless it was built from the same files before.

    Args:
        name: one of `fcn_jax.data.sources.SOURCES`.
        dir: folder or archive of its files, which stay unchanged; None for a data set that is drawn or downloaded.
        cache: the folder for prepared data and downloads; `find_cache_folder()` if None.
        classes: a file of class names, with or without colours (`read_classes`), for a data set with `takes_classes`.
        void: only for "folder" and "voc", labels that count as void besides 255.
        map: only for "folder" and "voc", what the samples of masks mean, as "255=1" (`parse_label_map`).
        label_suffix: only for "folder" and "voc", what the stem of a mask has after that of its image.
        inputs: names of the inputs to use, side by side in this order, of those that the data set has; none: its first.
        hold_out: share of `train_split` to set apart as the split `held-out`, 0 to below 1.
        train_split: the split that `hold_out` takes from.
        skip_bad: leave examples out whose files are missing or damaged, and name them, instead of raising an error.

    Returns:
        The data set; `source` reads its examples.

    Raises:
        InputError: an argument does not fit, or something is wrong with the files; the message lists every problem.
    """
    options = DataOptions(
        dir=None if dir is None else expand_home(dir),
        cache=expand_home(cache) if cache else None,
        classes=expand_home(classes) if classes else None,
        label_suffix=label_suffix,
    )
    config = DataConfig(
        name,
        inputs=tuple(inputs),
        void=tuple(int(label) for label in void),
        map=tuple(map),
        train_split=train_split,
        hold_out=hold_out,
    )
    return prepare_configured(config, options, skip_bad)


def prepare_configured(config: DataConfig, options: DataOptions, skip_bad: bool = False) -> Dataset:
    """Prepare the data set of a run, as `prepare` does.

    Args:
        config: what its masks mean, and what is held out.
        options: where its files are.
        skip_bad: leave examples out whose files are missing or damaged.

    Raises:
        InputError: a value does not fit, or something is wrong with the files.
    """
    found = find_configured(config, options)
    if not found.splits:
        raise InputError(
            f"{config.name} has images without labels here, in {', '.join(found.unlabelled)}, and no others; "
            "`fcn-jax predict RUN --split` segments them, and `fcn-jax data list` says where labels belong"
        )
    # TFDS takes a second to import; wrong arguments fail before.
    from fcn_jax.data.builder import SegmentationBuilder, open_records

    builder = SegmentationBuilder(config.name, found, find_cache_folder(options.cache), skip_bad)
    builder.build()
    return Dataset(
        name=config.name,
        tasks=tuple(_colour(given) for given in found.tasks),
        splits={split: builder.info.splits[split].num_examples for split in found.splits},
        max_size=builder.max_size,
        folder=Path(builder.data_dir),
        contents=builder.contents,
        pixels={split: np.array(pixels).reshape(-1, 256) for split, pixels in builder.pixels.items()},
        left_out=builder.describe_left_out(),
        unlabelled={split: len(images) for split, images in found.unlabelled.items()},
        inputs=builder.describe_inputs(config.train_split),
        _open=partial(open_records, builder.data_dir, get_keys(found.inputs)),
    )


def find_configured(config: DataConfig, options: DataOptions) -> Found:
    """List the examples of a run's data set, and its images without labels, without reading them.

    Args:
        config: what its masks mean, and what is held out.
        options: where its files are.

    Raises:
        InputError: a value does not fit, or the data set is not there.
    """
    source = get_source(config.name)
    chosen = choose_inputs(source, config.inputs)
    request = Request(
        dir=None if options.dir is None else expand_home(options.dir),
        cache=find_cache_folder(options.cache),
        classes=expand_home(options.classes) if options.classes else None,
        void=config.void,
        map=config.map,
        label_suffix=options.label_suffix,
        inputs=tuple(given.name for given in chosen),
    )
    if request.classes and not source.takes_classes:
        takers = ", ".join(other.name for other in SOURCES.values() if other.takes_classes)
        raise InputError(f"{source.name} has its own classes; classes is only for {takers}: leave it out")
    if (request.void or request.map or request.label_suffix) and not source.takes_map:
        takers = ", ".join(other.name for other in SOURCES.values() if other.takes_map)
        raise InputError(
            f"{source.name} has its own labels and names of files; void, map and label-suffix are only for {takers}: "
            "leave them out"
        )
    if request.dir is not None and not request.dir.exists():
        raise InputError(f"{request.dir} does not exist; give the folder of {source.name} as --data.dir")
    found = dataclasses.replace(source.find(request), inputs=chosen)
    return set_apart(found, config.train_split, config.hold_out) if config.hold_out else found


def _colour(given: Labels) -> Task:
    """Give the classes of a task colours if they have none."""
    colours = labels.palette(len(given.class_names)) if given.colours is None else np.array(given.colours, np.uint8)
    return Task(given.task, given.class_names, colours, given.label_map)
