"""Weights into a network's variables, with an account of every array of both."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from flax import traverse_util

from fcn_jax.errors import InputError
from fcn_jax.weights.weights import Weights

SHOWN = 12  # lines of an error
# Layers that an FCN has no place for, of all frameworks: a classifier's last ones, losses, side outputs. Anything else
# that stands for nothing here may be part of what the network computes.
LEFTOVER = re.compile(
    r"([a-z_]+\.)?(fc|classifier|aux_classifier|aux\d|head|pre_logits)\.|"
    r"fc8|(prob|predictions|data|label|loss\d?|dsn\d|fuse)\b"
)


class Match(NamedTuple):
    """What becomes of every array of a file of weights and of a network.

    Attributes:
        weights: the file's.
        loaded: paths of arrays that are taken as they are.
        by_class: of scores taken class by class, as the network has other classes than the file.
        new: of arrays that the file has not, or not for these classes: they stay as in a new network.
        unused: of arrays of the file that the network has not.
        classes: for each class that both have its index in the network, its index in the file, and its name.
    """

    weights: Weights
    loaded: tuple[str, ...]
    by_class: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]
    classes: tuple[tuple[int, int, str], ...]

    def merge_into(self, variables: dict[str, Any]) -> dict[str, Any]:
        """The variables of a new network with the weights in their places, as NumPy arrays."""
        flat = flatten_paths(variables)
        for path in self.loaded:
            flat[path] = self.weights.arrays[path]
        for path in self.by_class:
            flat[path] = self._by_class(flat[path], self.weights.arrays[path], class_axes(path))
        return traverse_util.unflatten_dict(flat, sep="/")

    def _by_class(self, start: Any, array: np.ndarray, axes: int) -> np.ndarray:
        """What a new network starts with, and in it, along its last one or two axes, the classes that are known."""
        new, old = np.array([(new, old) for new, old, _ in self.classes], int).reshape(-1, 2).T
        result = np.array(start.addressable_data(0) if isinstance(start, jax.Array) else start)
        if axes == 1:
            result[..., new] = array[..., old]
        else:
            result[..., new[:, None], new[None, :]] = array[..., old[:, None], old[None, :]]
        return result

    def __str__(self) -> str:
        """A short table."""
        known = ", ".join(name for _, _, name in self.classes) or "none"
        rows = [
            ("loaded", self.loaded, ""),
            ("by class", self.by_class, f" (known from before: {known}; the others start at zero)"),
            ("new", self.new, ""),
            ("unused", (*self.unused, *self.weights.unknown), ""),
        ]
        lines = [f"  {name:8}  {len(paths):>4}  {_modules(paths)}{note}" for name, paths, note in rows if paths]
        return "\n".join([f"weights of {self.weights.origin}:", *lines])


def match_weights(
    variables: dict[str, Any], weights: Weights, class_names: Sequence[str], allow: Iterable[str] = ()
) -> Match:
    """Finds for each of a network's variables the weights it starts from.

    The backbone must come from the file as a whole. Scores and upsampling may be new: they start at zero and
    bilinearly, so that a finer net first predicts what the coarser one does, if its last upsampling is bilinear; what
    the file has of others is not used.
    Where the file has other classes, scores are taken by the names of the classes, and new classes start at zero
    (compare `expand_score` of the reference's surgery.py, where the old classes are the first ones); where it does not
    name its classes and has another number of them, the scores start anew.

    Args:
        variables: of a new network, or their shapes.
        weights: from a file or a run.
        class_names: of the data.
        allow: beginnings of paths, "backbone/fc", of what may be missing, left over or of another shape; or of the
            file's own names, of what is not known here.

    Raises:
        InputError: something that neither the rules above nor `allow` expect, all of it named.
    """
    own = flatten_paths(variables)
    allowed = tuple(allow)
    other_classes = weights.class_names not in (None, tuple(class_names))
    loaded, by_class, new, problems = [], [], [], []
    for path, variable in own.items():
        array, axes = weights.arrays.get(path), class_axes(path)
        if array is None:
            new.append(path)
            if not _may_differ(path, allowed):
                problems.append(f"{path} is not in the file")
        elif not np.isfinite(array).all():
            problems.append(f"{path} holds values in the file that are not finite")
        elif axes and other_classes and array.shape[:-axes] == variable.shape[:-axes]:
            by_class.append(path)
        elif array.shape == variable.shape:
            loaded.append(path)
        else:
            new.append(path)
            if not (axes or _begins(path, allowed)):
                problems.append(f"{path} is {array.shape} in the file and {variable.shape} in the network")
    strange = [name for name in weights.unknown if not (LEFTOVER.match(name) or name.startswith(allowed))]
    problems += [f"{name} of the file is nothing that is known here" for name in strange]
    unused = [path for path in weights.arrays if path not in own]
    problems += [f"{path} is not in the network" for path in unused if not _may_differ(path, allowed)]
    if problems:
        more = len(problems) - SHOWN
        listing = "\n  ".join(problems[:SHOWN] + [f"and {more} more"] * (more > 0))
        raise InputError(
            f"{weights.origin} does not fit the network:\n  {listing}\n"
            "give the --model.backbone it is of, with its --model.fc-features and the like; or name what may differ "
            "and start as in a new network: --model.allow backbone/fc6 backbone/fc7"
        )
    old = list(weights.class_names or ())
    classes = [(index, old.index(name), name) for index, name in enumerate(class_names) if name in old]
    return Match(weights, tuple(loaded), tuple(by_class), tuple(new), tuple(unused), tuple(classes))


def flatten_paths(variables: dict[str, Any]) -> dict[str, Any]:
    """The arrays by path, "params/backbone/conv1/kernel"."""
    return cast(dict[str, Any], traverse_util.flatten_dict(variables, sep="/"))


def class_axes(path: str) -> int:
    """How many axes of an array, from the last on, run over classes: one of scores, two of their upsampling."""
    module = path.split("/")[-2]
    return 2 if module.startswith("upscore") else 1 if module.startswith("score") else 0


def name_classes(weights: Weights, class_names: Sequence[str]) -> Weights:
    """The same weights, with the names of the classes that their scores are of.

    Raises:
        InputError: their scores are of another number of classes.
    """
    for path, array in weights.arrays.items():
        if class_axes(path) and array.shape[-1] != len(class_names):
            raise InputError(
                f"{path} of {weights.origin} has {array.shape[-1]} classes, and {len(class_names)} names are given; "
                "give one for each, in order"
            )
    return weights._replace(class_names=tuple(class_names))


def describe_weights(weights: Weights) -> str:
    """What a file of weights holds, in a few lines."""
    size = sum(array.size for array in weights.arrays.values())
    lines = [
        weights.origin,
        f"  {len(weights.arrays)} arrays, {size:,} numbers: {_modules(weights.arrays)}",
        f"  input: {weights.input or 'not told by the file, ImageNet RGB is taken'}",
    ]
    if weights.class_names:
        lines.append(f"  classes: {', '.join(weights.class_names)}")
    if weights.unknown:
        lines.append(f"  not used: {', '.join(weights.unknown)}")
    return "\n".join(lines)


def _may_differ(path: str, allowed: tuple[str, ...]) -> bool:
    """Whether an array may be on one side alone: what is not the backbone, and what the user allows."""
    return path.split("/")[1] != "backbone" or _begins(path, allowed)


def _begins(path: str, beginnings: tuple[str, ...]) -> bool:
    """Without the collection, which is no matter of a user's."""
    return path.split("/", 1)[1].startswith(beginnings)


def _modules(paths: Iterable[str]) -> str:
    """How many arrays of which top modules: "backbone 180, score_fr 2"."""
    counts = Counter(path.split("/")[1] if "/" in path else path for path in paths)
    parts = [name if count == 1 else f"{name} {count}" for name, count in counts.items()]
    return ", ".join(parts[:8] + ["..."] * (len(parts) > 8))
