"""Masks in MATLAB files, and a file that has the images and masks of all examples."""

import tempfile
from pathlib import Path

import numpy as np
from drawn import mask, picture
from faults.harness import Surface
from matlab_writer import save_mat5, save_mat73, save_sbd

from fcn_jax.data.mat_files import read_mask_array, read_slice
from fcn_jax.data.sources.nyud import take_colour

MASK = mask(20, 30)


def collect(*writers) -> list[bytes]:
    """Return the content of the files that functions write."""
    with tempfile.TemporaryDirectory() as folder:
        return [writer(Path(folder) / "a.mat").read_bytes() for writer in writers]


MAT5 = collect(
    lambda file: save_mat5(file, {"S": MASK}),
    lambda file: save_mat5(file, {"names": np.array(["a", "b"], object), "S": MASK.astype(float)}, compressed=False),
    lambda file: save_mat5(file, {"S": MASK.astype(np.int16) - 1}, compressed=False),
)
STRUCTS = collect(lambda file: save_sbd(file, MASK), lambda file: save_sbd(file, MASK, compressed=False))
MAT73 = collect(
    lambda file: save_mat73(file, {"S": MASK, "T": MASK}),
    lambda file: save_mat73(file, {"S": MASK.astype(float)}, chunks=(10, 10), compression="gzip"),
)
ALL = {"images": np.stack([picture(6, 8)] * 3, -1), "labels": np.stack([mask(6, 8).astype("u2")] * 3, -1)}
WHOLES = collect(
    lambda file: save_mat73(file, ALL),
    lambda file: save_mat73(file, ALL, chunks=True, compression="gzip"),
)
IMAGES = ((("images",), take_colour),)

SURFACES = [
    Surface("mask: MATLAB 5", MAT5, lambda file: read_mask_array(file, "S")),
    Surface("mask: a struct of MATLAB 5", STRUCTS, lambda file: read_mask_array(file, "GTcls.Segmentation")),
    Surface("mask: MATLAB 7.3", MAT73, lambda file: read_mask_array(file, "S")),
    Surface("examples in one MATLAB file", WHOLES, lambda file: read_slice(file, 1, "labels", IMAGES), share=0.5),
]
