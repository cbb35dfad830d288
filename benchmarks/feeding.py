"""The sides of input.py: batches from files, ours and PyTorch's, and what waits for them (separate.py)."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from meters import resident

CORES = len(os.sched_getaffinity(0))
BATCH = 8
COUNT = 25  # batches of a turn
LARGE = (4000, 6000)


def rate(batches: Iterator[Any], count: int, warm: int, use: Callable[[Any], object]) -> float:
    """Measure images/s of `count` batches after `warm` ones, which use up the batches that were prepared ahead."""
    for _ in range(warm):
        use(next(batches))
    began = time.perf_counter()
    for _ in range(count):
        use(next(batches))
    return count * BATCH / (time.perf_counter() - began)


def stream(name: str, dir: str, cache: str, workers: int, mode: str, first_step: int = 0):  # noqa: A002
    """Make our batches from a step on; return them with their configuration and data set."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from fcn_jax.config import Config, DataConfig, DataOptions, ModelConfig, RunOptions
    from fcn_jax.data import dataset as datasets
    from fcn_jax.data.batches import load_on_devices, train_batches
    from fcn_jax.data.decoded import open_decoded
    from fcn_jax.data.defaults import fill_config, fill_options

    config = fill_config(Config(ModelConfig(backbone="resnet18"), DataConfig(name), batch_size=BATCH))
    options = RunOptions(data=DataOptions(Path(dir), Path(cache), decoded=mode), workers=workers)
    options = fill_options(options, config)
    dataset = datasets.prepare(name, options.data.dir, options.data.cache)
    source = open_decoded(dataset, "train") if mode == "disk" else dataset.source("train")
    here = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("data",)), PartitionSpec("data"))
    if mode == "device":
        source = load_on_devices(source, dataset.max_size, here, workers)
    return train_batches(source, dataset.max_size, config, options, first_step, here), config, dataset


def ours(name: str, dir: str, cache: str, workers: int, mode: str) -> dict[str, Callable[[], float]]:  # noqa: A002
    """Prepare our batches, whose images/s are measured in each turn."""
    import jax

    batches, _, _ = stream(name, dir, cache, workers, mode)
    count = COUNT * (1 if mode == "never" else 8)  # decoded images take less time, so a turn needs more of them
    return {"rate": lambda: rate(batches, count, 2 * workers + 2, jax.block_until_ready)}


def pytorch(name: str, dir: str, workers: int) -> dict[str, Callable[[], float]]:  # noqa: A002
    """Prepare what a PyTorch user writes: files decoded by Pillow in worker processes, put on a canvas there."""
    import numpy as np
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    if name == "camvid":
        images = sorted(Path(dir, "images", "train").glob("*"))
        pairs = [(image, next(Path(dir, "labels", "train").glob(f"{image.stem}.*"))) for image in images]
    else:
        root = Path(dir) / "VOC2012"
        names = (root / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
        pairs = [(root / f"JPEGImages/{n}.jpg", root / f"SegmentationClass/{n}.png") for n in names]
    sizes = [Image.open(image).size for image, _ in pairs]
    width, height = max(w for w, _ in sizes), max(h for _, h in sizes)

    class Pairs(Dataset):
        def __len__(self) -> int:
            return len(pairs)

        def __getitem__(self, index: int):
            image, label = (Image.open(file) for file in pairs[index])
            pixels = np.zeros((height, width, 3), np.uint8)
            classes = np.full((height, width), 255, np.uint8)
            pixels[: image.height, : image.width] = np.asarray(image.convert("RGB"))
            classes[: label.height, : label.width] = np.asarray(label)
            return torch.from_numpy(pixels), torch.from_numpy(classes)

    def endless() -> Iterator[Any]:
        loader = DataLoader(
            Pairs(), BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True
        )  # fmt: skip
        while True:
            yield from loader

    batches = endless()
    return {"rate": lambda: rate(batches, COUNT, 2 * workers + 2, lambda batch: batch)}


def waiting(dir: str, cache: str, mode: str, steps: int) -> dict[str, float]:  # noqa: A002
    """Measure training steps as `fcn_jax.training.loop` takes them, without the first ones."""
    from functools import partial

    import jax

    from fcn_jax.models.build import build
    from fcn_jax.training.progress import InputWait
    from fcn_jax.training.state import init_state
    from fcn_jax.training.step import make_step

    batches, config, dataset = stream("camvid", dir, cache, 4, mode)
    model = build(config.model, len(dataset.class_names))
    state, metrics = jax.jit(partial(init_state, model, config))(), None
    step, wait = make_step(model, config), InputWait()
    began, share, every = 0.0, [], 5  # every so many steps the loop logs, which waits for the devices
    for index in range(1, steps + every + 1):
        state, metrics = step(state, wait.take(batches, metrics))
        if index % every == 0:
            jax.block_until_ready(metrics)
            share.append(wait.share())
            began = began or time.perf_counter()
    return {"rate": steps * BATCH / (time.perf_counter() - began), "share": statistics.mean(share[1:])}


def large(dir: str, cache: str, mode: str, parts: bool, count: int) -> dict[str, float]:  # noqa: A002
    """Measure augmented batches of large photographs. Without `parts` whole images are read."""
    from functools import partial

    import jax

    from fcn_jax.data import batches as module
    from fcn_jax.data.augment import augment

    if not parts:
        module.reach = lambda config: max(LARGE)
    batches, config, _ = stream("folder", dir, cache, CORES, mode)

    @jax.jit
    def crops(batch: Any):
        one = partial(augment, config=config.augment, input_config=config.model.input_or_default)
        return jax.vmap(one)(batch.image, batch.label, batch.size, batch.changes, batch.origin)

    result = rate(batches, count, CORES, lambda batch: jax.block_until_ready(crops(batch)))
    return {"rate": result, "memory": resident()}


def photographs(folder: Path) -> Path:
    """Write a folder data set of eight large JPEGs with about as much detail as photographs have, and their masks."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, numbers in (("train", range(8)), ("val", range(8, 9))):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            pixels = np.zeros((*LARGE, 3), np.int16)
            for scale, strength in ((250, 60), (10, 40), (2, 15)):
                noise = rng.integers(-strength, strength, (LARGE[0] // scale, LARGE[1] // scale, 3), np.int16)
                pixels += np.repeat(np.repeat(noise, scale, axis=0), scale, axis=1)
            label = np.repeat(np.repeat(rng.integers(0, 3, (16, 24)).astype(np.uint8), 250, axis=0), 250, axis=1)
            image = Image.fromarray((128 + pixels).clip(0, 255).astype(np.uint8))
            image.save(folder / "images" / split / f"{number}.jpg", quality=90)
            Image.fromarray(label).save(folder / "labels" / split / f"{number}.png", compress_level=1)
    (folder / "classes.txt").write_text("ground\ntree\nwater\n")
    return folder
