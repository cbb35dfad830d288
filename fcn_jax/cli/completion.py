"""`fcn-jax completion SHELL`."""

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union

import tyro

from fcn_jax.cli import data, demo, doctor, evaluate, export, predict, publish, report, train, weights

# tyro's function for bash knows flags, but no files for words without a flag, such as RUN.
_FILES = """
_fcn_jax_or_files() {
  _tyro_fcn_jax
  [ -n "${COMPREPLY[*]}" ] || COMPREPLY=()  # bash completes file names then
}
complete -o bashdefault -o default -F _fcn_jax_or_files fcn-jax
"""


@dataclass(frozen=True)
class Completion:
    """Print a script that lets a shell complete commands, presets and flags.

    bash: put `source <(fcn-jax completion bash)` into ~/.bashrc. zsh: `fcn-jax completion zsh > DIR/_fcn-jax`, where
    DIR is a folder of $fpath.
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh"]]
    """shell that runs the script"""


@dataclass(frozen=True)
class List:
    """List the data sets."""


# The flags of each command but `train`, which has presets; or of the commands that it has.
COMMANDS: dict[str, type | dict[str, type]] = {
    "eval": evaluate.Eval,
    "predict": predict.Predict,
    "demo": demo.Demo,
    "report": report.Report,
    "export": export.Export,
    "publish": publish.Publish,
    "weights": {"describe": weights.Describe, "import": weights.Import},
    "data": {"list": List, "prepare": data.Prepare, "check": data.Check},
    "doctor": doctor.Doctor,
    "completion": Completion,
}


def run(words: list[str]) -> None:
    """Print the script for a shell."""
    flags = tyro.cli(Completion, prog="fcn-jax completion", args=words)
    presets = {
        name: Annotated[train.Training, tyro.conf.subcommand(name, default=default)]
        for name, (_, default) in train.describe_presets().items()
    }
    commands = {name: _nest(_name(flags)) if isinstance(flags, dict) else flags for name, flags in COMMANDS.items()}
    with contextlib.suppress(SystemExit):  # tyro ends the process once it has printed the script
        tyro.cli(
            _choose(_name({"train": _nest(presets), **commands})),
            prog="fcn-jax",
            args=["--tyro-print-completion", flags.shell],
            config=(tyro.conf.OmitSubcommandPrefixes,),
        )
    if flags.shell == "bash":
        print(_FILES)


def _name(commands: Mapping[str, type]) -> dict[str, Any]:
    """Give the flags of each command its name."""
    return {name: Annotated[flags, tyro.conf.subcommand(name)] for name, flags in commands.items()}


def _nest(commands: Mapping[str, Any]) -> type:
    """Return the flags of a command that has commands of its own."""
    return dataclasses.make_dataclass("Group", [("command", _choose(commands))], frozen=True)


def _choose(commands: Mapping[str, Any]) -> Any:
    """Return the type of a choice between commands."""
    return Union[tuple(commands.values())]  # noqa: UP007
