"""Use a trained network as a Python function."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Float16, UInt8

from fcn_jax.config import TILE, InputConfig
from fcn_jax.data.inputs import Pixels
from fcn_jax.data.tasks import Task, count_classes
from fcn_jax.errors import InputError
from fcn_jax.inference.segment import (
    Segmented,
    default_batch_size,
    make_forward,
    make_unlabelled,
    replicate_locally,
)
from fcn_jax.inference.tiles import Tiling, plan_tiles
from fcn_jax.inference.tta import FLIP_AND_SCALES, Views, segment_views
from fcn_jax.models.build import Network, build
from fcn_jax.runs.mirror import copy_for_reading
from fcn_jax.runs.restore import restore_variables
from fcn_jax.runs.run_dir import open_run
from fcn_jax.runtime.files import expand_home

Image = Pixels
ClassMap = UInt8[np.ndarray, "height width *tasks"]
Probabilities = Float16[np.ndarray, "height width classes"]


class Segmenter:
    """A function from images to class maps, and to the probabilities of the classes, made of a trained network.

    Examples:
        >>> segment = Segmenter.from_run("runs/voc")  # doctest: +SKIP
        >>> class_map = segment(np.asarray(PIL.Image.open("cat.jpg").convert("RGB")))  # doctest: +SKIP
        >>> segment.class_names[class_map[120, 80]]  # doctest: +SKIP
        'cat'
        >>> segment.probabilities(image)[120, 80, 8]  # doctest: +SKIP
        np.float16(0.97)

    It may be called from several threads. The first image of each canvas size (see `tiles.choose_canvas`) compiles a
    program, which takes seconds.

    Args:
        model: the network.
        input_config: the channels, their mean and standard deviation, that the network expects.
        variables: parameters and batch statistics.
        tasks: the tasks of the network, with their classes.
        tiling: from `tiles.plan_tiles`, to compute large images in tiles; None: every image is computed whole.
        views: mirrored and resized views of each image whose probabilities are averaged; None: the image alone.
        step: the number of steps that it was trained for; None: not known.

    Attributes:
        tasks: the tasks of the network, each with name, class names and palette.
        class_names: the name of each class of the first task.
        palette: the colour of each class of the first task, RGB.
        step: the number of steps that it was trained for; None: not known.
    """

    def __init__(
        self,
        model: Network,
        input_config: InputConfig,
        variables: Any,
        tasks: tuple[Task, ...],
        tiling: Tiling | None = None,
        views: Views | None = None,
        step: int | None = None,
    ):
        self.tasks, self.step = tasks, step
        _, self.class_names, self.palette, _ = tasks[0]
        self._variables, self._tiling, self._views = replicate_locally(variables), tiling, views
        self._input = input_config
        self._classify = make_forward(model, input_config, labelled=False)
        self._score = make_forward(model, input_config, labelled=False, probabilities=True)

    @classmethod
    def from_run(
        cls, run_dir: str | Path, step: int | None = None, tile: int = TILE, tta: bool | Views = False
    ) -> "Segmenter":
        """Load the network of a run directory.

        Args:
            run_dir: the run directory, made by `fcn-jax train`, or its URL in a bucket.
            step: the checkpoint to use; None: the best by mean IU on the val split.
            tile: side in pixels of the tiles in which large images are computed, so that they need less memory. Their
                class maps are those of the whole images. 0: every image is computed whole.
            tta: test-time augmentation. True: average the probabilities over the image and its mirror image, at the
                scales 0.75, 1 and 1.25; or the `tta.Views` to average over. False: compute the image alone.

        Raises:
            InputError: `run_dir` is not a run directory, the checkpoint is missing or damaged, or `tile` is negative.
        """
        with copy_for_reading(expand_home(run_dir), step) as folder:
            run = open_run(folder)
            model = build(run.config.model, *count_classes(run.tasks))
            tiling = plan_tiles(model, tile, run.config.model.input_or_default.num_channels)
            variables, step = restore_variables(run, model, step)
        views = FLIP_AND_SCALES if tta is True else tta or None
        input_config = run.config.model.input_or_default
        return cls(model, input_config, variables, run.tasks, tiling, views, step)

    @overload
    def __call__(self, images: Image) -> ClassMap: ...
    @overload
    def __call__(self, images: Sequence[Image]) -> list[ClassMap]: ...
    def __call__(self, images: Any) -> Any:
        """Compute the class of each pixel.

        Args:
            images: one image of any size; or a sequence of images, which may have different sizes and are computed in
                batches. An image is uint8[height, width, 3] in RGB, or for a network with other inputs their channels
                side by side, uint16 if `input_config` says so.

        Returns:
            The class map, uint8[height, width], or of a network with several tasks uint8[height, width, tasks], in the
            order of `tasks`; for a sequence a list of class maps in the same order.

        Raises:
            InputError: an image has another type or shape.
        """
        results = self._segment(images, with_probabilities=False)
        class_maps = [result.class_map for result in results]
        return class_maps if isinstance(images, Sequence) else class_maps[0]

    @overload
    def probabilities(self, images: Image) -> Probabilities: ...
    @overload
    def probabilities(self, images: Sequence[Image]) -> list[Probabilities]: ...
    def probabilities(self, images: Any) -> Any:
        """Compute the probability of each class at each pixel: the softmax of the network's scores.

        Args:
            images: one image, or a sequence of images, as for class maps.

        Returns:
            The probabilities, float16[height, width, classes], 0 to 1; for a sequence a list in the same order. Their
            largest one is that of the pixel's class, unless two are the same in float16. Several tasks have their
            classes side by side, and a sum of 1 each.

        Raises:
            InputError: an image has another type or shape.
        """
        results = self._segment(images, with_probabilities=True)
        probabilities = [result.probabilities for result in results]
        return probabilities if isinstance(images, Sequence) else probabilities[0]

    def _segment(self, images: Any, with_probabilities: bool) -> list[Segmented]:
        """Segment one image or several; the results are in the order of the images."""
        several = isinstance(images, Sequence)
        members = images if several else [images]
        for image in members:
            _check_image(image, self._input)
        batch_size = default_batch_size(None if several else 1)
        examples = [make_unlabelled(str(index), image) for index, image in enumerate(members)]
        forward = self._score if with_probabilities or self._views else self._classify
        counts = count_classes(self.tasks)
        results = segment_views(
            forward, self._variables, examples, batch_size, self._views, self._tiling, counts=counts
        )
        return sorted(results, key=lambda result: int(result.example.name))


def _check_image(image: Any, given: InputConfig) -> None:
    """Raise InputError unless the image has the type and the channels that the network takes, and a pixel."""
    is_rgb = given.is_colour_alone
    channels = "in RGB" if is_rgb else "with the channels " + ", ".join(f"{name} {n}" for name, n in given.channels)
    count = given.num_channels
    rule = f"an image is a NumPy array {given.dtype}[height, width, {count}] of at least one pixel, {channels}"
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"the image is of type {type(image).__name__}; {rule}; convert it, for example with "
            'np.asarray(PIL.Image.open(file).convert("RGB"))'
        )
    if image.dtype != given.dtype:
        most = np.iinfo(given.dtype).max
        raise InputError(
            f"the image has dtype {image.dtype}; {rule}; scale it to 0..{most} and convert it to {given.dtype}"
        )
    if image.ndim == 4:
        raise InputError(f"the image has shape {image.shape}; {rule}; give several images as a list: list(images)")
    if image.ndim != 3 or image.shape[-1] != count or not image.size:
        remedy = "drop an alpha channel with image[..., :3], repeat a grey image with np.stack([image] * 3, axis=-1)"
        if not is_rgb:
            remedy = "join the inputs with np.concatenate([...], axis=-1)"
        raise InputError(f"the image has shape {image.shape}; {rule}; {remedy}")
