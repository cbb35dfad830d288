"""All that a checkpoint holds."""

from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp


def read_arrays(folder: Path, step: int) -> dict[str, np.ndarray]:
    """All that is in a checkpoint, read by Orbax without our code."""
    with ocp.CheckpointManager(folder.absolute() / "checkpoints") as manager:
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        metadata = {name: manager.item_metadata(step)[name] for name in ("variables", "opt_state")}
        like = jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=device), metadata)
        arguments = {name: ocp.args.StandardRestore(tree) for name, tree in like.items()}
        tree = manager.restore(step, args=ocp.args.Composite(**arguments))
    leaves = jax.tree_util.tree_leaves_with_path({name: tree[name] for name in like})
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
