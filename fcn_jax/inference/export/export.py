"""Export a trained network into a folder of files, each of them checked, or into nothing."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from fcn_jax.config import InputConfig
from fcn_jax.data.dataset import Example
from fcn_jax.data.tasks import count_classes, join_maps, list_suffixes
from fcn_jax.errors import InputError
from fcn_jax.inference.card import list_colours
from fcn_jax.inference.export.card import write_card
from fcn_jax.inference.export.parity import ODD, Parity, Result, compare, compute_references
from fcn_jax.inference.export.program import Scores, make_program, make_scores
from fcn_jax.inference.export.stablehlo_file import make_stablehlo
from fcn_jax.layers import jit_options
from fcn_jax.models.build import build
from fcn_jax.runs.metrics_log import find_scores
from fcn_jax.runs.restore import make_weights, restore_variables
from fcn_jax.runs.run_dir import Run
from fcn_jax.runtime.files import make_folder_atomically, write_atomically
from fcn_jax.runtime.json_values import to_json
from fcn_jax.runtime.progress import show_step, track
from fcn_jax.weights import ours

Format = Literal["onnx", "stablehlo"]


def export(
    run: Run,
    out: Path,
    examples: Sequence[Example],
    *,
    step: int | None = None,
    formats: Sequence[Format] = ("onnx", "stablehlo"),
    probabilities: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, tuple[Parity, ...]]:
    """Write `model.onnx`, `model.stablehlo`, `model.safetensors`, `README.md` and `parity.json` into a new folder.

    Each program is loaded again in its own runtime and compared with the network. If one differs, or anything else goes
    wrong, nothing is left. The programs compute in float32.

    Args:
        run: the run.
        out: the folder, which must not exist or be empty.
        examples: images to compare on, at least one; with labels for their mean IU.
        step: the checkpoint; None: the best by mean IU on the val split.
        formats: the programs to write.
        probabilities: whether the programs give the probabilities of the classes, too.
        say: is called with a line for each file.

    Returns:
        For each program how it compares with the network in each task.

    Raises:
        InputError: there is no such checkpoint, `out` is in use or cannot be written, a package is missing, or the
            network cannot be written in a format.
        ExportDiffers: a program computes something else.
    """
    if not examples:
        raise InputError("there is no image to compare the exported programs on; give at least one")
    counts = count_classes(run.tasks)
    config = dataclasses.replace(run.config.model, dtype="float32")
    model, input_config = build(config, *counts), config.input_or_default
    with show_step("reading the checkpoint"):
        variables, step = restore_variables(run, model, step)
    scores = make_scores(model, input_config)
    forward = jax.jit(scores, **jit_options(training=False))
    # By themselves GPUs round the factors of products to 10 bits, TPUs to 8.
    with make_folder_atomically(out) as folder, jax.default_matmul_precision("highest"):
        ours.write(folder / "model.safetensors", make_weights(run, variables, step, run.folder.name))
        say("model.safetensors: written")
        parities, total = {}, len(examples) + len(ODD)
        for name, write in (("model.onnx", _write_onnx), ("model.stablehlo", _write_stablehlo)):
            if name.removeprefix("model.") not in formats:
                continue
            with show_step(f"writing {name}"):
                compute = write(folder / name, run, scores, variables, probabilities)
            # Computed again for each program: the logits of all images would take up to gigabytes.
            references = compute_references(forward, variables, examples)
            parities[name] = compare(name, compute, track(references, f"comparing {name}", total, "images"), counts)
            say(f"{name}: {_describe(run, parities[name])}")
        card = write_card(run, step, find_scores(run.folder, step), parities, probabilities)
        write_atomically(folder / "README.md", card)
        described = {name: _list_values(run, parity) for name, parity in parities.items()}
        write_atomically(folder / "parity.json", json.dumps(to_json({"step": step, **described}), indent=1) + "\n")
    return parities


def _get_input(run: Run) -> InputConfig:
    return run.config.model.input_or_default


def _list_values(run: Run, parities: Sequence[Parity]) -> dict[str, Any]:
    """List the values of the first task, and those of the others under their names."""
    first, *others = (parity._asdict() for parity in parities)
    return {**first, **{task.name: values for task, values in zip(run.tasks[1:], others, strict=True)}}


def _describe(run: Run, parities: Sequence[Parity]) -> str:
    tasks = [
        f"{task.name}: ".lstrip(": ") + _describe_task(parity) for task, parity in zip(run.tasks, parities, strict=True)
    ]
    return f"equal on {parities[0].images} images: {'; '.join(tasks)}"


def _describe_task(parity: Parity) -> str:
    share = f"{parity.other_classes} of {parity.pixels:,} pixels have another class"
    ious = f"; mean IU {parity.mean_iu:.4f}, that of the network {parity.mean_iu_of_network:.4f}"
    return share + ("" if np.isnan(parity.mean_iu) else ious)


def _write_stablehlo(
    file: Path, run: Run, scores: Scores, variables: Any, probabilities: bool
) -> Callable[..., Result]:
    counts = count_classes(run.tasks)
    write_atomically(file, make_stablehlo(make_program(scores, variables, counts, probabilities), _get_input(run)))
    program = jax.export.deserialize(bytearray(file.read_bytes()))

    def compute(image: np.ndarray) -> Result:
        given = [np.asarray(array)[0] for array in program.call(image)]
        class_maps, shares = given[: len(counts)], given[len(counts) :]
        return Result(join_maps(class_maps), None, np.concatenate(shares, axis=-1) if shares else None)

    return compute


def _write_onnx(file: Path, run: Run, scores: Scores, variables: Any, probabilities: bool) -> Callable[..., Result]:
    try:
        import onnx
        import onnxruntime

        from fcn_jax.inference.export.onnx_file import make_onnx
    except ImportError as error:
        raise InputError(
            f"ONNX needs the package {error.name}: pip install 'fcn-jax[export]', or give --formats stablehlo"
        ) from error
    model = make_onnx(scores, variables, run.tasks, probabilities, _get_input(run))
    notes = {}
    for suffix, task in zip(list_suffixes(run.tasks), run.tasks, strict=True):
        notes[f"class_names{suffix}"] = "\n".join(" ".join(name.split()) for name in task.class_names)
        notes[f"palette{suffix}"] = "\n".join(list_colours(task.palette))
    onnx.helper.set_model_props(model, notes)
    write_atomically(file, model.SerializeToString(deterministic=True))
    # The written file, with the logits of each task as further outputs.
    model = onnx.load(file)
    logits = [node.input[0] for node in model.graph.node if node.op_type == "ArgMax"]
    model.graph.output.extend(map(onnx.helper.make_empty_tensor_value_info, logits))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    suffixes = list_suffixes(run.tasks)
    class_maps = [f"class_map{suffix}" for suffix in suffixes]
    shares = [f"probabilities{suffix}" for suffix in suffixes] if probabilities else []

    def compute(image: np.ndarray) -> Result:
        names = [*class_maps, *logits, *shares]
        arrays = map(np.asarray, session.run(names, {"image": image}))
        given = {name: array[0] for name, array in zip(names, arrays, strict=True)}
        return Result(
            class_map=join_maps([given[name] for name in class_maps]),
            logits=np.concatenate([given[name] for name in logits], axis=-1),
            probabilities=np.concatenate([given[name] for name in shares], axis=-1) if shares else None,
        )

    return compute
