"""The weights that a new network starts from: a file, the official ImageNet ones, or another run."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from fcn_jax.config import InputConfig, ModelConfig
from fcn_jax.data.inputs import COLOUR
from fcn_jax.data.tasks import Task, count_classes, name_scores
from fcn_jax.errors import InputError
from fcn_jax.models.build import build, shape_variables
from fcn_jax.runs.mirror import copy_for_reading
from fcn_jax.runs.restore import make_weights, restore_variables
from fcn_jax.runs.run_dir import open_run
from fcn_jax.runtime.bucket import find_url
from fcn_jax.runtime.files import find_cache_folder
from fcn_jax.weights.imagenet import fetch_weights
from fcn_jax.weights.merge import Match, match_weights
from fcn_jax.weights.read import read_weights
from fcn_jax.weights.streams import copy_to_streams, join_streams
from fcn_jax.weights.upsampling import find_learned_kernels
from fcn_jax.weights.weights import Weights


def read_start(model: ModelConfig, cache: Path | None, inputs: Sequence[str] = ("colour",)) -> Weights | None:
    """Read the weights that a new network starts from, or return None if it starts from scratch.

    Args:
        model: configuration that names the weights.
        cache: folder for downloads; None: `find_cache_folder()`.
        inputs: names of the data set's inputs that the network takes.

    Raises:
        InputError: the weights cannot be read, or those of the streams do not fit together.
    """
    if model.init_streams:
        return join_streams([read_file_or_run(place) for place in model.init_streams], inputs)
    if model.init_from is not None:
        return read_file_or_run(model.init_from)
    if model.weights == "imagenet":
        return read_weights(fetch_weights(model.backbone, find_cache_folder(cache)))
    return None if model.weights is None else read_weights(Path(model.weights))


def is_at_hand(model: ModelConfig) -> bool:
    """Return whether the weights that a new network starts from are there: in files, not to be downloaded."""
    if model.start_places:
        return all(find_url(place) or place.exists() for place in model.start_places)
    return model.weights is None or (model.weights != "imagenet" and Path(model.weights).exists())


def read_file_or_run(place: Path) -> Weights:
    """Read the weights in a file, or those of the best checkpoint of a run directory, which may be in a bucket.

    Raises:
        InputError: the file, the run directory or its checkpoint cannot be read.
    """
    url = find_url(place)
    if url is None and not place.is_dir():
        return read_weights(place)
    with copy_for_reading(place) as folder:
        run = open_run(folder)
        variables, step = restore_variables(run, build(run.config.model, *count_classes(run.tasks)))
    return make_weights(run, variables, step, url or place)


def choose_input(
    given: InputConfig | None,
    weights: Weights | None,
    allow: tuple[str, ...] = (),
    data: InputConfig = InputConfig(),  # noqa: B008
) -> InputConfig:
    """Choose the input of the network: that of the flags if they give one, else that of its weights, else the data's.

    Weights say how the inputs look that they were trained with. Others of the data, such as depth beside colour, have
    their own mean, and the deviation that makes them as large as those.

    Args:
        given: the input that the preset and the flags give; None: they give none.
        weights: the weights to start from; None: the network starts from scratch.
        allow: beginnings of paths that may differ from the weights, as "input/mean". The reference trains VGG16 further
            with the mean of NYUDv2.
        data: the default input of the data, with every value set.

    Raises:
        InputError: the flags do not fit the data, or differ from the input of the weights in what `allow` does not
            name.
    """
    known = None if weights is None else weights.input
    if given is None:
        return data if known is None else _take_known(data, known, _get_scale(known))
    if len(given.mean) != data.num_channels:
        listing = ", ".join(f"{name} {count}" for name, count in data.channels)
        raise InputError(
            f"model.input.mean and model.input.std have {len(given.mean)} values, and the data has {data.num_channels} "
            f"channels: {listing}; give a value for each"
        )
    for name in ("channels", "dtype"):  # the defaults stand for what the data has
        if getattr(given, name) not in (getattr(InputConfig(), name), getattr(data, name)):
            raise InputError(
                f"model.input.{name} is {getattr(given, name)}, and the data has {getattr(data, name)}; leave "
                f"--model.input.{name} out, or give --data.inputs"
            )
    given = dataclasses.replace(given, channels=data.channels, dtype=data.dtype)
    if weights is None or known is None:
        return given
    # What the weights do not know is free, so only what they know of the given input is compared.
    expected = dataclasses.asdict(_take_known(given, known))
    pairs = [(name, expected[name], new) for name, new in dataclasses.asdict(given).items()]
    refused = [(name, old, new) for name, old, new in pairs if old != new and not f"input/{name}".startswith(allow)]
    if not refused:
        return given
    listing = "\n  ".join(f"model.input.{name}: {old} -> {new}" for name, old, new in refused)
    names = " ".join(f"input/{name}" for name, _, _ in refused)
    raise InputError(
        f"{weights.origin} was trained with another input than the flags say:\n  {listing}\n"
        "weights work only with the input they were trained with; leave --model.input out, or train them further with "
        f"the other one: --model.allow {names}"
    )


def _take_known(given: InputConfig, known: InputConfig, scale: float = 1.0) -> InputConfig:
    """Return an input with what the weights say of the inputs that they were trained with.

    Args:
        given: an input.
        known: the input of the weights.
        scale: factor on the deviation of what the weights do not know.
    """
    means, stds, log = list(given.mean), [scale * value for value in given.std], set(given.log)
    for channel, there in enumerate(_list_known(given, known)):
        if there is not None:
            means[channel], stds[channel] = known.mean[there], known.std[there]
            log = log - {channel} | ({channel} if there in known.log else set())
    order = known.order if known.colour and given.colour else given.order
    return dataclasses.replace(given, order=order, mean=tuple(means), std=tuple(stds), log=tuple(sorted(log)))


def _get_scale(known: InputConfig) -> float:
    """Return how large the deviations of weights are: 1 if their colours have torchvision's, 1/57.6 with Caffe's."""
    return mean(known.std[known.colour]) / mean(COLOUR.std or ()) if known.colour else 1.0


def _list_known(data: InputConfig, known: InputConfig) -> list[int | None]:
    """List for each channel of the data its number in the weights' input; None if that does not have the input."""
    firsts = {}
    for name, count in known.channels:
        firsts[name, count] = sum(before for _, before in known.channels[: len(firsts)])
    places: list[int | None] = []
    for name, count in data.channels:
        first = firsts.get((name, count))
        places += [None if first is None else first + index for index in range(count)]
    return places


def match_start(model: ModelConfig, shapes: dict[str, Any], weights: Weights, tasks: Sequence[Task]) -> Match:
    """Find the weights that each variable of a new network starts from.

    Args:
        model: the configuration of the network.
        shapes: shapes of the network's variables.
        weights: from a file or a run.
        tasks: the tasks of the data.

    Raises:
        InputError: the weights do not fit (`match_weights`), or fixed upsampling would leave out learned kernels.
    """
    given = model.input_or_default
    if model.fusion == "late" and not any(path.split("/")[1] == given.channels[0][0] for path in weights.arrays):
        weights = copy_to_streams(weights, [name for name, _ in given.channels])
    match = match_weights(shapes, weights, name_scores(tasks), model.allow, given)
    if model.upsampling == "fixed" and any("/upscore" in path for path in match.unused):
        _require_bilinear(model, weights, tasks)
    return match


def _require_bilinear(model: ModelConfig, weights: Weights, tasks: Sequence[Task]) -> None:
    """Check that the kernels which learned upsampling would take are bilinear, so that fixed upsampling equals them."""
    learned = build(dataclasses.replace(model, upsampling="learned"), *count_classes(tasks))
    given = model.input_or_default
    shapes = shape_variables(learned, given.num_channels)
    differences = find_learned_kernels(match_weights(shapes, weights, name_scores(tasks), model.allow, given))
    refused = {
        path.split("/")[1]: difference
        for path, difference in differences.items()
        if not path.split("/", 1)[1].startswith(model.allow)
    }
    if refused:
        listing = "\n  ".join(f"{layer} differs from bilinear by up to {by:.2g}" for layer, by in refused.items())
        raise InputError(
            f"{weights.origin} has learned upsampling kernels, and --model.upsampling fixed has no place for them:\n"
            f"  {listing}\n(numbers of bilinear kernels are 0 to 1); take them with --model.upsampling learned, or "
            f"leave them out with --model.allow {' '.join(refused)}"
        )
