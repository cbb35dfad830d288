"""The `fcn-jax` command: one file a subcommand, each of which reads flags, makes a call and prints.

JAX and the data sets are imported only by the commands that need them, so that help appears at once.
"""

import contextvars
import errno
import gc
import importlib
import logging
import os
import sys
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

from fcn_jax.cli.words import choose
from fcn_jax.errors import Diverged, ExportDiffers, InputError, OutOfMemory, ProcessLost, Stopped, WriteFailed
from fcn_jax.presets import PRESETS
from fcn_jax.runtime.streams import READER_GONE, is_reader_gone, protect_output

HELP = f"""fcn-jax: Fully Convolutional Networks for semantic segmentation, in JAX

  fcn-jax train PRESET [flags]          train a network, or resume a run
  fcn-jax eval RUN [flags]              score a run's best checkpoint on a split
  fcn-jax predict RUN IMAGE... [flags]  segment photographs: files, folders or globs
  fcn-jax demo RUN [flags]              serve a local page to drop photographs on
  fcn-jax report RUN [RUN...] [flags]   write scores, curves and examples of runs as one HTML page
  fcn-jax export RUN --out DIR          write a network as ONNX, StableHLO and safetensors
  fcn-jax publish RUN --out DIR         write weights, model card and scores into a folder to upload
  fcn-jax weights describe FILE         show what a file of weights, or a run, has
  fcn-jax weights import FILE --out F   convert weights of another framework, or of a run, and describe them
  fcn-jax data list                     list the data sets, with size, licence and where to get them
  fcn-jax data prepare NAME [flags]     build a data set from its official files
  fcn-jax data check NAME [flags]       check labels, sizes and repeated images, and draw a contact sheet
  fcn-jax doctor                        show versions, devices, memory and the cache
  fcn-jax completion SHELL              print a script that completes commands and flags in bash or zsh

PRESET is one of
{textwrap.fill(", ".join(PRESETS), 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)}

`fcn-jax train --help` describes the presets, `fcn-jax train PRESET --help` the flags of a training, and
`fcn-jax COMMAND --help` those of another command."""

# The module of each command; it is imported when the command is called.
COMMANDS = {
    "train": "fcn_jax.cli.train",
    "eval": "fcn_jax.cli.evaluate",
    "predict": "fcn_jax.cli.predict",
    "demo": "fcn_jax.cli.demo",
    "report": "fcn_jax.cli.report",
    "export": "fcn_jax.cli.export",
    "publish": "fcn_jax.cli.publish",
    "weights": "fcn_jax.cli.weights",
    "data": "fcn_jax.cli.data",
    "doctor": "fcn_jax.cli.doctor",
    "completion": "fcn_jax.cli.completion",
}

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: the same command succeeds later

# Errors of a file that its owner or the disk is the reason of: there is nothing to mend in the program.
NOT_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
# Those of a disk that is damaged or gone, on this machine or in the network.
LOST = (errno.EIO, errno.ENOTCONN, errno.ESTALE, errno.ENXIO, errno.ENODEV)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    The exit status is 2 for bad input, 1 if training has diverged, an exported file computes something else, memory has
    run out or something could not be written, 75 if a signal has stopped a training (the same command goes on), 130 on
    Ctrl-C in another command, and 141 if the reader of the output has gone.

    Args:
        arguments: the words after `fcn-jax`; None: those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Run full garbage collections ten times less often. Importing and tracing make half a million objects that stay,
    # and scanning them adds half a second to the start.
    gc.set_threshold(*gc.get_threshold()[:2], 100)
    _silence_decoders()
    with protect_output():
        try:
            contextvars.copy_context().run(_run, words)  # what a command sets, such as --quiet, ends with it
        except InputError as error:
            _exit(str(error), 2)
        except Stopped as stopped:
            # All processes of a training end here, so JAX may part them.
            print(f"fcn-jax: {stopped}", file=sys.stderr)
            sys.exit(READER_GONE if is_reader_gone() else STOPPED)
        except (Diverged, ExportDiffers, OutOfMemory, ProcessLost, WriteFailed) as error:
            _exit(str(error), 1)
        except OSError as error:
            if error.errno in LOST:
                _exit(f"a disk cannot be used ({error}); mend or mount it, or give another folder", 1)
            if error.errno not in NOT_OURS:
                raise
            _exit(f"a file cannot be used ({error}); make room, change its permissions or give another folder", 1)
        except KeyboardInterrupt:
            _exit("stopped", 130)


def _run(words: list[str]) -> None:
    match words:
        case [] | ["-h" | "--help", *_]:
            print(HELP)
        case ["data" | "weights" as group] | ["data" | "weights" as group, "-h" | "--help", *_]:
            lines = [line for line in HELP.splitlines() if line.startswith(f"  fcn-jax {group} ")]
            print("\n".join([*lines, "", f"`fcn-jax {group} COMMAND --help` shows the flags of a command."]))
        case ["train", command, *_] if command in COMMANDS:  # as by `./launch.sh eval RUN`
            program = Path(sys.executable).with_name("fcn-jax")
            raise InputError(f"{command!r} is not a preset but another command; call {program} {command}")
        case [command, *rest]:
            importlib.import_module(COMMANDS[choose("command", command, COMMANDS)]).run(rest)


def _silence_decoders() -> None:
    """Hide what decoders of images log and warn of in damaged files: errors and warnings of this program say it."""
    for decoder in ("PIL", "tifffile"):
        logging.getLogger(decoder).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def _exit(message: str, code: int) -> None:
    print(f"fcn-jax: {message}", file=sys.stderr, flush=True)
    if (jax := sys.modules.get("jax")) and jax.distributed.is_initialized():
        # JAX would wait for the other processes, which wait for this one.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
