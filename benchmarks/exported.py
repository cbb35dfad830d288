"""Compare runtimes and number formats for an exported network: images/s and mean IU on the images of val.

    python benchmarks/exported.py RUN [--count 12] [--rounds 15]

`RUN` is a run directory whose data is there. Every runtime segments the same images, one at a time, and by turns:
this package, onnxruntime in float32 and in int8, OpenVINO in float32 and in bfloat16. OpenVINO is measured if it is
installed (`pip install --no-deps openvino`). int8 is onnxruntime's static quantization of the convolutions (QDQ, a
scale for each channel of a kernel), calibrated on images of train. The first convolution and the scores stay float32.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import history
import numpy as np
import onnx
import onnxruntime
from turns import ROUNDS, take_turns

from fcn_jax import Segmenter
from fcn_jax.data.dataset import Example, prepare_configured
from fcn_jax.inference.export.export import export
from fcn_jax.inference.metrics import compute_metrics, confusion_matrix
from fcn_jax.runs.run_dir import open_run

CALIBRATION = 8  # images of train
Runtime = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--count", type=int, default=12, help="number of images, evenly spread over val")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often the runtimes take their turn")
    parser.add_argument("--quick", action="store_true", help="two images, one round")
    history.add_argument(parser)
    options = parser.parse_args()
    count, rounds = (2, 1) if options.quick else (options.count, options.rounds)
    recorder = history.Recorder("exported", options.quick, options.history)
    print(recorder.describe())

    run = open_run(options.run)
    data = prepare_configured(run.config.data, run.options.data)
    examples = choose_evenly(data.source(run.options.data.val_split or "val"), count)
    training = choose_evenly(data.source(run.config.data.train_split), min(CALIBRATION, count))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "exported")
        export(run, folder, examples[:1], formats=("onnx",))
        model = folder / "model.onnx"
        segment = Segmenter.from_run(options.run)
        runtimes: dict[str, Runtime] = {
            "fcn_jax, float32": segment,
            "onnxruntime, float32": open_onnxruntime(model),
            "onnxruntime, int8": open_onnxruntime(quantize(model, [example.image for example in training])),
            **open_openvino(model),
        }
        speeds, scores = measure_all(runtimes, examples, rounds, len(run.class_names))
    setting = f"{run.config.model.head}, {run.config.model.backbone}, {run.config.data.name}, {count} images"
    record(recorder, setting, speeds, scores)


def record(recorder: history.Recorder, setting: str, speeds: dict[str, list[float]], scores: dict[str, float]) -> None:
    """Append the images/s of each runtime, compared with those of the first one, and its mean IU; and print them."""
    first = next(iter(speeds))
    for name in speeds:
        peer = (first, speeds[first]) if name != first else ("", ())
        row = recorder.add("exported network", f"{name}; {setting}", "images/s", speeds[name], *peer)
        recorder.add("mean IU", f"{name}; {setting}", "%", [100 * scores[name]])
        print(f"{name:24} {row.ours:8.3f} images/s  mean IU {100 * scores[name]:.2f} %", flush=True)


def choose_evenly(source: Sequence[Example], count: int) -> list[Example]:
    places = np.unique(np.linspace(0, len(source) - 1, count).round().astype(int))
    return [source[place] for place in places]


def measure_all(
    runtimes: dict[str, Runtime], examples: Sequence[Example], rounds: int, classes: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return the images/s of each runtime in each round, and its mean IU over the images."""
    scores = {}
    for name, segment in runtimes.items():  # warms up; each size of image compiles once
        confusion = sum(confusion_matrix(example.label, segment(example.image), classes) for example in examples)
        scores[name] = compute_metrics(np.asarray(confusion)).mean_iu

    def measure(segment: Runtime) -> float:
        began = time.perf_counter()
        for example in examples:
            segment(example.image)
        return len(examples) / (time.perf_counter() - began)

    speeds = take_turns({name: partial(measure, segment) for name, segment in runtimes.items()}, rounds)
    return speeds, scores


def open_onnxruntime(file: Path) -> Runtime:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    # Threads that wait for work must not take the processor from the runtime whose turn it is.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(["class_map"], {"image": image[None]})[0][0]


def quantize(file: Path, images: Sequence[np.ndarray]) -> Path:
    """Write the network in int8 beside `file`, calibrated on images."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self):
            self._images = iter(images)

        def get_next(self):
            return next(({"image": image[None]} for image in self._images), None)

    graph = onnx.load(file).graph
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    outputs = {array.name: array.dims[0] for array in graph.initializer if array.dims}
    fewest = min(outputs[node.input[1]] for node in convolutions)  # the scores have one output for each class
    kept = [convolutions[0].name, *(node.name for node in convolutions if outputs[node.input[1]] == fewest)]
    target = file.with_name("int8.onnx")
    quantize_static(
        file,
        target,
        Images(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=kept,
    )
    return target


def open_openvino(file: Path) -> dict[str, Runtime]:
    """Open the network in OpenVINO, if that is installed, in each number format that this processor computes fast."""
    sys.modules["openvino_telemetry"] = None  # pyright: ignore[reportArgumentType] - it reports each import to its maker
    try:
        import openvino
    except ImportError:
        return {}
    core = openvino.Core()
    formats = {"float32": "f32"}
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        formats["bfloat16"] = "bf16"

    def open_in(precision: str) -> Runtime:
        program = core.compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": precision})
        return lambda image: program({"image": image[None]})["class_map"][0]

    return {f"OpenVINO, {name}": open_in(precision) for name, precision in formats.items()}


if __name__ == "__main__":
    main()
