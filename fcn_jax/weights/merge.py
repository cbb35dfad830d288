"""The match of a file's weights with a network's variables, with an account of every array of both."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float

from fcn_jax.config import InputConfig
from fcn_jax.errors import InputError
from fcn_jax.weights.classes import count_class_axes, take_classes
from fcn_jax.weights.describe import count_by_module
from fcn_jax.weights.weights import Weights

SHOWN = 12  # most problems that an error lists
# Layers of all frameworks that an FCN has no place for: a classifier's last ones, heads of other segmentation networks,
# losses, side outputs, and OpenMMLab's averages of all parameters (ema_backbone_conv1_weight). Anything else that is
# unknown here may be part of what the network computes.
LEFTOVER = re.compile(
    r"([a-z_]+\.)*(fc|(aux_)?classifier|aux\d|((decode|auxiliary|segmentation|classification)_)?head|decoder|pre_logits"
    r"|criterion)\.|ema_|fc8|(prob|predictions|data|label|loss\d?|dsn\d|fuse)\b"
)


class Match(NamedTuple):
    """What becomes of every array of a file of weights and of a network.

    Attributes:
        weights: the content of the file.
        loaded: paths of arrays that are taken as they are.
        by_class: paths of scores that are taken class by class, because the network has other classes than the file.
        adapted: paths of first kernels that are taken for images with other channels than the file's (`adapt_kernel`).
        new: paths of arrays that stay as in a new network, because the file lacks them or has other classes.
        unused: paths of arrays of the file that the network does not have.
        classes: for each class in both: its index in the network, its index in the file, and its name.
    """

    weights: Weights
    loaded: tuple[str, ...]
    by_class: tuple[str, ...]
    adapted: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]
    classes: tuple[tuple[int, int, str], ...]

    def merge_into(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the variables of a new network with the weights in their places, as NumPy arrays."""
        flat: dict[str, Any] = cast(Any, flatten_dict(variables, sep="/"))
        pairs = [(new, old) for new, old, _ in self.classes]
        for path in (*self.loaded, *self.adapted):
            flat[path] = self.weights.arrays[path]
        for path in self.by_class:
            flat[path] = take_classes(flat[path], self.weights.arrays[path], count_class_axes(path), pairs)
        return unflatten_dict(flat, sep="/")

    def __str__(self) -> str:
        """Format the match as a short table."""
        known = ", ".join(name for _, _, name in self.classes) or "none"
        rows = [
            ("loaded", self.loaded, ""),
            ("by class", self.by_class, f" (known from before: {known}; the others start at zero)"),
            ("adapted", self.adapted, " (to the channels of the images: new ones start from the mean over the file's)"),
            ("new", self.new, ""),
            ("unused", (*self.unused, *self.weights.unknown), ""),
        ]
        lines = [f"  {name:8}  {len(paths):>4}  {count_by_module(paths)}{note}" for name, paths, note in rows if paths]
        return "\n".join([f"weights of {self.weights.origin}:", *lines])


def match_weights(
    variables: dict[str, Any],
    weights: Weights,
    class_names: Sequence[str],
    allow: Iterable[str] = (),
    input: InputConfig = InputConfig(),  # noqa: A002, B008
) -> Match:
    """Find the weights that each of a network's variables starts from.

    The whole backbone must come from the file. Scores and upsampling may be new. They start at zero and as bilinear
    filters, so a finer net first predicts what the coarser one does, if its last upsampling is bilinear.

    If the file has other classes, scores are taken by the names of the classes, and new classes start at zero. (The
    reference's `expand_score` in surgery.py takes the first classes instead.) If the file does not name its classes and
    their number differs, all scores start at zero.

    Args:
        variables: the variables of a new network, or their shapes.
        weights: from a file or a run.
        class_names: names of the classes of the data.
        allow: beginnings of paths, such as "backbone/fc", of arrays that may be missing, left over or of another shape.
            They also match names of the file's unknown tensors, and paths within a stream of late fusion.
        input: input of the network. A kernel of a backbone's first layer may have other channels of it than the file's.

    Raises:
        InputError: an array is missing, left over or of another shape, and neither the rules above nor `allow` permit
            it; or an array holds values that are not finite. The text lists the first `SHOWN` problems.
    """
    own: dict[str, Any] = cast(Any, flatten_dict(variables, sep="/"))
    names = [name for name, _ in input.channels]
    own_names = [*allow]
    allowed = (*own_names, *(f"{stream}/{name}" for stream in names for name in own_names))
    other_classes = weights.class_names not in (None, tuple(class_names))
    loaded, by_class, adapted, new, problems = [], [], {}, [], []
    for path, variable in own.items():
        array, axes = weights.arrays.get(path), count_class_axes(path)
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
        elif (kernel := _adapt_first(path, array, variable.shape, weights.input or InputConfig(), input)) is not None:
            adapted[path] = kernel
        else:
            new.append(path)
            if not (axes or _is_allowed(path, allowed)):
                problems.append(f"{path} is {array.shape} in the file and {variable.shape} in the network")
    strange = [name for name in weights.unknown if not (LEFTOVER.match(name) or name.startswith(allowed))]
    problems += [f"{name} of the file is not known here" for name in strange]
    unused = [path for path in weights.arrays if path not in own]
    problems += [f"{path} is not in the network" for path in unused if not _may_differ(path, allowed)]
    if problems:
        more = len(problems) - SHOWN
        listing = "\n  ".join(problems[:SHOWN] + [f"and {more} more"] * (more > 0))
        example = " ".join(strange[:2]) or "backbone/fc6 backbone/fc7"
        raise InputError(
            f"{weights.origin} does not fit the network:\n  {listing}\n"
            "give the --model.backbone of these weights, with its --model.fc-features and the like; or name the "
            f"beginnings of what may be left out or start as in a new network: --model.allow {example}"
        )
    old = list(weights.class_names or ())
    classes = [(index, old.index(name), name) for index, name in enumerate(class_names) if name in old]
    taken = weights._replace(arrays={**weights.arrays, **adapted})
    return Match(taken, tuple(loaded), tuple(by_class), tuple(adapted), tuple(new), tuple(unused), tuple(classes))


Channels = Sequence[tuple[str, int]]


def adapt_kernel(
    kernel: Float[np.ndarray, "h w _ out"], old: Channels, new: Channels
) -> Float[np.ndarray, "h w _ out"]:
    """Adapt the kernel of a first layer to images with other inputs.

    An input that both have keeps its weights. Each channel of another one starts from the mean over all channels of the
    file, as depth does in the reference's nyud-fcn32s-color-d/solve.py.

    Args:
        kernel: the kernel of the file.
        old: name and number of channels of each input of the file; they add up to the kernel's.
        new: the same of the network.
    """
    ends = np.cumsum([count for _, count in old])
    parts = dict(zip(old, np.split(kernel, ends[:-1], axis=2), strict=True))
    average = kernel.mean(axis=2, keepdims=True)
    return np.concatenate([parts.get((name, n), np.repeat(average, n, axis=2)) for name, n in new], axis=2)


def _adapt_first(
    path: str, array: np.ndarray, shape: tuple[int, ...], old: InputConfig, new: InputConfig
) -> np.ndarray | None:
    """Adapt the kernel of a backbone's first layer; return None if the array is something else."""
    streams = {name: ((name, count),) for name, count in new.channels}
    own: Channels = streams.get(path.split("/")[1], new.channels)
    rest = (0, 1, 3)
    if array.ndim != 4 or len(shape) != 4 or any(array.shape[axis] != shape[axis] for axis in rest):
        return None
    there: Channels = old.channels if old.num_channels == array.shape[2] else (("", array.shape[2]),)
    is_first = shape[2] == sum(count for _, count in own) and array.shape[2] in (3, old.num_channels)
    return adapt_kernel(array, there, own) if is_first and not _may_differ(path, ()) else None


def _may_differ(path: str, allowed: tuple[str, ...]) -> bool:
    """Return whether only one side may have an array: it is outside the backbone, or the user allows it."""
    return "backbone" not in path.split("/")[1:3] or _is_allowed(path, allowed)


def _is_allowed(path: str, allowed: tuple[str, ...]) -> bool:
    """Return whether a path, without its collection, begins with one of the allowed beginnings."""
    return path.split("/", 1)[1].startswith(allowed)
