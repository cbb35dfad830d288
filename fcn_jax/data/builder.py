"""Prepare a data set: check every image and label once, and write them as records with random access.

TensorFlow Datasets writes the records as array_record files. TensorFlow itself is not needed.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_info import dataset_info_path
from tensorflow_datasets.core.file_adapters import ArrayRecordFileAdapter

from fcn_jax.data.checks import Pair, read_outlined, read_tasks, store_drawn
from fcn_jax.data.entries import Entry, hash_contents, hash_source, list_entries, list_problems
from fcn_jax.data.inputs import Input, Moments, complete_input, get_keys
from fcn_jax.data.large_images import make_room
from fcn_jax.data.mat_files import read_slice
from fcn_jax.data.sources.source import Files, Found, Outlined, Slice
from fcn_jax.data.tasks import join_maps, split_maps
from fcn_jax.errors import InputError
from fcn_jax.runtime.files import lock_file, replace_atomically
from fcn_jax.runtime.progress import show_progress

SHARD = 128 << 20  # bytes of source files in a shard; TFDS keeps one shard in memory while it writes
LISTED = 10  # problems of the files that an error lists; a file has all


@contextlib.contextmanager
def _accept_owners_without_name() -> Iterator[None]:
    """Let TFDS ask for the names of owners of files. In containers users often have a number only."""
    if os.name == "nt":
        yield
        return
    import grp
    import pwd

    def accept(look_up: Callable[[int], Any], field: str) -> Callable[[int], Any]:
        def find(number: int) -> Any:
            try:
                return look_up(number)
            except KeyError:
                return SimpleNamespace(**{field: str(number)})

        return find

    before = pwd.getpwuid, grp.getgrgid
    pwd.getpwuid, grp.getgrgid = accept(before[0], "pw_name"), accept(before[1], "gr_name")
    try:
        yield
    finally:
        pwd.getpwuid, grp.getgrgid = before


class _LocalInfo(tfds.core.DatasetInfo):
    def initialize_from_bucket(self):
        """Do nothing. The original asks the network for a copy in a public bucket, and leaves temporary folders."""


class SegmentationBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Builder of any data set from the list of its examples.

    The examples keep their order. A split is read and written shard by shard: TFDS's `GeneratorBasedBuilder` holds a
    whole split in memory, and above 1 GB it needs TensorFlow.

    Attributes:
        name: the name of the data set.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, name: str, found: Found, cache: Path, skip_bad: bool = False):
        """Make a builder that writes to `<cache>/<name>/<hash of the source>`.

        Args:
            name: the name of the data set.
            found: its classes and examples.
            cache: the folder of all prepared data.
            skip_bad: leave examples out whose files are missing or damaged, instead of raising an error.
        """
        # TFDS takes the name from the class, and all data sets share this class.
        self.name = name  # pyright: ignore[reportAttributeAccessIssue]
        self._found = found
        self._skip_bad = skip_bad
        self._entries = list_entries(found)
        self._folder = Path(cache) / name / hash_source(found, self._entries)
        self._advance: Callable[[int], object] = lambda more: None
        _remove_torn(self._folder / name / str(self.VERSION))
        super().__init__(data_dir=self._folder, file_format="array_record")

    def build(self) -> None:
        """Build the data set unless it is built. Of several processes one builds, and the others wait.

        Raises:
            InputError: the source has problems, which the message lists, or the cache cannot be written.
        """
        if not self._is_built():
            self._write()
        if self._problems and not self._skip_bad:  # it was built by a call that left them out
            raise InputError(f"{self._describe(self._problems)}{self._describe_mended()}")

    def _write(self) -> None:
        with lock_file(self._folder / "lock") as locked:
            if self._is_built():
                return
            try:
                if locked:
                    for leftover in (self._folder / self.name).glob("incomplete.*"):  # of a killed process
                        shutil.rmtree(leftover)
                shutil.rmtree(self.data_dir, ignore_errors=True)
                progress = show_progress(f"preparing {self.name}", len(self._entries), "images")
                with progress as self._advance, _accept_owners_without_name():
                    self.download_and_prepare()
                if not all(map(sum, self.pixels.values())):
                    shutil.rmtree(self.data_dir)
                    raise self._describe(self._problems)
            except (OSError, RuntimeError) as error:  # RuntimeError is what array_record raises
                if not self._is_built():  # without file locks another process may have built it
                    raise InputError(
                        f"{self._folder} cannot be written ({error}); make room, or give another --data.cache"
                    ) from error

    @property
    def max_size(self) -> tuple[int, int]:
        """Largest height and largest width of all images."""
        height, width = self._metadata["max_size"]
        return height, width

    @property
    def _keys(self) -> tuple[str, ...]:
        return get_keys(self._found.inputs)

    def describe_inputs(self, split: str) -> tuple[Input, ...]:
        """Describe the inputs of the images. What they leave open is measured on a split, or on the first one."""
        inputs = self._found.inputs
        if all(given.mean for given in inputs):
            return inputs
        measured = self._metadata["moments"]
        moments = Moments(*(measured.get(split) or next(iter(measured.values()))))
        return tuple(given if given.mean else complete_input(given, moments) for given in inputs)

    @property
    def pixels(self) -> dict[str, list[int]]:
        """Number of pixels of each label, 0 to 255, in each split; those of several tasks follow each other."""
        return self._metadata["pixels"]

    def describe_left_out(self) -> str | None:
        """Describe the examples that were left out; None: there are none."""
        if not self._problems:
            return None
        count = len(self._metadata["left_out"])
        what = f"{count} of {len(self._entries)} examples of {self.name} {'is' if count == 1 else 'are'} left out"
        return f"{what}:{self._list(self._problems)}{self._describe_mended()}"

    def _describe_mended(self) -> str:
        """Say how to get examples that were left out and can be read now, as after a fault of a disk; "" without."""
        numbers = map(int, self._metadata["left_out"])
        entries = [entry for entry in map(self._entries.__getitem__, numbers) if entry.is_complete]
        with ThreadPoolExecutor() as pool:
            count = sum(isinstance(found, Pair) for found in pool.map(self._read, entries))
        if not count:
            return ""
        return (
            f"\n{count} of them can be read now; delete {self._folder} to have the data prepared anew for new runs; a "
            "run that was started without them cannot go on with them"
        )

    @property
    def contents(self) -> str:
        """A hash of names and sizes in all splits, without what was left out. A copy in another place has the same."""
        numbers = self._metadata["left_out"]
        return hash_contents(self._found, [entry for i, entry in enumerate(self._entries) if str(i) not in numbers])

    @property
    def _problems(self) -> list[str]:
        """What is wrong with the examples that were left out."""
        return [line for lines in self._metadata["left_out"].values() for line in lines]

    @property
    def _metadata(self) -> dict:
        metadata = self.info.metadata
        assert isinstance(metadata, dict)
        return metadata

    def _is_built(self) -> bool:
        """Return whether the data set is built and all its files are there and complete."""
        if not dataset_info_path(self.data_path).exists():
            return False
        self.info.read_from_directory(self.data_dir)
        try:
            return (
                isinstance(self._metadata["left_out"], dict)
                and (all(given.mean for given in self._found.inputs) or self._metadata["moments"])
                and all(self.max_size)
                and all(map(sum, self.pixels.values()))
                and all(
                    ArrayRecordFileAdapter.num_examples(path) == length
                    for split in self.info.splits.values()
                    for path, length in zip(split.filepaths, split.shard_lengths, strict=True)
                )
            )
        except (OSError, RuntimeError, ValueError, KeyError):  # KeyError: nothing was stored, or by an earlier release
            return False

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "name": tfds.features.Text(),
            **{key: tfds.features.Image(shape=(None, None, 3)) for key in self._keys},  # no shape that TFDS looks at
            "label": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            "height": np.int32,
            "width": np.int32,
        }
        return _LocalInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    @cached_property
    def info(self) -> tfds.core.DatasetInfo:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the records are. The original keeps every builder, and so all that it has read, to the process' end."""
        return self._info()

    def _make_download_manager(self, **_):
        return SimpleNamespace(downloaded_size=0)  # TFDS downloads nothing here, and its own manager makes folders

    def _log_download_bytes(self):
        """Do nothing. The original prints to the standard output."""

    def _log_download_done(self):
        """Do nothing. The original prints to the standard output."""

    def _shard_iterators_per_split(self, dl_manager) -> dict[str, list[Callable[[], Iterator]]]:
        checked = [entry for entry in self._entries if entry.is_complete or not self._skip_bad]
        if list_problems(checked, self._found.splits):
            raise self._collect_problems(0)
        self._metadata["left_out"] = {}
        self._metadata["max_size"] = [0, 0]
        self._metadata["pixels"] = {split: [0] * 256 * len(self._found.tasks) for split in self._found.splits}
        self._metadata["moments"] = {}
        starts, filled = [], SHARD
        for i, entry in enumerate(self._entries):
            if filled >= SHARD or entry.split != self._entries[i - 1].split:
                starts.append(i)
                filled = 0
            filled += entry.size
        shards = {split: [] for split in self._found.splits}
        for start, stop in zip(starts, [*starts[1:], len(self._entries)], strict=True):
            shards[self._entries[start].split].append(partial(self._read_shard, start, stop))
        return shards

    def _read_shard(self, start: int, stop: int) -> Iterator[tuple[int, dict]]:
        entries = self._entries[start:stop]
        with ThreadPoolExecutor() as pool:
            for i, (entry, pair) in enumerate(zip(entries, pool.map(self._read, entries), strict=True), start):
                if isinstance(pair, list) and not self._skip_bad:
                    raise self._collect_problems(i + 1, pair)
                self._advance(1)
                if isinstance(pair, Pair) and (problem := self._add_moments(entry, pair)):
                    raise self._describe([problem])  # also if bad examples are left out: the odd one may be the first
                if isinstance(pair, list):
                    self._metadata["left_out"][str(i)] = pair
                    continue
                self._metadata["max_size"] = np.maximum(self.max_size, pair.shape).tolist()
                self.pixels[entry.split] = np.add(self.pixels[entry.split], pair.counts).tolist()
                height, width = pair.shape
                record = {"label": pair.label, "height": height, "width": width}
                yield i, {"name": entry.example.name, **record, **dict(zip(self._keys, pair.images, strict=True))}

    def _add_moments(self, entry: Entry, pair: Pair) -> str | None:
        """Add the sums of an example to those of its split; return a text if its channels are not those of others."""
        own, measured, split = pair.moments, self._metadata["moments"], entry.split
        if own is None:
            return None
        for first in (Moments(*values) for values in measured.values()):
            if (first.dtype, len(first.sums)) != (own.dtype, len(own.sums)):
                return (
                    f"{split}: {entry.example.name} has {len(own.sums)} channels of {own.dtype}, and images before it "
                    f"have {len(first.sums)} of {first.dtype}; all must have the same"
                )
        measured[split] = list(Moments(*measured[split]).add(own) if split in measured else own)
        return None

    def _read(self, entry: Entry) -> Pair | list[str]:
        """Read and check an example, or list what is wrong with it."""
        example, tasks = entry.example, self._found.tasks
        try:
            if isinstance(example, Files):
                files, masks = (example.image, *example.others), (example.mask, *example.other_masks)
                with make_room(*files, *masks):
                    return read_tasks(files, masks, tasks, example.variable, self._found.inputs)
            if isinstance(example, Outlined):
                with make_room(example.image):
                    return read_outlined(example)
            if isinstance(example, Slice):
                images, mask = read_slice(example.file, example.index, example.mask, example.arrays)
            else:
                image, mask = example.draw()
                images = [image]
            maps = zip(tasks, split_maps(mask, len(tasks)), strict=True)
            return store_drawn(images, join_maps([task.look_up(drawn, example.name) for task, drawn in maps]))
        except InputError as error:
            return [f"{entry.split}: {line}" for line in str(error).splitlines()]

    def _collect_problems(self, start: int, first: Sequence[str] = ()) -> InputError:
        """Read on to the end, and make one error of everything that is wrong.

        Args:
            start: the number of the example to begin with.
            first: what is wrong with the one before it. Reading it again might succeed, as on a disk that fails.
        """
        problems = [*list_problems(self._entries, self._found.splits), *first]
        readable = [entry for entry in self._entries[start:] if entry.is_complete]
        with ThreadPoolExecutor() as pool:
            for pair in pool.map(self._read, readable):
                problems += pair if isinstance(pair, list) else []
        return self._describe(problems)

    def _describe(self, problems: Sequence[str]) -> InputError:
        things = "1 thing is" if len(problems) == 1 else f"{len(problems)} things are"
        return InputError(
            f"{things} wrong with the {len(self._entries)} examples of {self.name}:{self._list(problems)}"
        )

    def _list(self, problems: Sequence[str]) -> str:
        """List the first problems, a line for each, and write all to a file if there are more."""
        listed = "".join(f"\n  {problem}" for problem in problems[:LISTED])
        if len(problems) > LISTED:
            listed += f"\nand {len(problems) - LISTED} more"
            file = self._folder / "problems.txt"
            with contextlib.suppress(OSError):  # prepared data can be used where the cache cannot be written
                with replace_atomically(file, sync=False, shared=True) as temporary:
                    temporary.write_text("\n".join(problems) + "\n", encoding="utf-8")
                listed += f"; all are listed in {file}"
        return listed


def open_records(folder: str | Path, keys: Sequence[str], split: str) -> Sequence[dict[str, Any]]:
    """Open a split: a sequence of records with `name`, and `label` and the inputs as the bytes of image files.

    Args:
        folder: the folder of the records, `data_dir` of the builder. The builder is not needed any more, nor is what it
            has read of the source, which may be gigabytes of outlines.
        keys: names of the inputs' values in a record.
        split: the split.
    """
    encoded = {key: tfds.decode.SkipDecoding() for key in (*keys, "label")}  # TFDS would decode with OpenCV
    return tfds.builder_from_directory(folder).as_data_source(split, decoders=encoded)  # pyright: ignore[reportCallIssue]


def _remove_torn(folder: Path) -> None:
    """Remove prepared data whose description a crash of the machine has damaged. TFDS fails on such data."""
    with contextlib.suppress(OSError):
        try:
            json.loads(dataset_info_path(folder).read_text())
        except ValueError:
            shutil.rmtree(folder)
