"""Segmenting images, against PyTorch and OpenCV: `python benchmarks/inference.py [--quick] [ROW ...]`.

- `batch1`, `batch16`: FCN-8s on VGG16 (fc6 7x7, 4096 channels) at 375x500, from images in memory to class maps. PyTorch
  uses the better of its two memory formats and all cores; on a GPU `torch.compile`, cuDNN's benchmark and, for
  bfloat16, autocast.
- `reference`: the scores of the reference's voc-fcn8s, its border of 100 pixels included, against OpenCV's DNN, which
  runs the reference's own prototxt: the environment variable FCN_REFERENCE names a clone of
  github.com/shelhamer/fcn.berkeleyvision.org. OpenCV has an environment of its own, made the first time.
- `folder`: JPEGs of mixed sizes to PNGs of their classes, FCN-8s on ResNet34. PyTorch: a plain loop of Pillow, the
  network at the image's own size, and Pillow. Ours is `fcn-jax predict`, which also draws and writes an overlay.
  The first pass compiles its programs, the second finds them in memory, and the next start finds them on the disk.
  `--images FOLDER` takes your own.

Each measurement is a process of its own, ours and the peer's by turns.
"""

import argparse
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import history
from machine import has_gpu
from markdown_table import head, row, times
from meters import ON_GPU
from segmenting import HEIGHT, WIDTH, ours, ours_folder, ours_reference, pytorch, pytorch_folder
from separate import answer, last_line, measure, measure_in_turns

ROWS = ("batch1", "batch16", "reference", "folder")
# The most frequent sizes of PASCAL VOC in about their shares, and some that occur once.
SIZES = [(375, 500)] * 10 + [(500, 375)] * 3 + [(333, 500)] * 4 + [(500, 333)] + [(281, 500), (500, 400), (224, 300)]
OPENCV = """
import statistics, sys, time
import cv2, numpy
net = cv2.dnn.readNetFromCaffe(sys.argv[1] + "/net.prototxt", sys.argv[1] + "/net.caffemodel")
image = numpy.load(sys.argv[1] + "/image.npy")
times = []
for _ in range(1 + int(sys.argv[2])):
    began = time.perf_counter()
    net.setInput(image, "data")
    net.forward("score")
    times.append(time.perf_counter() - began)
print(statistics.median(times[1:]))
"""


def main() -> None:
    if answer((ours, pytorch, ours_reference, ours_folder, pytorch_folder)):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"rows to measure: {', '.join(ROWS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="few repetitions and images, no batch16")
    parser.add_argument("--files", type=int, help="number of images to draw; default: 84, with --quick 21")
    parser.add_argument("--images", type=Path, help="folder of images for the row `folder`; default: draw them")
    history.add_argument(parser)
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"{', '.join(unknown)}: rows are {', '.join(ROWS)}")
    rows = options.rows or [row for row in ROWS if not (options.quick and row == "batch16")]
    rounds = 1 if options.quick or has_gpu() else 2
    recorder = history.Recorder("inference", options.quick, options.history)
    print(f"{recorder.describe()}\n")
    print(head("what", "dtype", "ours, images/s", "peer", "peer, images/s", "×"))
    if has_gpu():
        on_gpu(recorder, [int(name.removeprefix("batch")) for name in rows if name.startswith("batch")])
        rows = [name for name in rows if not name.startswith("batch")]
    for name in rows:
        with tempfile.TemporaryDirectory() as temporary:
            if name == "reference":
                reference(recorder, Path(temporary), 1 if options.quick else 6, 3 if options.quick else 6)
            elif name == "folder":
                count = options.files or (21 if options.quick else 84)
                folder(recorder, Path(temporary), rounds, options.images, count)
            else:
                in_memory(recorder, int(name.removeprefix("batch")), rounds)


def in_memory(recorder: history.Recorder, batch: int, rounds: int) -> None:
    """Measure images in memory on a CPU."""
    case = {"batch": batch, "dtype": "float32", "rounds": 1, "repeats": max(2, 8 // batch)}
    turns = by_turns(rounds, *(lambda name=name: run(name, **case) for name in ("ours", "pytorch")))
    us, peer = ([*itertools.chain(*times)] for times in turns)
    report_in_memory(recorder, case, us, peer)


def on_gpu(recorder: history.Recorder, batches: Sequence[int]) -> None:
    """Measure images in memory on a GPU, where all cases compile together."""
    measured = {"rounds": ON_GPU.rounds, "repeats": ON_GPU.repeats}
    cases = [{"batch": batch, "dtype": dtype, **measured} for batch in batches for dtype in ("float32", "bfloat16")]
    calls = [(name, case) for case in cases for name in ("ours", "pytorch")]
    found = measure_in_turns(__file__, calls)
    for case, us, peer in zip(cases, found, found, strict=True):
        report_in_memory(recorder, case, us, peer)


def report_in_memory(recorder: history.Recorder, case: dict, us: Sequence[float], peer: Sequence[float]) -> None:
    """Record a case of images in memory, given its seconds, and print its row."""
    batch = case["batch"]
    name = f"FCN-8s VGG16, {HEIGHT}x{WIDTH}, batch {batch}"
    report(recorder, "images to class maps", name, case["dtype"], rates(batch, us), "PyTorch", rates(batch, peer))


def reference(recorder: history.Recorder, temporary: Path, rounds: int, repeats: int) -> None:
    """Measure the row of the reference's network."""
    clone = os.environ.get("FCN_REFERENCE")
    if not clone or not (Path(clone) / "voc-fcn8s").is_dir():
        print("\nThe reference's network is left out: FCN_REFERENCE names no clone of its repository.\n", flush=True)
        return
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import caffe_peer
    import numpy as np
    import pytest

    try:
        python = caffe_peer.opencv_python()
    except pytest.skip.Exception as error:
        print(f"\nThe reference's network is left out: {error}\n", flush=True)
        return
    image = np.random.default_rng(0).normal(0, 50, (1, 3, HEIGHT, WIDTH)).astype(np.float32)
    net = caffe_peer.REFERENCE["voc-fcn8s"](False)
    (temporary / "net.caffemodel").write_bytes(caffe_peer.caffemodel(net, net.random_weights()))
    text, _ = caffe_peer.reference_prototxt(Path(clone) / "voc-fcn8s", {"data": image})
    (temporary / "net.prototxt").write_text(text)
    np.save(temporary / "image.npy", image)
    # OpenCV's Python must not see this environment's packages.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-c", OPENCV, str(temporary), str(repeats)]
    us, peer = by_turns(rounds, lambda: run("ours_reference", repeats=repeats), lambda: last_line(command, environment))
    case = f"the reference's voc-fcn8s, {HEIGHT}x{WIDTH}"
    report(recorder, "image to scores", case, "float32", rates(1, us), "OpenCV", rates(1, peer))


def folder(recorder: history.Recorder, temporary: Path, rounds: int, images: Path | None, count: int) -> None:
    """Measure the rows of the folder."""
    if images is None:
        images = temporary / "images"
        draw(images, count)
    number, sizes = describe(images)
    found = []
    for index in range(rounds):
        ours = {"images": str(images), "out": str(temporary / "ours"), "cache": str(temporary / f"cache{index}")}
        passes = [*run("ours_folder", **ours), *run("ours_folder", **ours)[:1]]
        found.append([*passes, run("pytorch_folder", images=str(images), out=str(temporary / "peer"))])
    *passes, peer = (rates(number, values) for values in zip(*found, strict=True))
    for which, us in zip(("first pass", "second pass", "first pass of the next start"), passes, strict=True):
        case = f"{number} files of {sizes} sizes, FCN-8s ResNet34"
        report(recorder, f"files to PNGs, {which}", case, "float32", us, "PyTorch", peer)


def report(
    recorder: history.Recorder,
    task: str,
    case: str,
    dtype: str,
    ours: Sequence[float],
    peer: str,
    theirs: Sequence[float],
) -> None:
    """Record images/s and print their row, whose last column is above 1 where ours is faster."""
    found = recorder.add(task, f"{case}, {dtype}", "images/s", ours, peer, theirs)
    print(row(f"{case}, {task}", dtype, found.ours, peer, found.peer_value, times(found.ratio)), flush=True)


def by_turns(rounds: int, *measurements: Callable[[], Any]) -> list[tuple]:
    """Take measurements by turns, and return the values of each of them."""
    return list(zip(*([take() for take in measurements] for _ in range(rounds)), strict=True))


def rates(images: int, times: Sequence[float]) -> list[float]:
    """Convert seconds to images/s."""
    return [images / time for time in times]


def run(name: str, /, **arguments: object):
    """Take one of this script's measurements in a process of its own."""
    # With JAX's own variables a first pass could find its programs compiled, or the next start could find none.
    cache = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in cache}
    return measure(__file__, name, environment, **arguments)


def draw(folder: Path, count: int) -> None:
    """Write JPEGs that compress about as photographs do: coarse and fine noise."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(count):
        height, width = SIZES[index % len(SIZES)]
        coarse = Image.fromarray(generator.integers(0, 256, (9, 12, 3), np.uint8)).resize((width, height))
        picture = np.asarray(coarse) + generator.normal(0, 12, (height, width, 1))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{index:03}.jpg", quality=90)


def describe(folder: Path) -> tuple[int, int]:
    """Count the images and their sizes."""
    from PIL import Image

    files = list(folder.iterdir())
    return len(files), len({Image.open(file).size for file in files})


if __name__ == "__main__":
    main()
