"""Read an example with one mask, as most data sets have it."""

from collections.abc import Sequence
from pathlib import Path

from fcn_jax.data.checks import Pair, read_tasks
from fcn_jax.data.inputs import COLOUR, Input
from fcn_jax.data.label_map import LabelMap
from fcn_jax.data.sources.source import Labels


def read_pair(
    images: Sequence[Path],
    mask: Path,
    num_classes: int,
    label_map: LabelMap,
    variable: str = "",
    inputs: Sequence[Input] = (COLOUR,),
) -> Pair:
    """`read_tasks` of one mask, whose labels are 0..num_classes - 1."""
    task = Labels("", tuple(map(str, range(num_classes))), label_map)
    return read_tasks(images, (mask,), (task,), variable, inputs)
