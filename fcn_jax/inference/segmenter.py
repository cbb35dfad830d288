"""Use a trained network as a Python function."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import UInt8

from fcn_jax.config import TILE
from fcn_jax.errors import InputError
from fcn_jax.inference.segment import Forward, default_batch_size, make_unlabelled, replicate_locally, segment
from fcn_jax.inference.tiles import Tiling
from fcn_jax.inference.trained import load_trained
from fcn_jax.runs.mirror import copy_for_reading
from fcn_jax.runs.run_dir import open_run
from fcn_jax.runtime.files import expand_home

Image = UInt8[np.ndarray, "height width 3"]
ClassMap = UInt8[np.ndarray, "height width"]


class Segmenter:
    """A function from images to class maps, made of a trained network.

    Example:
        >>> segment = Segmenter.from_run("runs/voc")  # doctest: +SKIP
        >>> class_map = segment(np.asarray(PIL.Image.open("cat.jpg").convert("RGB")))  # doctest: +SKIP
        >>> segment.class_names[class_map[120, 80]]  # doctest: +SKIP
        'cat'

    It may be called from several threads. The first image of each canvas size (see `tiles.choose_canvas`) compiles a
    program, which takes seconds.

    Args:
        forward: from `segment.make_forward` with `labelled=False`.
        variables: parameters and batch statistics.
        class_names: the name of each class.
        palette: the colour of each class, RGB.
        tiling: from `tiles.plan_tiles`, to compute large images in tiles; None: every image is computed whole.

    Attributes:
        class_names: the name of each class.
        palette: the colour of each class, RGB.
    """

    def __init__(
        self,
        forward: Forward,
        variables: Any,
        class_names: tuple[str, ...],
        palette: UInt8[np.ndarray, "classes 3"],
        tiling: Tiling | None = None,
    ):
        self.class_names, self.palette = class_names, palette
        self._forward, self._variables, self._tiling = forward, replicate_locally(variables), tiling

    @classmethod
    def from_run(cls, run_dir: str | Path, step: int | None = None, tile: int = TILE) -> "Segmenter":
        """Load the network of a run directory.

        Args:
            run_dir: the run directory, made by `fcn-jax train`, or its URL in a bucket.
            step: the checkpoint to use; None: the best by mean IU on the val split.
            tile: side in pixels of the tiles in which large images are computed, so that they need less memory. Their
                class maps are those of the whole images. 0: every image is computed whole.

        Raises:
            InputError: `run_dir` is not a run directory, it has no such checkpoint, that is damaged, or `tile` is
                negative.
        """
        with copy_for_reading(expand_home(run_dir), step) as folder:
            run = open_run(folder)
            trained = load_trained(run, step, labelled=False, tile=tile)
        return cls(trained.forward, trained.variables, run.class_names, run.palette, trained.tiling)

    @overload
    def __call__(self, images: Image) -> ClassMap: ...
    @overload
    def __call__(self, images: Sequence[Image]) -> list[ClassMap]: ...
    def __call__(self, images: Any) -> Any:
        """Compute the class of each pixel.

        Args:
            images: one image, uint8[height, width, 3] in RGB, of any size; or a sequence of images, which may have
                different sizes and are computed in batches.

        Returns:
            The class map, uint8[height, width]; for a sequence a list of class maps in the same order.

        Raises:
            InputError: an image has another type or shape.
        """
        if isinstance(images, Sequence):
            return self._segment(images, default_batch_size(None))
        return self._segment([images], default_batch_size(1))[0]

    def _segment(self, images: Sequence[Any], batch_size: int) -> list[ClassMap]:
        for image in images:
            _check_image(image)
        examples = [make_unlabelled(str(index), image) for index, image in enumerate(images)]
        results = segment(self._forward, self._variables, examples, batch_size, self._tiling)
        class_maps = {int(result.example.name): result.class_map for result in results}
        return [class_maps[index] for index in range(len(images))]


def _check_image(image: Any) -> None:
    """Raise InputError unless the image is uint8[height, width, 3] and has at least one pixel."""
    rule = "an image is a NumPy array uint8[height, width, 3] of at least one pixel, in RGB"
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"the image is of type {type(image).__name__}; {rule}; convert it, for example with "
            'np.asarray(PIL.Image.open(file).convert("RGB"))'
        )
    if image.dtype != np.uint8:
        raise InputError(f"the image has dtype {image.dtype}; {rule}; scale it to 0..255 and convert it to uint8")
    if image.ndim == 4:
        raise InputError(f"the image has shape {image.shape}; {rule}; give several images as a list: list(images)")
    if image.ndim != 3 or image.shape[-1] != 3 or not image.size:
        raise InputError(
            f"the image has shape {image.shape}; {rule}; drop an alpha channel with image[..., :3], "
            "repeat a grey image with np.stack([image] * 3, axis=-1)"
        )
