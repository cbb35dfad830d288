"""Weights of late fusion, from those of its networks; see `fcn_jax.models.reference.LateFusion`."""

from collections.abc import Sequence

from fcn_jax.config import InputConfig
from fcn_jax.errors import InputError
from fcn_jax.weights.weights import Weights


def copy_to_streams(weights: Weights, streams: Sequence[str]) -> Weights:
    """Give every stream the same weights. Their input stays that of one network."""
    arrays = {path: array for stream in streams for path, array in _prefix(weights, stream).items()}
    return weights._replace(arrays=arrays)


def join_streams(parts: Sequence[Weights], streams: Sequence[str]) -> Weights:
    """Join the weights of networks into those of their late fusion.

    The input has what the networks were trained with, for those that were trained on the input of their stream.

    Args:
        parts: the weights of each network.
        streams: name of the input of each network.

    Raises:
        InputError: there are not as many networks as streams, or they have other classes.
    """
    if len(parts) != len(streams):
        raise InputError(
            f"model.init-streams names {len(parts)} networks, and data.inputs {len(streams)} inputs "
            f"({', '.join(streams)}); give a network for each input, in this order"
        )
    named = [part for part in parts if part.class_names is not None]
    for part in named[1:]:
        if part.class_names != named[0].class_names:
            raise InputError(
                f"{named[0].origin} and {part.origin} were trained on other classes; their scores have no common mean: "
                "give networks with the same classes"
            )
    arrays = {
        path: array
        for part, stream in zip(parts, streams, strict=True)
        for path, array in _prefix(part, stream).items()
    }
    known = [
        part.input
        for part, stream in zip(parts, streams, strict=True)
        if part.input is not None and [name for name, _ in part.input.channels] == [stream]
    ]
    return Weights(
        arrays,
        tuple(name for part in parts for name in part.unknown),
        join_inputs(known) if known else None,
        " and ".join(part.origin for part in parts),
        named[0].class_names if named else None,
    )


def join_inputs(inputs: Sequence[InputConfig]) -> InputConfig:
    """Put the channels of inputs side by side. The order is that of the input with colours."""
    firsts = [sum(given.num_channels for given in inputs[:index]) for index in range(len(inputs))]
    coloured = [given for given in inputs if given.colour]
    return InputConfig(
        order=(coloured or inputs)[0].order,
        mean=tuple(value for given in inputs for value in given.mean),
        std=tuple(value for given in inputs for value in given.std),
        log=tuple(first + channel for first, given in zip(firsts, inputs, strict=True) for channel in given.log),
        channels=tuple(channel for given in inputs for channel in given.channels),
        dtype="uint16" if any(given.dtype == "uint16" for given in inputs) else "uint8",
    )


def _prefix(weights: Weights, stream: str) -> dict:
    """Return the arrays of a network at the paths that they have in a stream: params/STREAM/backbone/..."""
    split = {tuple(path.split("/", 1)): array for path, array in weights.arrays.items()}
    return {f"{collection}/{stream}/{path}": array for (collection, path), array in split.items()}
