"""Publish a trained network: a folder with its weights, its scores and where they come from."""

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fcn_jax.config import DataConfig, ModelConfig
from fcn_jax.data.hold_out import HELD_OUT
from fcn_jax.data.tasks import Task, count_classes
from fcn_jax.errors import InputError
from fcn_jax.inference.card import (
    LICENCE,
    describe_counts,
    list_classes,
    list_scores,
    list_title,
    list_training,
    name_weights,
)
from fcn_jax.inference.metrics import SUMMARY
from fcn_jax.models.build import build
from fcn_jax.runs.metrics_log import find_scores, read_log
from fcn_jax.runs.restore import make_weights, restore_variables
from fcn_jax.runs.run_dir import Run, Start, read_origin
from fcn_jax.runtime.files import make_folder_atomically, write_atomically
from fcn_jax.runtime.json_values import parse_json, to_json
from fcn_jax.weights import ours

# Fields of the model that the weights bring along, or that say what it started from.
NOT_NEEDED = ("weights", "init_from", "init_streams", "allow", "input")


def publish(run: Run, out: Path, step: int | None = None) -> dict[str, Any]:
    """Write `model.safetensors`, `README.md`, `metrics.json` and `metrics.jsonl` into a new folder, or nothing.

    Args:
        run: the run.
        out: the folder, which must not exist or be empty.
        step: the checkpoint; None: the best by mean IU on the val split.

    Returns:
        The content of `metrics.json`.

    Raises:
        InputError: there is no such checkpoint, or `out` is in use or cannot be written.
    """
    config = dataclasses.replace(run.config.model, dtype="float32")
    variables, step = restore_variables(run, build(config, *count_classes(run.tasks)), step)
    weights = make_weights(run, variables, step, run.folder.name)
    try:
        described = to_json(describe(run, step))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{run.folder} is damaged ({error!r}): config.json or metrics.jsonl cannot be understood; restore them"
        ) from error
    with make_folder_atomically(out) as folder:
        ours.write(folder / "model.safetensors", weights)
        write_atomically(folder / "metrics.json", json.dumps(described, indent=1) + "\n")
        log = "".join(json.dumps(line) + "\n" for line in read_log(run.folder))
        write_atomically(folder / "metrics.jsonl", log)
        write_atomically(folder / "README.md", _write_card(run, step, described))
    return described


def describe(run: Run, step: int) -> dict[str, Any]:
    """Describe a checkpoint: its scores on val as fractions, and all that is needed to train it again.

    The scores of further tasks are under the tasks' names. What is not known is None: scores of a checkpoint that was
    not scored, and the time of a run that was resumed. The commands are as they were given, with their paths.

    Args:
        run: the run.
        step: the step of the checkpoint.
    """
    scores = find_scores(run.folder, step)
    origin = read_origin(run.folder)
    starts, config = origin.starts, run.config
    return {
        "network": f"{config.model.head} on {config.model.backbone}",
        "data": config.data.name,
        "contents": run.contents,
        "split": run.options.data.val_split or "val",
        "step": step,
        **_list_scores(run.tasks[0], scores),
        **{task.name: _list_scores(task, scores and scores[task.name]) for task in run.tasks[1:]},
        "seed": config.seed,
        "steps": config.ends[-1],
        "batch_size": config.batch_size,
        "weights": name_weights(config.model),
        "commands": [start.command for start in starts],
        "machine": starts[-1].machine if starts else None,
        "seconds": _measure_time(run.checkpoints / str(step), starts),
        "git": origin.git,
        "python": origin.python,
        "versions": parse_json((run.folder / "config.json").read_text())["versions"],
        "config": to_json(dataclasses.replace(config, model=_shorten_paths(config.model))),
    }


def _shorten_paths(model: ModelConfig) -> ModelConfig:
    """Leave the folders out of the paths, which say nothing on another machine."""
    return dataclasses.replace(
        model,
        weights=model.weights and Path(model.weights).name,
        init_from=model.init_from and Path(model.init_from.name),
        init_streams=tuple(Path(path.name) for path in model.init_streams),
    )


def _list_scores(task: Task, scores: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        **{name: scores and scores[name] for name in SUMMARY},
        "per_class_iu": scores and dict(zip(task.class_names, scores["per_class_iu"], strict=True)),
    }


def _measure_time(checkpoint: Path, starts: Sequence[Start]) -> int | None:
    """Return the seconds from the start of a run to a checkpoint; None if the run was resumed or this is not known."""
    file = checkpoint / "_CHECKPOINT_METADATA"
    if len(starts) != 1 or not file.exists():
        return None
    return round(parse_json(file.read_text())["commit_timestamp_nsecs"] / 1e9 - starts[0].time)


def _write_card(run: Run, step: int, described: dict[str, Any]) -> str:
    scores = described if described["mean_iu"] is not None else None
    facts = [
        f"- Commands: {'; '.join(f'`{command}`' for command in described['commands']) or 'not known'}.",
        f"- Machine: {described['machine'] or 'not known'}.",
        f"- Time to this checkpoint: {_format_minutes(described['seconds'])}.",
        f"- Code: commit {described['git'] or 'not known'}.",
    ]
    lines = [
        *list_title(run),
        f"The weights of a Fully Convolutional Network for semantic segmentation with {describe_counts(run)} classes, "
        f"trained with fcn_jax for {step} steps.",
        "",
        "| file | what it is |",
        "| --- | --- |",
        "| `model.safetensors` | the parameters in float32, with their input and the names of the classes |",
        "| `metrics.json` | scores, command, seed, data, versions, machine and configuration |",
        "| `metrics.jsonl` | the log of the training |",
        *list_classes(run),
        *list_scores(run, step, scores),
        *list_training(run),
        *facts,
        LICENCE,
        "",
        "## Use",
        "",
        "Train on from the weights, or score them as they are, on data with the same classes:",
        "",
        "```bash",
        f"fcn-jax train {' '.join(list_flags(run))}",
        f"fcn-jax train {' '.join(list_flags(run))} --steps 0",
        "```",
    ]
    return "\n".join(lines) + "\n"


def list_flags(run: Run) -> list[str]:
    """Return a preset and the flags of `fcn-jax train` that make a run's network from its published weights."""
    model, data = run.config.model, run.config.data
    preset = "fcn8s" if model.head == "dilated" else model.head  # the presets named after a head have no other flags
    words, defaults = [preset], vars(ModelConfig(head=preset))
    for name, value in vars(model).items():
        if name not in NOT_NEEDED and value != defaults[name]:
            values = () if value is True else value if isinstance(value, tuple) else (value,)
            words += [f"--model.{name.replace('_', '-')}", *map(str, values)]
    words += ["--model.weights", "model.safetensors", "--data.name", data.name]
    options = run.options.data
    words += ["--data.dir", "DIR"] if options.dir else []
    words += ["--data.classes", "FILE"] if options.classes else []
    given = vars(data) | {"label_suffix": options.label_suffix, "val_split": options.val_split}
    defaults = vars(DataConfig(data.name)) | {"label_suffix": "", "val_split": HELD_OUT if data.hold_out else "val"}
    for name, value in given.items():
        if value not in (None, defaults[name]):
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--data.{name.replace('_', '-')}", *(shlex.quote(str(word)) for word in values)]
    return words


def _format_minutes(seconds: int | None) -> str:
    return "not known" if seconds is None else f"{seconds / 60:.1f} minutes"
