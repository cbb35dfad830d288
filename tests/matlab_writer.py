"""MATLAB files as MATLAB writes them: version 5 by SciPy, version 7.3 by h5py."""

import numpy as np
import scipy.io
import scipy.sparse
from h5py import File, string_dtype


def save_mat5(file, variables, compressed=True):
    file.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(file, variables, do_compression=compressed)
    return file


def save_sbd(file, mask, **options):
    """Write a file of SBD's `cls` folder: a struct with boundaries, the mask and the classes in it."""
    boundaries = np.empty((20, 1), object)
    for place in range(20):
        boundaries[place, 0] = scipy.sparse.csc_matrix(np.eye(3) * (place == 0))
    present = np.setdiff1d(mask, [0])[:, None].astype(np.float64)
    value = {"Boundaries": boundaries, "Segmentation": mask, "CategoriesPresent": present}
    return save_mat5(file, {"GTcls": value}, **options)


def save_mat73(file, variables, **options):
    """Write arrays with their axes in MATLAB's order, after a block of 512 bytes with MATLAB's header."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with File(file, "w", userblock_size=512) as opened:
        for name, array in variables.items():
            dataset = opened.create_dataset(name, data=np.asarray(array).T, **options)
            kind = {"float64": "double", "float32": "single"}.get(str(dataset.dtype), str(dataset.dtype))
            dataset.attrs.create("MATLAB_class", np.bytes_(kind))
            dataset.attrs.create("MATLAB_fields", ["a"], dtype=string_dtype())  # kept in a heap, as MATLAB's lists are
    content = bytearray(file.read_bytes())
    content[:128] = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM"
    file.write_bytes(content)
    return file
