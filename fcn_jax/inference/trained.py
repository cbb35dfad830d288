"""Load the trained network of a run."""

from typing import Any, NamedTuple

from fcn_jax.config import TILE
from fcn_jax.data.tasks import count_classes
from fcn_jax.inference.segment import Forward, make_forward
from fcn_jax.inference.tiles import Tiling, plan_tiles
from fcn_jax.models.build import build
from fcn_jax.runs.restore import restore_variables
from fcn_jax.runs.run_dir import Run


class Trained(NamedTuple):
    """A trained network.

    Attributes:
        forward: its forward pass, jitted; see `segment.make_forward`.
        variables: parameters and batch statistics, on the first local device.
        step: the number of steps they were trained for.
        tiling: size of the tiles of large images; None: all images are computed whole.
    """

    forward: Forward
    variables: Any
    step: int
    tiling: Tiling | None


def load_trained(
    run: Run, step: int | None = None, *, labelled: bool, probabilities: bool = False, tile: int = TILE
) -> Trained:
    """Load the network of a run.

    Args:
        run: the run.
        step: the checkpoint to load; None: the best by mean IU on the val split.
        labelled: whether its forward pass computes the loss.
        probabilities: whether its forward pass computes the probabilities of the classes.
        tile: side of the tiles of large images, as in `tiles.plan_tiles`; 0: all images are computed whole.

    Raises:
        InputError: there is no checkpoint, or not that one, or it is damaged, or `tile` is negative.
    """
    model = build(run.config.model, *count_classes(run.tasks))
    given = run.config.model.input_or_default
    tiling = plan_tiles(model, tile, given.num_channels)
    variables, step = restore_variables(run, model, step)
    forward = make_forward(model, given, labelled, probabilities)
    return Trained(forward, variables, step, tiling)
