"""Segmenting images, against PyTorch and OpenCV: `python benchmarks/inference.py [--quick] [ROW ...]`.

- `batch1`, `batch16`: FCN-8s on VGG16 (fc6 7x7, 4096 channels) at 375x500, from images in memory to class maps. PyTorch
  uses the better of its two memory formats and all cores; on a GPU `torch.compile`, cuDNN's benchmark and, for
  bfloat16, autocast.
- `reference`: the scores of the reference's voc-fcn8s, its border of 100 pixels included, against OpenCV's DNN, which
  runs the reference's own prototxt: the environment variable FCN_REFERENCE names a clone of
  github.com/shelhamer/fcn.berkeleyvision.org. OpenCV has an environment of its own, made the first time.
- `folder`: JPEGs of mixed sizes to PNGs of their classes, FCN-8s on ResNet34. PyTorch: a plain loop of Pillow, the
  network at the image's own size, and Pillow. Ours is `fcn-jax predict`, which also draws and writes an overlay.
  Its first pass compiles, as it does in use; the second finds the programs compiled, and the next start finds them on
  the disk. `--images FOLDER` takes your own.

Each measurement is a process of its own, ours and the peer's by turns.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from train_step import CLASSES, has_gpu, seconds, torch_fcn8s

HEIGHT, WIDTH = 375, 500
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; none: all")
    parser.add_argument("--quick", action="store_true", help="few repetitions and images, no batch16")
    parser.add_argument("--files", type=int, help="how many are drawn without --images; none: 84, quickly 21")
    parser.add_argument("--images", type=Path, help="folder of images for the row `folder`; none: drawn ones")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, *arguments = options.measure
        print(json.dumps(MEASURES[name](*arguments)))
        return
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"{', '.join(unknown)}: rows are {', '.join(ROWS)}")
    rows = options.rows or [row for row in ROWS if not (options.quick and row == "batch16")]
    rounds = 1 if options.quick else 2
    print(f"{os.cpu_count()} cores {platform.machine()}, load at the start {os.getloadavg()[0]:.1f}\n")
    print("| what | dtype | ours, images/s | peer | peer, images/s | × |\n| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        with tempfile.TemporaryDirectory() as temporary:
            if row == "reference":
                reference(Path(temporary), 1 if options.quick else 6, 3 if options.quick else 6)
            elif row == "folder":
                folder(Path(temporary), rounds, options.images, options.files or (21 if options.quick else 84))
            else:
                batch = int(row.removeprefix("batch"))
                for dtype in ("float32", "bfloat16") if has_gpu() else ("float32",):
                    arguments = (str(batch), dtype, str(max(2, 8 // batch)))
                    us, peer = by_turns(rounds, ("ours", *arguments), ("pytorch", *arguments))
                    line(f"FCN-8s VGG16, {HEIGHT}x{WIDTH}, batch {batch}", dtype, batch / us, "PyTorch", batch / peer)


def reference(temporary: Path, rounds: int, repeats: int) -> None:
    """The row of the reference's network."""
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
    us, peer = by_turns(rounds, ("ours_reference", str(repeats)), [python, "-c", OPENCV, str(temporary), str(repeats)])
    line(f"the reference's voc-fcn8s, {HEIGHT}x{WIDTH}, scores", "float32", 1 / us, "OpenCV", 1 / peer)


def folder(temporary: Path, rounds: int, images: Path | None, count: int) -> None:
    """The rows of the folder."""
    if images is None:
        images = temporary / "images"
        draw(images, count)
    number, sizes = describe(images)
    found = []
    for index in range(rounds):
        command = ("ours_folder", str(images), str(temporary / "ours"), str(temporary / f"cache{index}"))
        passes = [*run(command), *run(command)[:1]]
        found.append([*passes, run(("pytorch_folder", str(images), str(temporary / "peer")))])
    *rates, peer = (number / statistics.median(values) for values in zip(*found, strict=True))
    for which, us in zip(("first pass", "second pass", "first pass of the next start"), rates, strict=True):
        line(f"{number} files of {sizes} sizes to PNGs, ResNet34, {which}", "float32", us, "PyTorch", peer)


def line(what: str, dtype: str, ours: float, peer: str, theirs: float) -> None:
    """A row of the table; the last column is above 1 where ours is faster."""
    print(f"| {what} | {dtype} | {ours:.3g} | {peer} | {theirs:.3g} | {ours / theirs:.2f} |", flush=True)


def by_turns(rounds: int, *commands: tuple[str, ...] | list[str]) -> list[float]:
    """Medians over the rounds of what each command measures."""
    found = [[run(command) for command in commands] for _ in range(rounds)]
    return [statistics.median(values) for values in zip(*found, strict=True)]


def run(command: tuple[str, ...] | list[str]):
    """What a measurement, or a command line, prints as its last line."""
    # With JAX's own variables a first pass would find its programs, or the next start would not.
    cache = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in cache}
    if isinstance(command, tuple):
        command = [sys.executable, __file__, "--measure", *command]
    else:
        environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------------------------------------------- measurements


def ours(batch: str, dtype: str, repeats: str) -> float:
    """Seconds from uint8 images to class maps, by the program's own forward pass."""
    import jax
    import numpy as np

    from fcn_jax.data.batches import Batch

    forward, variables = ours_network("vgg16", dtype)
    count = int(batch)
    data = Batch(
        np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8),
        np.zeros((count, HEIGHT, WIDTH), np.uint8),
        np.full((count, 2), (HEIGHT, WIDTH), np.int32),
    )
    data = jax.device_put(data)
    return seconds(lambda: jax.block_until_ready(forward(variables, data)), int(repeats))


def pytorch(batch: str, dtype: str, repeats: str) -> float:
    """Seconds from normalised images to class maps, in the memory format that is faster."""
    import torch

    model, device, context = torch_network("vgg16", dtype)
    cuda = device == "cuda"
    images = torch.randn(int(batch), 3, HEIGHT, WIDTH, device=device)

    def measured(form: torch.memory_format, repeats: int) -> float:
        call = model.to(memory_format=form)
        call = torch.compile(call) if cuda else call
        placed = images.to(memory_format=form)

        def classes() -> None:
            with torch.inference_mode(), context():
                call(placed).argmax(dim=1)
            if cuda:
                torch.cuda.synchronize()

        return seconds(classes, repeats)

    form = min((torch.contiguous_format, torch.channels_last), key=lambda form: measured(form, 1))
    return measured(form, int(repeats))


def ours_reference(repeats: str) -> float:
    """Seconds from a normalised image to the scores of the reference's network."""
    import jax
    import jax.numpy as jnp

    from fcn_jax.layers.conv import compiler_options
    from fcn_jax.models.reference import NETWORKS

    model = NETWORKS["voc-fcn8s"]
    images = jax.random.normal(jax.random.key(0), (1, HEIGHT, WIDTH, 3))
    variables = jax.jit(model.init)(jax.random.key(1), jnp.zeros((1, 32, 32, 3)))
    apply = jax.jit(model.apply, compiler_options=compiler_options(training=False))
    return seconds(lambda: jax.block_until_ready(apply(variables, images)), int(repeats))


def ours_folder(images: str, out: str, cache: str) -> list[float]:
    """Seconds from files to PNGs, the first time and once more."""
    from fcn_jax.data.labels import palette
    from fcn_jax.inference.predict import find_images, predict
    from fcn_jax.runtime.compile_cache import keep_compiled

    keep_compiled(Path(cache))
    forward, variables = ours_network("resnet34", "float32")
    files = find_images([images])
    times = []
    for _ in range(2):
        began = time.perf_counter()
        written = list(predict(forward, variables, files, Path(out), palette(CLASSES), batch_size()))
        times.append(time.perf_counter() - began)
        assert len(written) == len(files)
    return times


def pytorch_folder(images: str, out: str) -> float:
    """Seconds from files to PNGs by a plain loop, after one image that warms up."""
    import numpy as np
    import torch
    from PIL import Image

    model, device, _ = torch_network("resnet34", "float32")
    model = model.to(memory_format=torch.channels_last)
    Path(out).mkdir(exist_ok=True)
    mean, deviation = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in ((124.0, 117, 104), (58.4, 57.1, 57.4)))

    def segment(file: Path) -> None:
        with Image.open(file) as picture:
            pixels = np.array(picture.convert("RGB"))
        image = torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None]
        image = ((image.float() - mean) / deviation).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            classes = model(image).argmax(dim=1)[0].to(torch.uint8).cpu().numpy()
        Image.fromarray(classes).save(Path(out, f"{file.stem}.png"))

    files = sorted(Path(images).iterdir())
    segment(files[0])
    began = time.perf_counter()
    for file in files:
        segment(file)
    return time.perf_counter() - began


MEASURES = {function.__name__: function for function in (ours, pytorch, ours_reference, ours_folder, pytorch_folder)}


def ours_network(backbone: str, dtype: str):
    """The forward pass without labels, and random variables whose classes vary."""
    import jax
    import jax.numpy as jnp

    from fcn_jax.config import ModelConfig
    from fcn_jax.inference.segment import make_forward
    from fcn_jax.models.build import build

    config = ModelConfig(backbone=backbone, dtype=dtype)
    model = build(config, CLASSES)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    for name in ("score_fr", "score_pool4", "score_pool3"):  # they start at zero
        kernel = variables["params"][name]["kernel"]
        variables["params"][name]["kernel"] = jax.random.normal(jax.random.key(1), kernel.shape) * 0.02
    return make_forward(model, config.settled_input, labelled=False), variables


def torch_network(backbone: str, dtype: str):
    """The peer's network, ready to infer; its device; what to call it under."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    torch.backends.cudnn.benchmark = True
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = torch_fcn8s(backbone).eval().to(device)
    return model, device, lambda: torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")


def batch_size() -> int:
    """Images at once, as `fcn-jax predict` chooses them."""
    from fcn_jax.inference.segment import default_batch_size

    return default_batch_size(None)


def draw(folder: Path, count: int) -> None:
    """Writes JPEGs that compress about as photographs do: coarse and fine noise."""
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
    """How many images, and of how many sizes."""
    from PIL import Image

    files = list(folder.iterdir())
    return len(files), len({Image.open(file).size for file in files})


if __name__ == "__main__":
    main()
