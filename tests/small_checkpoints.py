"""Checkpoints of a small tree, and the comparison of trees bit by bit."""

from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from fcn_jax.runs.checkpoint import Checkpoints

SMALL = {"variables": {"params": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}}


def like(tree, sharding=None):
    """What to restore: shapes and types, where they shall lie."""
    sharding = sharding or SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def everywhere() -> NamedSharding:
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec())


def bits(array) -> np.ndarray:
    """The bytes, so that NaN equals itself and -0 does not equal 0."""
    array = np.asarray(array)
    return np.frombuffer(array.tobytes(), np.uint8)


def assert_same(restored, expected) -> None:
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_array_equal(bits(ours), bits(theirs))


def save_small(folder: Path, *steps: int, scores: dict[int, float] | None = None) -> None:
    scores = scores or {}
    with Checkpoints(folder, keep=len(steps)) as checkpoints:
        for step in steps:
            checkpoints.save(step, jax.tree.map(lambda x, step=step: x + step, SMALL))
            if step in scores:
                checkpoints.note_score(step, scores[step])


def folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
