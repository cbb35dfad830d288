"""The README that lies beside exported files: what the network is, what it takes and gives, and how to use it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fcn_jax.config import InputConfig
from fcn_jax.inference.export.parity import Parity
from fcn_jax.runs.run_dir import Run


def list_colours(palette: UInt8[np.ndarray, "classes 3"]) -> list[str]:
    """Return the colours of the classes as #rrggbb."""
    return ["#" + bytes(colour).hex() for colour in palette]


LICENCE = "- Licence: that of the data and of the weights at the start apply; name yours here before you publish it."
_USES = {
    "model.onnx": """import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("model.onnx")
names = session.get_modelmeta().custom_metadata_map["class_names"].split("\\n")
image = np.asarray(Image.open("photo.jpg").convert("RGB"))
(class_map,) = session.run(["class_map"], {"image": image[None]})
for index in np.unique(class_map):
    print(names[index], (class_map == index).mean())
""",
    "model.stablehlo": """import numpy as np
from jax import export
from PIL import Image

with open("model.stablehlo", "rb") as file:
    program = export.deserialize(bytearray(file.read()))
image = np.asarray(Image.open("photo.jpg").convert("RGB"))
class_map = np.asarray(program.call(image[None])[0])
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
    run: Run, step: int, scores: Mapping[str, Any] | None, parities: Mapping[str, Parity], probabilities: bool
) -> str:
    """Write the README.

    Args:
        run: the run.
        step: the step of the exported checkpoint.
        scores: the line of `metrics.jsonl` with its scores on val; None: it was not scored.
        parities: for each exported program its comparison with the network.
        probabilities: whether the programs give probabilities, too.
    """
    model = run.config.model
    files = [*parities, "model.safetensors"]
    lines = [
        *list_title(run),
        f"A Fully Convolutional Network for semantic segmentation with {len(run.class_names)} classes, "
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
        "- `class_map`: uint8[batch, height, width], the index of each pixel's class.",
    ]
    if probabilities:
        lines.append(
            f"- `probabilities`: float32[batch, height, width, {len(run.class_names)}], with a sum of 1 in each pixel."
        )
    lines += list_classes(run) + list_scores(run, step, scores)
    lines += [
        "",
        "Each program was loaded again in its runtime and compared with the network:",
        "",
        "| file | images | pixels | of another class | mean IU of these images, % | of the network, % |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, parity in parities.items():
        ious = [
            "no labels" if math.isnan(iu) else f"{100 * iu:.2f}" for iu in (parity.mean_iu, parity.mean_iu_of_network)
        ]
        lines.append(f"| `{name}` | {parity.images} | {parity.pixels} | {parity.other_classes} | {' | '.join(ious)} |")
    lines += [
        *list_training(run),
        f"- The programs compute in float32. The network was trained in {model.dtype}.",
        LICENCE,
        "",
        "## Use",
    ]
    for name in files:
        lines += ["", f"`{name}`:", "", "```python", *_USES[name].splitlines(), "```"]
    return "\n".join(lines) + "\n"


def list_title(run: Run) -> list[str]:
    """Return the lines of a card's heading."""
    return [f"# {run.config.model.head} on {run.config.model.backbone}, trained on {run.config.data.name}", ""]


def list_classes(run: Run) -> list[str]:
    """Return the lines of a card on the classes."""
    rows = enumerate(zip(run.class_names, list_colours(run.palette), strict=True))
    lines = ["", "## Classes", "", "| index | name | colour |", "| --- | --- | --- |"]
    return lines + [f"| {i} | {name} | `{colour}` |" for i, (name, colour) in rows]


def list_scores(run: Run, step: int, scores: Mapping[str, Any] | None) -> list[str]:
    """Return the lines of a card on the scores; the arguments are those of `write_card`."""
    lines = ["", "## Scores", ""]
    if scores is None:
        return [*lines, f"The checkpoint of step {step} was not scored in its training."]
    lines += [f"| on {run.options.data.val_split or 'val'} | % |", "| --- | --- |"]
    names = ("mean_iu", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iu")
    return lines + [f"| {name} | {'-' if scores[name] is None else f'{100 * scores[name]:.2f}'} |" for name in names]


def list_training(run: Run) -> list[str]:
    """Return the lines of a card on the training."""
    model, data = run.config.model, run.config.data
    return [
        "",
        "## Training",
        "",
        f"- Data: {data.name}, split {data.train_split}; names and sizes of its files have the hash `{run.contents}`.",
        f"- Weights at the start: {Path(model.weights).name if model.weights else 'none, from scratch'}.",
        f"- Seed {run.config.seed}, {run.config.steps} steps of {run.config.batch_size} images.",
    ]
