"""`fcn-jax demo RUN [flags]`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fcn_jax.cli.words import parse_flags, start_jax
from fcn_jax.config import TILE
from fcn_jax.errors import InputError
from fcn_jax.runtime.progress import hide_progress, show_step

EXAMPLES = 6  # photographs of the run's val split on the page


@dataclass(frozen=True)
class Demo:
    """Serve a local page to drop photographs on, until Ctrl-C.

    The page shows the classes over the photograph, with a slider for their opacity and a check box for each class, and
    offers the class map as a palette PNG. It loads nothing from other hosts. It needs the extra `demo`.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """run directory, made by `fcn-jax train`"""
    host: str = "127.0.0.1"
    """name or address to serve on; 127.0.0.1: only this machine reaches the page; 0.0.0.0: all that reach this one"""
    port: int = 7860
    """port to serve on, 1 to 65535; 0: any that is free"""
    step: int | None = None
    """step of the checkpoint to use; None: the best on val"""
    tile: int = TILE
    """side of the tiles in which large images are computed, in pixels, at least 1; 0: compute every image whole"""
    quiet: bool = False
    """show no progress; results, warnings and errors are still printed"""


def run(words: list[str]) -> None:
    """Serve the page and print its address."""
    flags = parse_flags(Demo, "demo", words)
    hide_progress(flags.quiet)
    from fcn_jax.inference.demo.server import format_url, is_loopback, open_socket, serve, work_offline

    with open_socket(flags.host, flags.port) as opened, work_offline() as folder:
        try:
            with show_step("loading gradio"):
                import gradio  # noqa: F401
        except ImportError as error:
            raise InputError(f"the page needs the package {error.name}: pip install 'fcn-jax[demo]'") from error
        from fcn_jax.inference.demo.page import STYLE, make_page
        from fcn_jax.inference.demo.subject import describe_run, require_colour, write_examples
        from fcn_jax.inference.segmenter import Segmenter
        from fcn_jax.runs.mirror import copy_for_reading
        from fcn_jax.runs.run_dir import open_run

        with copy_for_reading(flags.run, flags.step) as run_dir:
            run = open_run(run_dir)
            start_jax(None)
            require_colour(run)
            with show_step("reading the checkpoint"):
                segment = Segmenter.from_run(run_dir, flags.step, flags.tile)
            try:
                examples = write_examples(run, folder / "examples", EXAMPLES)
            except InputError as error:
                print(f"the page has no examples: {error}", file=sys.stderr, flush=True)
                examples = []
            assert segment.step is not None
            subject = describe_run(run, segment.step, examples)
        page = make_page(subject, segment, folder)
        if not is_loopback(opened):
            print("warning: everyone who reaches this machine can use the page", file=sys.stderr, flush=True)
        print(f"{format_url(opened)} has the page; Ctrl-C ends it", flush=True)
        serve(page, opened, STYLE)
