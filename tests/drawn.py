"""Images and masks of random numbers, to test with."""

import numpy as np
from PIL import Image

from fcn_jax.data.labels import IGNORE

_RNG = np.random.default_rng(0)


def picture(height=6, width=9):
    return _RNG.integers(0, 256, (height, width, 3), np.uint8)


def mask(height=6, width=9, classes=3):
    return _RNG.choice(np.array([*range(classes), IGNORE], np.uint8), (height, width))


def save(array, file, mode=None, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(file, **options)
    return array
