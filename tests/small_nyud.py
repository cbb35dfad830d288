"""NYUDv2 in small, in the layout of the reference with colour, depth and HHA, and in the official one."""

import numpy as np
from drawn import save
from matlab_writer import save_mat5, save_mat73

from fcn_jax.data.sources import nyud

NAMES = {"train": ["5003", "5001"], "val": ["5002"], "test": ["5004"]}
HEIGHT, WIDTH = 36, 40


def draw_arrays(seed=0):
    """Draw colour, depth in millimetres, HHA and the numbers of a mask for each name."""
    rng = np.random.default_rng(seed)

    def draw():
        colour, hha = (rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(2))
        depth = rng.integers(700, 10_000, (HEIGHT, WIDTH)).astype(np.uint16)
        depth[:3] = 0  # holes
        return {"images": colour, "depth": depth, "hha": hha, "mask": rng.integers(0, 41, (HEIGHT, WIDTH))}

    return {name: draw() for names in NAMES.values() for name in names}


def write_reference(root):
    """Write the reference's layout, and return its arrays."""
    arrays = draw_arrays()
    root.mkdir(parents=True)
    for split, names in NAMES.items():
        (root / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            for kind in ("images", "depth", "hha"):
                save(arrays[name][kind], root / f"data/{kind}/img_{name}.png")
            save_mat5(root / f"segmentation/img_{name}.mat", {"segmentation": arrays[name]["mask"].astype(np.uint16)})
    return arrays


def write_official(root):
    """Write the official layout, whose depths are in metres, and return its arrays in the order of the examples."""
    arrays = list(draw_arrays().values())
    root.mkdir(parents=True)
    stacked = {kind: np.stack([example[kind] for example in arrays], -1) for kind in arrays[0]}
    metres = (stacked["depth"] / 1000).astype(np.float32)
    measured = metres * (np.arange(metres.shape[1])[None, :, None] > 1)  # the first two columns are filled in
    whole = {"images": stacked["images"], "labels": stacked["mask"].astype(np.uint16), "depths": metres}
    whole["rawDepths"] = measured
    save_mat73(root / nyud.ALL, whole)
    splits = {"trainNdxs": np.array([[3], [1]]), "testNdxs": np.array([[2], [4]])}
    save_mat5(root / nyud.SPLITS, {name: numbers.astype(np.uint16) for name, numbers in splits.items()})
    save_mat5(root / nyud.MAPPING, {"mapClass": np.arange(1, 895).clip(max=40)[None].astype(float)})
    return arrays
