"""From a command to what it is for: `python benchmarks/startup.py [--quick]`.

- `fcn-jax --help`, to its end.
- `fcn-jax train fcn8s` (ResNet34 from scratch, on the data set that the program draws), to the end of its first step:
  cold, with an empty cache, so that data are drawn and programs compiled; and warm, another run with the same cache.
- `fcn-jax predict`, to the first PNG: cold and warm likewise.
- PyTorch: a script that imports it and does one step, or segments one image to a PNG, with FCN-8s on ResNet34, whose
  data are in memory. It compiles nothing, so it has no warm start.
- Building a data set's files, in MB of its source a second, against copying the same files and against their SHA-256.

`--voc` and `--camvid` name the folders of the data, and what is missing is left out. Warm is the median of several.
"""

import argparse
import hashlib
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SHARED = Path(__file__).parents[2] / "shared" / "data"
PROGRAM = [sys.executable, "-m", "fcn_jax"]
PYTORCH = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy, torch
from PIL import Image
from train_step import CLASSES, torch_fcn8s
model = torch_fcn8s("resnet34").to(memory_format=torch.channels_last)
if sys.argv[2] == "step":
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(8, 3, 96, 96).to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (8, 96, 96))
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
else:
    image = torch.from_numpy(numpy.array(Image.open(sys.argv[3]).convert("RGB"))).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        classes = model.eval()(image).argmax(dim=1)[0].to(torch.uint8).numpy()
    Image.fromarray(classes).save(sys.argv[4])
print("done", flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="each once")
    parser.add_argument("--voc", type=Path, default=SHARED / "VOCdevkit")
    parser.add_argument("--camvid", type=Path, default=SHARED / "camvid")
    options = parser.parse_args()
    repeats = 1 if options.quick else 5
    print(f"{os.cpu_count()} cores {platform.machine()}, load at the start {os.getloadavg()[0]:.1f}\n")
    with tempfile.TemporaryDirectory() as folder:
        starts(Path(folder), repeats)
        print("\n| data | MB | built, s | MB/s | copied, MB/s | SHA-256, MB/s |\n| --- | --- | --- | --- | --- | --- |")
        for name, source in {"voc2012": options.voc, "camvid": options.camvid}.items():
            if source.is_dir():
                built(name, source, Path(folder), 1 if options.quick else 3)


def starts(folder: Path, repeats: int) -> None:
    """Prints what each command takes, in seconds."""
    print("| command | cold | warm | PyTorch | × PyTorch, warm |\n| --- | --- | --- | --- | --- |")
    print(f"| fcn-jax --help | | {median(repeats, lambda _: until([*PROGRAM, '--help'])):.2f} | | |", flush=True)

    def first_step(name: int | str) -> float:
        command = [*PROGRAM, "train", "fcn8s", "--run-dir", f"{folder}/{name}", "--data.cache", f"{folder}/cache"]
        return until([*command, "--log-every", "1", "--steps", "1"], "step 1/", ends=name == "run")

    image = folder / "image.png"
    draw(image)

    def first_image(name: int | str) -> float:
        return until([*PROGRAM, "predict", f"{folder}/run", str(image), "--out", f"{folder}/out-{name}"], "1/1 ")

    def peer(what: str) -> float:
        script = [sys.executable, "-c", PYTORCH, str(Path(__file__).parent), what, str(image), f"{folder}/peer.png"]
        return median(repeats, lambda _: until(script, "done"))

    rows = {"train fcn8s, first step": (first_step, "run"), "predict, first PNG": (first_image, "cold")}
    for what, (command, first) in rows.items():
        cold, warm = command(first), median(repeats, command)
        theirs = peer(what.split()[-1].lower())
        print(f"| fcn-jax {what} | {cold:.2f} | {warm:.2f} | {theirs:.2f} | {theirs / warm:.2f} |", flush=True)


def until(command: list[str], begins: str | None = None, ends: bool = False) -> float:
    """Seconds until a command prints a line that begins so, or ends; it is killed there unless it is to end."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if begins is not None and line.startswith(begins):
                seconds = time.perf_counter() - began
                break
        else:
            if process.wait() or begins is not None:
                raise SystemExit(f"{' '.join(command)} ended with {process.returncode} and printed no {begins!r}")
            return time.perf_counter() - began
        if ends:
            process.stdout.read()
            process.wait()
        else:
            process.kill()
    return seconds


def median(repeats: int, measured: Callable[[int], float]) -> float:
    return statistics.median(measured(index) for index in range(repeats))


def draw(file: Path) -> None:
    """Writes an image of VOC's size."""
    import numpy as np
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (375, 500, 3), np.uint8)).save(file)


def built(name: str, source: Path, folder: Path, rounds: int) -> None:
    """Prints a line of how fast a data set is built."""
    import contextlib
    import io

    from fcn_jax.data import dataset as datasets

    files = [file for file in source.rglob("*") if file.is_file()]
    megabytes = sum(file.stat().st_size for file in files) / 1e6

    def build(index: int) -> float:
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            datasets.prepare(name, source, folder / f"{name}-{index}")
        return time.perf_counter() - began

    def copy(index: int) -> float:
        began = time.perf_counter()
        shutil.copytree(source, folder / f"copy-{name}-{index}")
        return time.perf_counter() - began

    def digest(_: int) -> float:
        began = time.perf_counter()
        for file in files:
            hashlib.sha256(file.read_bytes()).hexdigest()
        return time.perf_counter() - began

    seconds = [median(rounds, measured) for measured in (digest, build, copy)]
    hashed, took, copied = seconds
    print(
        f"| {name} | {megabytes:.0f} | {took:.1f} | {megabytes / took:.0f} | {megabytes / copied:.0f} "
        f"| {megabytes / hashed:.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
