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

Ours and the peer's are processes of their own that take turns (turns.py). A first pass needs a new process each time.
"""

import argparse
import functools
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import history
from machine import has_gpu
from markdown_table import head, row
from segmenting import HEIGHT, WIDTH, ours, ours_folder, ours_reference, pytorch, pytorch_folder
from separate import Worker, answer, forget_compiled, start
from turns import ROUNDS, prepare, take_turns

ROWS = ("batch1", "batch16", "reference", "folder")
# The most frequent sizes of PASCAL VOC in about their shares, and some that occur once.
SIZES = [(375, 500)] * 10 + [(500, 375)] * 3 + [(333, 500)] * 4 + [(500, 333)] + [(281, 500), (500, 400), (224, 300)]
# A worker (separate.py) in OpenCV's environment.
OPENCV = """
import json, sys, time
import cv2, numpy
net = cv2.dnn.readNetFromCaffe(sys.argv[1] + "/net.prototxt", sys.argv[1] + "/net.caffemodel")
image = numpy.load(sys.argv[1] + "/image.npy")
print("ready", flush=True)
for line in sys.stdin:
    _, calls = json.loads(line)
    began = time.perf_counter()
    for _ in range(calls):
        net.setInput(image, "data")
        net.forward("score")
    print((time.perf_counter() - began) / calls, flush=True)
"""


def main() -> None:
    if answer((ours, pytorch, ours_reference, ours_folder, pytorch_folder)):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    rows_help = f"rows to measure: {', '.join(ROWS)}; default: all, on a CPU without batch16, which takes four minutes"
    parser.add_argument("rows", nargs="*", metavar="ROW", help=rows_help)
    parser.add_argument("--quick", action="store_true", help="few rounds and images, no batch16")
    parser.add_argument("--files", type=int, help="number of images to draw; default: 42, with --quick 21")
    parser.add_argument("--images", type=Path, help="folder of images for the row `folder`; default: draw them")
    history.add_argument(parser)
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"{', '.join(unknown)}: rows are {', '.join(ROWS)}")
    rows = options.rows or [row for row in ROWS if row != "batch16" or (has_gpu() and not options.quick)]
    rounds = 2 if options.quick else ROUNDS
    recorder = history.Recorder("inference", options.quick, options.history)
    print(f"{recorder.describe()}\n")
    print(head("what", "dtype", "ours, images/s", "peer", "peer, images/s", "×"))
    in_memory(recorder, [int(name.removeprefix("batch")) for name in rows if name.startswith("batch")], rounds)
    with tempfile.TemporaryDirectory() as temporary:
        if "reference" in rows:
            reference(recorder, Path(temporary), rounds)
        if "folder" in rows:
            folder(recorder, Path(temporary), rounds, options.images, options.files or (21 if options.quick else 42))


def in_memory(recorder: history.Recorder, batches: Sequence[int], rounds: int) -> None:
    """Measure images in memory; on a GPU all cases are prepared at once."""
    if has_gpu():
        groups = [[(batch, dtype) for batch in batches for dtype in ("float32", "bfloat16")]]
    else:
        groups = [[(batch, "float32")] for batch in batches]
    for group in groups:
        with ExitStack() as stack:
            sides = [
                [stack.enter_context(start(__file__, name, batch=batch, dtype=dtype)) for name in ("ours", "pytorch")]
                for batch, dtype in group
            ]
            for worker in (worker for pair in sides for worker in pair):
                worker.wait_until_ready()
            for (batch, dtype), pair in zip(group, sides, strict=True):
                turns = (prepare(worker, "segment") for worker in pair)
                us, peer = take_turns(dict(zip(("ours", "pytorch"), turns, strict=True)), rounds).values()
                case = f"FCN-8s VGG16, {HEIGHT}x{WIDTH}, batch {batch}"
                report(recorder, "images to class maps", case, dtype, rates(batch, us), "PyTorch", rates(batch, peer))


def reference(recorder: history.Recorder, temporary: Path, rounds: int) -> None:
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
    with start(__file__, "ours_reference") as ours, Worker([python, "-c", OPENCV, str(temporary)], environment) as peer:
        found = take_turns({"ours": prepare(ours, "score"), "peer": prepare(peer, "score")}, rounds)
    case = f"the reference's voc-fcn8s, {HEIGHT}x{WIDTH}"
    report(recorder, "image to scores", case, "float32", rates(1, found["ours"]), "OpenCV", rates(1, found["peer"]))


def folder(recorder: history.Recorder, temporary: Path, rounds: int, images: Path | None, count: int) -> None:
    """Measure the rows of the folder."""
    if images is None:
        images = temporary / "images"
        draw(images, count)
    number, sizes = describe(images)
    environment = forget_compiled()

    def start_ours(cache: str) -> Worker:
        out = str(temporary / "ours")
        return start(__file__, "ours_folder", environment, images=str(images), out=out, cache=cache)

    def measure_first_pass(cache: str | None = None) -> float:
        with start_ours(cache or tempfile.mkdtemp(dir=temporary)) as worker:
            return worker.measure("pass")

    kept = str(temporary / "cache")
    peer = start(__file__, "pytorch_folder", environment, images=str(images), out=str(temporary / "peer"))
    with start_ours(kept) as ours, peer:
        for worker in (ours, peer):
            worker.measure("pass")  # compiles
        candidates = {
            "first pass": measure_first_pass,
            "peer": functools.partial(peer.measure, "pass"),
            "second pass": functools.partial(ours.measure, "pass"),
            "first pass of the next start": functools.partial(measure_first_pass, kept),
        }
        found = {name: rates(number, seconds) for name, seconds in take_turns(candidates, rounds).items()}
    case, theirs = f"{number} files of {sizes} sizes, FCN-8s ResNet34", found.pop("peer")
    for which, us in found.items():
        report(recorder, f"files to PNGs, {which}", case, "float32", us, "PyTorch", theirs)


def report(
    recorder: history.Recorder,
    task: str,
    case: str,
    dtype: str,
    ours: Sequence[float],
    peer: str,
    theirs: Sequence[float],
) -> None:
    """Record images/s and print the row."""
    found = recorder.add(task, f"{case}, {dtype}", "images/s", ours, peer, theirs)
    print(row(f"{case}, {task}", dtype, found.ours, peer, found.peer_value, history.describe_ratio(found)), flush=True)


def rates(images: int, times: Sequence[float]) -> list[float]:
    """Convert seconds to images/s."""
    return [images / time for time in times]


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
