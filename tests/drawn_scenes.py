"""SIFT Flow in small: scenes of sky, road and buildings in the official layout, with masks of both tasks."""

from pathlib import Path

import numpy as np
from drawn import save
from matlab_writer import save_mat5

from fcn_jax.data.sources.siftflow import SCENES

NAMES = tuple(f"scene{index}" for index in range(11))
TESTED = NAMES[8:]
COLOURS = np.array([[0, 0, 0], [90, 140, 240], [120, 120, 120], [180, 80, 60]])  # void and the geometric classes


def draw_scene(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return an image and the numbers of its semantic and its geometric mask, as the official files have them."""
    generator = np.random.default_rng(index)
    height, width = 40 + index, 56
    semantic, geometric = np.full((height, width), 28), np.full((height, width), 1)  # sky
    semantic[15 + index :], geometric[15 + index :] = 22, 2  # road, horizontal
    semantic[6 : 15 + index, 10:30], geometric[6 : 15 + index, 10:30] = 6, 3  # building, vertical
    image = COLOURS[geometric] + generator.integers(-20, 21, (height, width, 3))
    semantic[0], geometric[:, 0] = 0, -1  # void in one task is a class in the other
    return np.clip(image, 0, 255).astype(np.uint8), semantic, geometric


def write_scenes(root: Path) -> Path:
    """Write eight scenes to train on and three to score."""
    for index, name in enumerate(NAMES):
        image, semantic, geometric = draw_scene(index)
        save(image, root / "Images" / SCENES / f"{name}.jpg")
        save_mat5(root / "SemanticLabels" / SCENES / f"{name}.mat", {"S": semantic.astype(np.uint8)})
        save_mat5(root / "GeoLabels" / SCENES / f"{name}.mat", {"S": geometric.astype(np.int16)})
    (root / "TestSet1.txt").write_text("".join(f"{SCENES}\\{name}.jpg\r\n" for name in TESTED))
    return root
