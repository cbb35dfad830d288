"""The README that lies beside exported files: what the network is, what it takes and gives, and how to use it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fcn_jax.config import InputConfig
from fcn_jax.data.tasks import Task, list_suffixes
from fcn_jax.inference.card import (
    LICENCE,
    describe_counts,
    list_classes,
    list_scores,
    list_title,
    list_training,
)
from fcn_jax.inference.export.parity import Parity
from fcn_jax.runs.run_dir import Run

_OPEN = "from PIL import Image\n", 'image = np.asarray(Image.open("photo.jpg").convert("RGB"))\n'  # for photographs
_USES = {
    "model.onnx": """import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("model.onnx")
notes = session.get_modelmeta().custom_metadata_map
image = np.asarray(Image.open("photo.jpg").convert("RGB"))
outputs = [CLASS_MAPS]
for output, class_map in zip(outputs, session.run(outputs, {"image": image[None]})):
    names = notes[output.replace("class_map", "class_names")].split("\\n")
    for index in np.unique(class_map):
        print(names[index], (class_map == index).mean())
""",
    "model.stablehlo": """import numpy as np
from jax import export
from PIL import Image

with open("model.stablehlo", "rb") as file:
    program = export.deserialize(bytearray(file.read()))
image = np.asarray(Image.open("photo.jpg").convert("RGB"))
for class_map in map(np.asarray, program.call(image[None])[:TASKS]):
    for index in np.unique(class_map):
        print(index, (class_map == index).mean())
""",
    "model.safetensors": """from safetensors.numpy import load_file

for path, array in load_file("model.safetensors").items():
    print(path, array.shape)
""",
}
_MEANINGS = {
    "model.onnx": "the network with all it needs, for onnxruntime, OpenVINO and other runtimes; no JAX",
    "model.stablehlo": "the same for JAX alone, in the format of `jax.export`, for CPU, CUDA and TPU",
    "model.safetensors": "the parameters; `--model.weights model.safetensors` trains on from them",
}


def _describe_image(given: InputConfig) -> str:
    if given.is_colour_alone:
        return "uint8[batch, height, width, 3], RGB, 0 to 255"
    channels = ", ".join(f"{name} ({count})" for name, count in given.channels)
    return f"{given.dtype}[batch, height, width, {given.num_channels}], with the channels {channels} side by side"


def write_card(
    run: Run,
    step: int,
    scores: Mapping[str, Any] | None,
    parities: Mapping[str, Sequence[Parity]],
    probabilities: bool,
) -> str:
    """Write the README.

    Args:
        run: the run.
        step: the step of the exported checkpoint.
        scores: the line of `metrics.jsonl` with its scores on val; None: it was not scored.
        parities: for each exported program its comparison with the network in each task.
        probabilities: whether the programs give probabilities, too.
    """
    model, suffixes = run.config.model, list_suffixes(run.tasks)
    files = [*parities, "model.safetensors"]
    lines = [
        *list_title(run),
        f"A Fully Convolutional Network for semantic segmentation with {describe_counts(run)} classes, "
        f"exported by fcn_jax after {step} steps.",
        "",
        "| file | what it is |",
        "| --- | --- |",
        *(f"| `{name}` | {_MEANINGS[name]} |" for name in files),
        "| `parity.json` | how the programs compare with the network they were made from |",
        "",
        "## Input and output",
        "",
        f"- `image`: {_describe_image(model.input_or_default)}, any size. Colour order, mean and deviation of the "
        "training are part of the program: give plain images.",
        *(
            f"- `class_map{suffix}`: uint8[batch, height, width], the index of each pixel's class{_name(' in', task)}."
            for suffix, task in zip(suffixes, run.tasks, strict=True)
        ),
    ]
    if probabilities:
        lines += [
            f"- `probabilities{suffix}`: float32[batch, height, width, {len(task.class_names)}], "
            f"with a sum of 1 in each pixel{_name(', of', task)}."
            for suffix, task in zip(suffixes, run.tasks, strict=True)
        ]
    if len(run.tasks) > 1:
        lines.append("- `model.stablehlo` returns these outputs as a tuple, in this order.")
    lines += list_classes(run) + list_scores(run, step, scores)
    lines += [
        "",
        "Each program was loaded again in its runtime and compared with the network:",
        "",
        "| file | images | pixels | of another class | mean IU of these images, % | of the network, % |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, tasks in parities.items():
        for task, parity in zip(run.tasks, tasks, strict=True):
            means = (parity.mean_iu, parity.mean_iu_of_network)
            ious = ("no labels" if math.isnan(iu) else f"{100 * iu:.2f}" for iu in means)
            counts = f"{parity.images} | {parity.pixels} | {parity.other_classes}"
            lines.append(f"| `{name}`{_name(',', task)} | {counts} | {' | '.join(ious)} |")
    lines += [
        *list_training(run),
        f"- The programs compute in float32. The network was trained in {model.dtype}.",
        LICENCE,
        "",
        "## Use",
    ]
    for name in files:
        code = write_use(name, suffixes, model.input_or_default)
        lines += ["", f"`{name}`:", "", "```python", *code.splitlines(), "```"]
    return "\n".join(lines) + "\n"


def write_use(name: str, suffixes: Sequence[str], given: InputConfig) -> str:
    """Write the program that shows how an exported file is used.

    Args:
        name: the name of the file.
        suffixes: what the name of the output of each task ends with.
        given: the input of the network.
    """
    class_maps = ", ".join(f'"class_map{suffix}"' for suffix in suffixes)
    code = _USES[name].replace("CLASS_MAPS", class_maps).replace("TASKS", str(len(suffixes)))
    if given.is_colour_alone:
        return code
    # There is no usual file for other inputs: an array that the reader makes.
    load = f'image = np.load("image.npy")  # {given.dtype}[height, width, {given.num_channels}]\n'
    return code.replace(_OPEN[0], "").replace(_OPEN[1], load)


def _name(before: str, task: Task) -> str:
    """Name one of several tasks after a word; return nothing for the only one."""
    return f"{before} the {task.name} task" if task.name else ""
