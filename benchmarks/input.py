"""From files to batches, and whether training waits for them: `python benchmarks/input.py [--quick]`.

Images/s of `train_batches` for decoding, for the file of decoded images and for a split on the devices, against a plain
PyTorch DataLoader that decodes the same files with Pillow and puts them on the same canvas; with one worker and one a
core (ours are threads, PyTorch's processes). Then the share of time that training steps wait for input, and what
photographs of 6000x4000 pixels cost, in parts and whole. `--voc` and `--camvid` name the folders of the data, and what
is missing is left out. Each measurement is a process of its own, so that the peak of its memory is its own too.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SHARED = Path(__file__).parents[2] / "shared" / "data"
CORES = len(os.sched_getaffinity(0))
BATCH = 8
LARGE = (4000, 6000)
MODES = ("never", "disk", "device")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="CamVid alone, decoded each time, few batches")
    parser.add_argument("--voc", type=Path, default=SHARED / "VOCdevkit")
    parser.add_argument("--camvid", type=Path, default=SHARED / "camvid")
    parser.add_argument("--only", choices=("files", "waiting", "large"), help="one table alone")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, arguments = options.measure
        result = {"ours": ours, "pytorch": pytorch, "waiting": waiting, "large": large}[name](**json.loads(arguments))
        print(json.dumps(result))
        return
    print(f"{CORES} cores {platform.machine()}, load at the start {os.getloadavg()[0]:.1f}, batch {BATCH}")
    data = {"camvid": options.camvid} if options.quick else {"voc2012": options.voc, "camvid": options.camvid}
    with tempfile.TemporaryDirectory() as folder:
        for name, table in (("files", files), ("waiting", wait_table), ("large", large_table)):
            if options.only in (None, name):
                table({key: value for key, value in data.items() if value.is_dir()}, Path(folder), options.quick)


def files(data: dict[str, Path], cache: Path, quick: bool) -> None:
    """Prints images/s from files to batches."""
    columns = ("data", "workers", "decoding", "PyTorch", "× PyTorch", "decoded, disk", "decoded, device")
    head("Files to batches, images/s", columns)
    for name, folder in data.items():
        for workers in [CORES] if quick else sorted({1, CORES}):
            common = {"name": name, "dir": str(folder), "workers": workers, "count": 25 if quick else 100}
            rounds = []
            for _ in range(1 if quick else 3):
                one = {mode: run("ours", cache=str(cache), mode=mode, **common)["rate"] for mode in MODES}
                rounds.append({**one, "pytorch": run("pytorch", cache=str(cache), **common)["rate"]})
            rate = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
            row(
                name, workers, f"{rate['never']:.0f}", f"{rate['pytorch']:.0f}",
                f"{rate['never'] / rate['pytorch']:.2f}", f"{rate['disk']:.0f}", f"{rate['device']:.0f}",
            )  # fmt: skip


def wait_table(data: dict[str, Path], cache: Path, quick: bool) -> None:
    """Prints the share of time that training waits."""
    head("Waiting for input while training, FCN-8s ResNet18, CamVid", ("decoded", "images/s", "waiting"))
    for mode in modes_of(quick) if "camvid" in data else ():
        result = run("waiting", dir=str(data["camvid"]), cache=str(cache), mode=mode, steps=5 if quick else 30)
        row(mode, f"{result['rate']:.2f}", f"{result['share']:.2%}")


def large_table(data: dict[str, Path], cache: Path, quick: bool) -> None:
    """Prints what large photographs cost, with the augmentation that a step begins with."""
    del data
    folder = photographs(cache / "large")
    title = f"Eight photographs of {LARGE[1]}x{LARGE[0]}, crop 224, zoom 0.5 to 2, batches and augmentation"
    head(title, ("what", "resident set, GB", "images/s"))
    cases = [] if quick else [("whole images, decoded each time", "never", False)]
    cases += [(f"parts, decoded: {mode}", mode, True) for mode in modes_of(quick)]
    for what, mode, parts in cases:
        count = 1 if quick else 4 if mode == "never" else 20
        result = run("large", dir=str(folder), cache=str(cache), mode=mode, parts=parts, count=count)
        row(what, f"{result['memory'] / 1e9:.2f}", f"{result['rate']:.1f}")


def modes_of(quick: bool) -> tuple[str, ...]:
    return MODES[:1] if quick else MODES


def head(title: str, columns: tuple[str, ...]) -> None:
    print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")


def row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def run(what: str, **arguments: Any) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", what, json.dumps(arguments)]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    if process.returncode:
        raise RuntimeError(process.stderr)
    return json.loads(process.stdout.splitlines()[-1])


def rate(batches: Iterator[Any], count: int, warm: int, use: Callable[[Any], object]) -> float:
    """Images/s of `count` batches after `warm` ones, which also empty what was prepared ahead."""
    for _ in range(warm):
        use(next(batches))
    began = time.perf_counter()
    for _ in range(count):
        use(next(batches))
    return count * BATCH / (time.perf_counter() - began)


def stream(name: str, dir: str, cache: str, workers: int, mode: str):  # noqa: A002
    """Our batches, and with what configuration and of what data set they are."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from fcn_jax.config import Config, DataConfig, ModelConfig
    from fcn_jax.data import dataset as datasets
    from fcn_jax.data.batches import train_batches
    from fcn_jax.data.decoded import decoded

    data = DataConfig(name, Path(dir), Path(cache), decoded=mode)
    config = Config(ModelConfig(backbone="resnet18"), data, batch_size=BATCH, workers=workers).resolved()
    dataset = datasets.prepare(name, data.dir, data.cache)
    source = decoded(dataset, "train") if mode == "disk" else dataset.source("train")
    here = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("data",)), PartitionSpec("data"))
    return train_batches(source, dataset.max_size, config, 0, here), config, dataset


def ours(name: str, dir: str, cache: str, workers: int, count: int, mode: str) -> dict[str, float]:  # noqa: A002
    import jax

    batches, _, _ = stream(name, dir, cache, workers, mode)
    count *= 1 if mode == "never" else 8  # to have as much to measure where an image takes less
    return {"rate": rate(batches, count, 2 * workers + 2, jax.block_until_ready)}


def pytorch(name: str, dir: str, cache: str, workers: int, count: int) -> dict[str, float]:  # noqa: A002
    """What a PyTorch user writes: files decoded by Pillow in worker processes, put on a canvas there."""
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
    """Training steps as `fcn_jax.training.loop` makes them, the first ones not counted."""
    from functools import partial

    import jax

    from fcn_jax.models.build import build
    from fcn_jax.training.loop import make_step
    from fcn_jax.training.progress import InputWait
    from fcn_jax.training.state import init_state

    batches, config, dataset = stream("camvid", dir, cache, 4, mode)
    model = build(config.model, len(dataset.class_names))
    state, metrics = jax.jit(partial(init_state, model, config))(), None
    step, wait = make_step(model, config), InputWait()
    began, share, every = 0.0, [], 5  # logged every so many steps, which waits for them
    for index in range(1, steps + every + 1):
        state, metrics = step(state, wait.take(batches, metrics))
        if index % every == 0:
            jax.block_until_ready(metrics)
            share.append(wait.share())
            began = began or time.perf_counter()
    return {"rate": steps * BATCH / (time.perf_counter() - began), "share": statistics.mean(share[1:])}


def large(dir: str, cache: str, mode: str, parts: bool, count: int) -> dict[str, float]:  # noqa: A002
    """Batches of large photographs, augmented; whole ones as if a crop could reach everywhere."""
    from functools import partial

    import jax

    from fcn_jax.data import augment

    if not parts:
        augment.reach = lambda config: max(LARGE)
    batches, config, _ = stream("folder", dir, cache, CORES, mode)

    @jax.jit
    def crops(step: int, batch: Any):
        keys, _ = augment.step_keys(config.seed, step, BATCH)
        one = partial(augment.augment, config=config.augment, input_config=config.model.settled_input)
        return jax.vmap(one)(keys, *batch[:3], origin=batch.origin)

    result = rate(batches, count, CORES, lambda batch: jax.block_until_ready(crops(0, batch)))
    return {"rate": result, "memory": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def photographs(folder: Path) -> Path:
    """A folder data set of eight large JPEGs with about as much detail as photographs have, and their masks."""
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
