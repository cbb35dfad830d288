"""The time from a command to its first result: `python benchmarks/startup.py [--quick]`.

- `fcn-jax --help`, to its end.
- `fcn-jax train fcn8s` (ResNet34 from scratch, on the data set that the program draws), to the end of its first step:
  cold, with an empty cache, so that data are drawn and programs compiled; and warm, another run with the same cache.
- `fcn-jax predict`, to the first PNG: cold and warm as above.
- PyTorch: a script that imports it and does one step on data in memory, or reads its weights and segments one image to
  a PNG, with FCN-8s on ResNet34. It compiles nothing, so it has no warm start.
- Building a data set's files, in MB of its source a second, against copying the same files and against their SHA-256.

`--voc` and `--camvid` name the folders of the data; a data set whose folder is missing is left out. What is compared
takes turns (turns.py); a cold start is measured once.
"""

import argparse
import hashlib
import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import history
from markdown_table import head, row
from separate import forget_compiled
from turns import ROUNDS, take_turns

SHARED = Path(__file__).parents[2] / "shared" / "data"
PROGRAM = [sys.executable, "-m", "fcn_jax"]
SEGMENTED = "segmenting: 1 of 1 images"  # the progress of predict, after the image is written
PYTORCH = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy, torch
from PIL import Image
from pytorch_networks import CLASSES, torch_fcn8s
model = torch_fcn8s("resnet34").to(memory_format=torch.channels_last)
if sys.argv[2] == "weights":
    torch.save(model.state_dict(), sys.argv[4])
elif sys.argv[2] == "step":
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(8, 3, 96, 96).to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (8, 96, 96))
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
else:
    model.load_state_dict(torch.load(sys.argv[5], weights_only=True))
    image = torch.from_numpy(numpy.array(Image.open(sys.argv[3]).convert("RGB"))).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        classes = model.eval()(image).argmax(dim=1)[0].to(torch.uint8).numpy()
    Image.fromarray(classes).save(sys.argv[4])
print("done", flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--voc", type=Path, default=SHARED / "VOCdevkit")
    parser.add_argument("--camvid", type=Path, default=SHARED / "camvid")
    history.add_argument(parser)
    options = parser.parse_args()
    recorder = history.Recorder("startup", options.quick, options.history)
    print(f"{recorder.describe()}\n")
    with tempfile.TemporaryDirectory() as folder:
        rounds = 2 if options.quick else ROUNDS
        measure_starts(recorder, Path(folder), rounds)
        print("\n" + head("data", "MB", "built, s", "MB/s", "copied, MB/s", "SHA-256, MB/s"))
        for name, source in {"voc2012": options.voc, "camvid": options.camvid}.items():
            if source.is_dir():
                measure_building(recorder, name, source, Path(folder), rounds)


def measure_starts(recorder: history.Recorder, folder: Path, rounds: int) -> None:
    """Measure the seconds that each command takes, and print the table."""
    print(head("command", "cold", "warm", "PyTorch", "× PyTorch, warm"))
    helps = take_turns({"ours": partial(until, [*PROGRAM, "--help"])}, rounds)["ours"]
    helps = recorder.add("warm start", "fcn-jax --help", "s", helps)
    print(row("fcn-jax --help", "", f"{helps.ours:.2f}", "", ""), flush=True)

    def first_step(name: str) -> float:
        command = [*PROGRAM, "train", "fcn8s", "--run-dir", f"{folder}/{name}", "--data.cache", f"{folder}/cache"]
        return until([*command, "--log-every", "1", "--steps", "1"], "step 1/", ends=name == "run")

    image, weights = folder / "image.png", folder / "weights.pt"
    draw(image)

    def first_image(name: str) -> float:
        command = [*PROGRAM, "predict", f"{folder}/run", str(image), "--out", f"{folder}/out-{name}"]
        return until(command, SEGMENTED, cache=folder / "user-cache")

    def peer(what: str) -> float:
        written = weights if what == "weights" else folder / "peer.png"
        script = [sys.executable, "-c", PYTORCH, str(Path(__file__).parent), what, str(image), str(written)]
        return until([*script, str(weights)], "done")

    peer("weights")
    rows = {"train fcn8s, first step": (first_step, "run"), "predict, weights to first PNG": (first_image, "cold")}
    numbers = itertools.count()  # each start has a folder of its own: what is there would be resumed
    for what, (command, first) in rows.items():
        setting = f"fcn-jax {what}"
        cold = recorder.add("cold start", setting, "s", [command(first)])
        candidates = {
            "ours": lambda command=command: command(f"warm-{next(numbers)}"),
            "peer": partial(peer, what.split()[-1].lower()),
        }
        found = take_turns(candidates, rounds)
        warm = recorder.add("warm start", setting, "s", found["ours"], "PyTorch script", found["peer"])
        seconds = (f"{value:.2f}" for value in (cold.ours, warm.ours, warm.peer_value))
        print(row(setting, *seconds, history.describe_ratio(warm)), flush=True)


def until(command: list[str], begins: str | None = None, ends: bool = False, cache: Path | None = None) -> float:
    """Measure seconds until a command prints a line that begins with `begins`, or, if that is None, until it ends.

    The line may be on the output or on the error stream. After it the command is killed, unless `ends` lets it run to
    its end. `cache` takes the place of the user's own caches.

    Raises:
        SystemExit: the command failed or printed no such line.
    """
    environment = forget_compiled() | ({"XDG_CACHE_HOME": str(cache)} if cache else {})
    began = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
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


def draw(file: Path) -> None:
    """Write an image of VOC's size."""
    import numpy as np
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (375, 500, 3), np.uint8)).save(file)


def measure_building(recorder: history.Recorder, name: str, source: Path, folder: Path, rounds: int) -> None:
    """Measure how fast a data set is built, and print its row."""
    import contextlib
    import io

    from fcn_jax.data import dataset as datasets

    files = [file for file in source.rglob("*") if file.is_file()]
    megabytes = sum(file.stat().st_size for file in files) / 1e6

    target = folder / name

    def build() -> float:
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            datasets.prepare(name, source, target)
        return time.perf_counter() - began

    def copy() -> float:
        began = time.perf_counter()
        shutil.copytree(source, target)
        return time.perf_counter() - began

    def digest() -> float:
        began = time.perf_counter()
        for file in files:
            hashlib.sha256(file.read_bytes()).hexdigest()
        return time.perf_counter() - began

    def clear_and(measured: Callable[[], float]) -> float:
        shutil.rmtree(target, ignore_errors=True)
        return measured()

    digest()  # so that the files of all rounds are in memory
    found = take_turns({what.__name__: partial(clear_and, what) for what in (build, copy, digest)}, rounds)
    built, copied, hashed = ([megabytes / one for one in values] for values in found.values())
    took = found["build"]
    setting = f"{name}, {megabytes:.0f} MB"
    time_built = recorder.add("time to build the data set", setting, "s", took)
    beside_copy = recorder.add("building the data set", setting, "MB/s", built, "copying", copied)
    beside_hash = recorder.add("building the data set", setting, "MB/s", built, "SHA-256", hashed)
    rates = (f"{value:.0f}" for value in (beside_copy.ours, beside_copy.peer_value, beside_hash.peer_value))
    print(row(name, f"{megabytes:.0f}", f"{time_built.ours:.1f}", *rates), flush=True)


if __name__ == "__main__":
    main()
