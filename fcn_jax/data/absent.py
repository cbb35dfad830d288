"""Say which classes a split does not have, and what the usual reason is."""

import numpy as np
from jaxtyping import Int64

from fcn_jax.data.labels import IGNORE
from fcn_jax.data.tasks import Task


def describe_absent_classes(pixels: Int64[np.ndarray, "256"], task: Task, takes_map: bool) -> str | None:
    """Describe the classes that no image has, and the likely reason, in one line. Return None if there are none.

    Args:
        pixels: number of pixels of each label; label 255 is void.
        task: the task that the labels belong to.
        takes_map: whether the data set takes `--data.map` (`DataSource.takes_map`).
    """
    count = len(task.class_names)
    absent = np.flatnonzero(pixels[:count] == 0).tolist()
    if not absent:
        return None
    names = ", ".join(task.class_names[label] for label in absent[:10]) + (", ..." if len(absent) > 10 else "")
    present = np.flatnonzero(pixels[:count]).tolist()
    if not present:
        reason = "all pixels are void: say what the values mean with --data.map, as 255=1"
    elif present == [0] and pixels[IGNORE]:
        reason = "masks of 0 and 255, black and white, need --data.map 255=1, because 255 is void"
    elif absent == [0]:
        reason = f"if the masks count the classes from 1 on, give --data.map 1-{count}=0"
    else:
        reason = "if the masks have other values for them, give --data.map"
    classes = "the class" if len(absent) == 1 else f"{len(absent)} of {count} classes"
    return f"{task.name}: ".lstrip(": ") + f"{classes} {names}: in no image" + (f"; {reason}" if takes_map else "")
