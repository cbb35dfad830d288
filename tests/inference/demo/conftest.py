"""The page of a demo, served by a process of its own."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from xla_flags import FAST_COMPILE

# `fcn-jax demo` with the small network of `run_dir`. It prints a line for each image that the network computes, and for
# each host outside of this machine that it looks for.
COMMAND = """
import functools, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background ignores it

def notice(event, arguments):
    host = {"socket.getaddrinfo": lambda: arguments[0], "socket.connect": lambda: arguments[1][0]}.get(event)
    if host and host() not in ("127.0.0.1", "localhost", "::1"):
        print("outside:", host(), flush=True)

sys.addaudithook(notice)
from fcn_jax import cli
from fcn_jax.inference.segmenter import Segmenter
from fcn_jax.models.backbones import BACKBONES
from fcn_jax.models.backbones.resnet import ResNet

BACKBONES["resnet18"] = functools.partial(ResNet, depths=(1, 1, 1, 1), width=8)
compute = Segmenter.__call__

def count(self, image):
    print("computed", image.shape, flush=True)
    return compute(self, image)

Segmenter.__call__ = count
cli.main(sys.argv[1:])
"""


@dataclass(frozen=True)
class Server:
    """A process that serves the page.

    Attributes:
        url: the address of the page.
        process: the process.
        log: the file with what it prints.
    """

    url: str
    process: subprocess.Popen
    log: Path

    def count(self, word: str) -> int:
        """Count the lines of the log that begin with a word."""
        return sum(line.startswith(word) for line in self.log.read_text().splitlines())

    def end(self, number: signal.Signals) -> int:
        """End the process by a signal and return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def server(run_dir, tmp_path_factory):
    pytest.importorskip("gradio", reason="the page needs gradio: pip install 'fcn-jax[demo]'")
    folder = tmp_path_factory.mktemp("server")
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FAST_COMPILE, "TMPDIR": str(folder)}
    log = folder / "log.txt"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "demo", str(run_dir), "--port", "0"],
            stdout=stream, stderr=subprocess.STDOUT, env=environment,
        )  # fmt: skip
    try:
        while not (found := re.search(r"^(http://\S+) has the page", log.read_text(), re.MULTILINE)):
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield Server(found[1], process, log)
    finally:
        process.kill()
        process.wait()
