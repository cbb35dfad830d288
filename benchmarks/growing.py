"""The sides of growth.py: images of any size to class maps, and data sets of any length (separate.py)."""

import time
from pathlib import Path

from meters import resident
from pytorch_networks import CLASSES
from segmenting import Functions, ours_network, torch_network

TILES = "tiles"


def ours_image(height: int, width: int, how: str) -> Functions:
    """Prepare an image in memory to be segmented as `fcn-jax predict` does; `how` is "whole" or `TILES`."""
    import numpy as np

    from fcn_jax.config import TILE, ModelConfig
    from fcn_jax.inference.segment import make_unlabelled, segment
    from fcn_jax.inference.tiles import plan_tiles
    from fcn_jax.models.build import build
    from fcn_jax.runtime.compiler_memory import give_back_memory

    give_back_memory()  # as `fcn-jax` does
    forward, variables = ours_network("resnet34", "float32")
    tiling = plan_tiles(build(ModelConfig(), CLASSES), TILE if how == TILES else 0)
    example = make_unlabelled("image", np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))

    def call() -> None:
        (result,) = segment(forward, variables, [example], 1, tiling)
        assert result.class_map.shape == (height, width)

    return {"segment": call, "memory": resident}


def pytorch_image(height: int, width: int) -> Functions:
    """Prepare the same network on a normalized image, channels last."""
    import torch

    model, device, _ = torch_network("resnet34", "float32")
    model = model.to(memory_format=torch.channels_last)
    image = torch.randn(1, 3, height, width, device=device).to(memory_format=torch.channels_last)

    def call() -> None:
        with torch.inference_mode():
            model(image).argmax(dim=1).to(torch.uint8).cpu()

    return {"segment": call, "memory": resident}


def write_examples(folder: str, count: int) -> None:
    """Write a `folder` data set of so many images of 32x32 pixels and their masks, and one example of val."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, number in (("train", count), ("val", 1)):
        kinds = [Path(folder, kind, split) for kind in ("images", "labels")]
        for kind, shape, most in zip(kinds, ((32, 32, 3), (32, 32)), (256, 3), strict=True):
            kind.mkdir(parents=True)
            for index in range(number):
                file = kind / f"{index:06}.png"
                if index % 1000:  # the other files are links to the first of each thousand
                    file.hardlink_to(kind / f"{index - index % 1000:06}.png")
                else:
                    Image.fromarray(rng.integers(0, most, shape, np.uint8)).save(file)
    Path(folder, "classes.txt").write_text("ground\ntree\nwater\n")


def use_examples(folder: str, cache: str, step: int) -> dict[str, float]:
    """Open a data set, which builds it the first time, and make the batch of a step, which needs the epoch's order.

    Returns:
        The seconds of both, and the resident set, bytes.
    """
    import jax
    from feeding import stream

    began = time.perf_counter()
    batches, _, _ = stream("folder", folder, cache, 1, "never", step)
    opened = time.perf_counter()
    jax.block_until_ready(next(batches))
    return {"open": opened - began, "batch": time.perf_counter() - opened, "memory": resident()}
