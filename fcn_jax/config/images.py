"""The configuration of the images: which data set, where it is, how it is read, and how images are changed."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fcn_jax.errors import require


@dataclass(frozen=True)
class DataConfig:
    """The images to train on and to score."""

    name: str = "shapes"
    """data set; `fcn-jax data list` shows them all"""
    void: tuple[int, ...] = ()
    """label values that mean void, besides 255 (only for the data sets `folder` and `voc`)"""
    map: tuple[str, ...] = ()
    """what values of masks mean, as 255=1 7=road 0=void 1-150=0 #800000=1 (only for `folder` and `voc`)"""
    train_split: str = "train"
    """split to train on"""
    hold_out: float = 0.0
    """share of train-split to set apart, 0 to below 1, as the split held-out, which is then evaluated on; 0: none"""
    inputs: tuple[str, ...] = ()
    """inputs of the data set to use, side by side, as colour depth (`nyud`) or bands (`folder`); none: the first one"""

    def __post_init__(self) -> None:
        require(0 <= self.hold_out < 1, f"data.hold-out is {self.hold_out}; it must be at least 0 and below 1")


@dataclass(frozen=True)
class DataOptions:
    """The places of the images, and how they are read."""

    dir: Path | None = None
    """folder or archive of the data set, which stays unchanged; None: the images are drawn or downloaded"""
    cache: Path | None = None
    """folder for prepared data, downloads and compiled programs; None: fcn_jax in the user's cache directory"""
    classes: Path | None = None
    """file with a class name, or name,red,green,blue, per line (for `folder voc coco labelme`); None: it is in dir"""
    label_suffix: str = ""
    """what the name of a mask has after that of its image, as _mask (only for the data sets `folder` and `voc`)"""
    val_split: str | None = None
    """split to evaluate on, which a resumed run keeps; None: held-out if data.hold-out is above 0, else val"""
    decoded: Literal["never", "disk", "device"] = "never"
    """where to keep decoded training images: disk: data.cache; device: images and masks on each, at the largest size"""


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes to the training images."""

    crop: int | None = None
    """side of the square crop in pixels, at least 1; None: the data set's default"""
    scale: tuple[float, float] | None = None
    """smallest and largest factor of the random zoom, above 0; None: the data set's default"""
    flip: bool = True
    """mirror each image left to right with probability 1/2"""
    colour: float = 0.0
    """strength of the random changes of brightness, contrast and saturation, 0 to 1"""

    def __post_init__(self) -> None:
        require(self.crop is None or self.crop >= 1, f"augment.crop is {self.crop}; it must be at least 1 pixel")
        require(
            self.scale is None or 0 < self.scale[0] <= self.scale[1] < math.inf,
            f"augment.scale is {self.scale}; give the smallest and the largest factor, both above 0 and finite",
        )
        require(0 <= self.colour <= 1, f"augment.colour is {self.colour}; it must be within 0 to 1")
