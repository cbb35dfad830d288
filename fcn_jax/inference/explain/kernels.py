"""Upsampling kernels after training, beside the bilinear ones that they started from."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from fcn_jax.inference.explain.figure import Figure, Panel, colour_shares, colour_signed, draw_grid, format_percent
from fcn_jax.layers import bilinear_init, bilinear_kernel
from fcn_jax.models.build import Network
from fcn_jax.models.fcn import FCN


class Change(NamedTuple):
    """What training has changed in a kernel.

    Attributes:
        learned: mean over the classes of the weights from a class to itself, as one cell writes them to the finer map.
        bilinear: the filter that they started from.
        largest_mixing: largest absolute weight from a class to another one.
        relative: norm of the whole kernel's change, divided by the norm of the bilinear kernel.
    """

    learned: Float[np.ndarray, "side side"]
    bilinear: Float[np.ndarray, "side side"]
    largest_mixing: float
    relative: float


def list_kernels(model: Network, params: Mapping[str, Any]) -> dict[str, Float[np.ndarray, "_ _ classes classes"]]:
    """List the learned kernels of a network's transposed convolutions, the coarsest first.

    There are none if the upsampling is fixed, or is that of a subclass, whose kernels may have started otherwise.
    """
    if not isinstance(model, FCN) or type(model).upsample is not FCN.upsample:
        return {}
    names = ("upscore", "upscore2", "upscore_pool4", "upscore16", "upscore8")
    return {name: np.asarray(params[name]["kernel"], np.float32) for name in names if name in params}


def measure_change(kernel: Float[np.ndarray, "side side classes classes"]) -> Change:
    """Compare a kernel with the bilinear one of its shape."""
    start = np.asarray(bilinear_init(None, kernel.shape))
    classes = kernel.shape[-1]
    # A transposed convolution places mirrored copies of its kernel.
    own = np.einsum("hwcc->hwc", kernel[::-1, ::-1]).mean(axis=-1)
    mixing = np.abs(kernel[:, :, ~np.eye(classes, dtype=bool)]).max(initial=0.0)
    relative = np.linalg.norm(kernel - start) / np.linalg.norm(start)
    return Change(own, bilinear_kernel(len(kernel)), float(mixing), float(relative))


def draw_kernels(model: Network, params: Mapping[str, Any]) -> list[Figure]:
    """Draw each learned kernel beside the bilinear one, and their difference.

    Args:
        model: the network; one without learned kernels has no such figure.
        params: its parameters.
    """
    changes = {name: measure_change(kernel) for name, kernel in list_kernels(model, params).items()}
    if not changes:
        return []
    rows = []
    for name, change in changes.items():
        top = max(change.learned.max(), change.bilinear.max())
        difference = change.learned - change.bilinear
        range_ = np.abs(difference).max()
        side = len(change.learned)
        rows.append(
            [
                Panel(f"{name}, {side} x {side}, learned", colour_shares(np.clip(change.learned / top, 0, 1))),
                Panel("bilinear, at the start", colour_shares(change.bilinear / top)),
                Panel(f"difference, -{range_:.2g} to {range_:.2g}", colour_signed(difference / (range_ or 1.0))),
            ]
        )
    listing = "; ".join(
        f"{name} changed by {format_percent(change.relative)}, and its largest weight from one class to another is "
        f"{change.largest_mixing:.2g}"
        for name, change in changes.items()
    )
    return [
        Figure(
            "Upsampling kernels",
            "Kernels of the transposed convolutions: the mean over the classes of the weights from a class to itself, "
            "from white, 0 or less, to dark purple; and what training changed, negative in blue and positive in red. "
            f"Relative to the norm of the bilinear kernel, {listing}.",
            f"{len(changes)} rows of three square pictures: the learned kernel, the bilinear one, and the difference. "
            f"{listing}.",
            draw_grid(rows, largest=220),
        )
    ]
