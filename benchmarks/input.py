"""From files to batches, and whether training waits for them: `python benchmarks/input.py [--quick]`.

Images/s of `train_batches` for decoding, for the file of decoded images and for a split on the devices, against a plain
PyTorch DataLoader that decodes the same files with Pillow and puts them on the same canvas; with one worker and one a
core (ours are threads, PyTorch's processes). Then the share of time that training steps wait for input, and what
photographs of 6000x4000 pixels cost, in parts and whole. `--voc` and `--camvid` name the folders of the data; a data
set whose folder is missing is left out. Each measurement is a process of its own, and so is the peak of its memory.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import history
from markdown_table import head, row, times
from meters import resident
from separate import answer, measure

SHARED = Path(__file__).parents[2] / "shared" / "data"
CORES = len(os.sched_getaffinity(0))
BATCH = 8
LARGE = (4000, 6000)
MODES = ("never", "disk", "device")


def main() -> None:
    if answer((ours, pytorch, waiting, large)):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="CamVid alone, decoded each time, few batches")
    parser.add_argument("--voc", type=Path, default=SHARED / "VOCdevkit")
    parser.add_argument("--camvid", type=Path, default=SHARED / "camvid")
    parser.add_argument("--only", choices=("files", "waiting", "large"), help="one table alone")
    history.add_argument(parser)
    options = parser.parse_args()
    recorder = history.Recorder("input", options.quick, options.history)
    print(f"{recorder.describe()}, batch {BATCH}")
    data = {"camvid": options.camvid} if options.quick else {"voc2012": options.voc, "camvid": options.camvid}
    with tempfile.TemporaryDirectory() as folder:
        for name, table in (("files", compare_rates), ("waiting", measure_waiting), ("large", measure_large)):
            if options.only in (None, name):
                table(recorder, {key: value for key, value in data.items() if value.is_dir()}, Path(folder))


def compare_rates(recorder: history.Recorder, data: dict[str, Path], cache: Path) -> None:
    """Measure images/s from files to batches, and print the table."""
    quick = recorder.quick
    print("\n### Files to batches, images/s\n")
    print(head("data", "workers", "decoding", "PyTorch", "× PyTorch", "decoded, disk", "decoded, device"))
    for name, folder in data.items():
        for workers in [CORES] if quick else sorted({1, CORES}):
            common = {"name": name, "dir": str(folder), "workers": workers, "count": 25 if quick else 100}
            rounds = []
            for _ in range(1 if quick else 3):
                one = {mode: run("ours", cache=str(cache), mode=mode, **common)["rate"] for mode in MODES}
                rounds.append({**one, "pytorch": run("pytorch", cache=str(cache), **common)["rate"]})
            found = {key: [one[key] for one in rounds] for key in rounds[0]}
            setting = f"{name}, {workers} worker{'s' if workers > 1 else ''}"
            decoding = recorder.add(
                "files to batches", setting, "images/s", found["never"], "PyTorch DataLoader", found["pytorch"]
            )
            disk = recorder.add("decoded on disk to batches", setting, "images/s", found["disk"])
            device = recorder.add("decoded on the device to batches", setting, "images/s", found["device"])
            shown = [name, workers, decoding.ours, decoding.peer_value, times(decoding.ratio), disk.ours, device.ours]
            print(row(*shown), flush=True)


def measure_waiting(recorder: history.Recorder, data: dict[str, Path], cache: Path) -> None:
    """Measure the share of time that training waits, and print the table."""
    print("\n### Waiting for input while training, FCN-8s ResNet18, CamVid\n")
    print(head("decoded", "images/s", "waiting"))
    for mode in modes_of(recorder.quick) if "camvid" in data else ():
        steps = 5 if recorder.quick else 30
        result = run("waiting", dir=str(data["camvid"]), cache=str(cache), mode=mode, steps=steps)
        recorder.add("training on CamVid", mode, "images/s", [result["rate"]])
        recorder.add("share of time that training waits", mode, "%", [100 * result["share"]])
        print(row(mode, f"{result['rate']:.2f}", f"{result['share']:.2%}"), flush=True)


def measure_large(recorder: history.Recorder, data: dict[str, Path], cache: Path) -> None:
    """Measure what large photographs cost, with the augmentation that a step begins with, and print the table."""
    del data
    folder = photographs(cache / "large")
    print(f"\n### Eight photographs of {LARGE[1]}x{LARGE[0]}, crop 224, zoom 0.5 to 2, batches and augmentation\n")
    print(head("what", "resident set, GB", "images/s"))
    quick = recorder.quick
    cases = [] if quick else [("whole images, decoded each time", "never", False)]
    cases += [(f"parts, decoded: {mode}", mode, True) for mode in modes_of(quick)]
    for what, mode, parts in cases:
        count = 1 if quick else 4 if mode == "never" else 20
        result = run("large", dir=str(folder), cache=str(cache), mode=mode, parts=parts, count=count)
        recorder.add("memory of large photographs", what, "GB", [result["memory"] / 1e9])
        recorder.add("large photographs to augmented batches", what, "images/s", [result["rate"]])
        print(row(what, f"{result['memory'] / 1e9:.2f}", f"{result['rate']:.1f}"), flush=True)


def modes_of(quick: bool) -> tuple[str, ...]:
    return MODES[:1] if quick else MODES


def run(name: str, /, **arguments: Any) -> dict[str, float]:
    """Take one measurement in a process of its own."""
    return measure(__file__, name, os.environ | {"PYTHONWARNINGS": "ignore"}, **arguments)


def rate(batches: Iterator[Any], count: int, warm: int, use: Callable[[Any], object]) -> float:
    """Measure images/s of `count` batches after `warm` ones, which also use up the batches prepared ahead."""
    for _ in range(warm):
        use(next(batches))
    began = time.perf_counter()
    for _ in range(count):
        use(next(batches))
    return count * BATCH / (time.perf_counter() - began)


def stream(name: str, dir: str, cache: str, workers: int, mode: str):  # noqa: A002
    """Make our batches; return them with their configuration and data set."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from fcn_jax.config import Config, DataConfig, DataOptions, ModelConfig, RunOptions
    from fcn_jax.data import dataset as datasets
    from fcn_jax.data.batches import train_batches
    from fcn_jax.data.decoded import open_decoded
    from fcn_jax.data.defaults import fill_config, fill_options

    config = fill_config(Config(ModelConfig(backbone="resnet18"), DataConfig(name), batch_size=BATCH))
    options = RunOptions(data=DataOptions(Path(dir), Path(cache), decoded=mode), workers=workers)
    options = fill_options(options, config)
    dataset = datasets.prepare(name, options.data.dir, options.data.cache)
    source = open_decoded(dataset, "train") if mode == "disk" else dataset.source("train")
    here = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("data",)), PartitionSpec("data"))
    return train_batches(source, dataset.max_size, config, options, 0, here), config, dataset


def ours(name: str, dir: str, cache: str, workers: int, count: int, mode: str) -> dict[str, float]:  # noqa: A002
    """Measure images/s of our batches."""
    import jax

    batches, _, _ = stream(name, dir, cache, workers, mode)
    count *= 1 if mode == "never" else 8  # decoded images take less time, so a measurement needs more of them
    return {"rate": rate(batches, count, 2 * workers + 2, jax.block_until_ready)}


def pytorch(name: str, dir: str, cache: str, workers: int, count: int) -> dict[str, float]:  # noqa: A002
    """Measure what a PyTorch user writes: files decoded by Pillow in worker processes, put on a canvas there."""
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

    return {"rate": rate(endless(), count, 2 * workers + 2, lambda batch: batch)}


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


if __name__ == "__main__":
    main()
