"""Predictions that are interrupted leave whole files, and are resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from red_classes import by_red, count_whole, encode, segmenting
from xla_flags import FAST_COMPILE

from fcn_jax.data.labels import palette
from fcn_jax.inference import predict as module
from fcn_jax.inference.outputs import Outputs
from fcn_jax.inference.predict import find_images, predict
from fcn_jax.inference.resume import Origin, list_sources

# A shell's background jobs, and what they start, have SIGINT ignored.
INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
import numpy as np
from fcn_jax.data.labels import palette
from fcn_jax.inference.outputs import Outputs
from fcn_jax.inference.predict import find_images, predict
from fcn_jax.inference.segment import Scored, segment

def forward(variables, batch):
    return Scored(np.asarray(batch.image)[..., 0] // 52, np.zeros(()), np.zeros(()))

segmenting = lambda examples, sizes: segment(forward, {}, examples, 1)
for file in predict(segmenting, find_images(sys.argv[1:]), Path("out"), Outputs(palette(5))):
    print(file)
"""


def test_ctrl_c_leaves_whole_files(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)
    (tmp_path / "in").mkdir()
    for index in range(300):
        (tmp_path / "in" / f"p{index}.bmp").write_bytes(encode(Image.fromarray(image), "BMP"))
    command = [sys.executable, "-u", "-c", INTERRUPTED, str(tmp_path / "in")]
    environment = {**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2]), "XLA_FLAGS": FAST_COMPILE}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines = [process.stdout.readline() for _ in range(5)]
    assert lines[0].startswith("out/"), process.stderr.read()
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == -signal.SIGINT, (lines, errors)
    assert errors.endswith("KeyboardInterrupt\n")
    count = count_whole(tmp_path / "out")
    assert 10 <= count < 600
    assert count % 2 == 0  # class map and overlay


RESUMED = """
import sys
from pathlib import Path
import numpy as np
from fcn_jax.data.labels import palette
from fcn_jax.inference.outputs import Outputs
from fcn_jax.inference.predict import find_images, predict
from fcn_jax.inference.resume import Origin, find_done, list_sources
from fcn_jax.inference.segment import Scored, segment

def forward(variables, batch):
    return Scored(np.asarray(batch.image)[..., 0] // 52, np.zeros(()), np.zeros(()))

files, out, outputs = find_images(sys.argv[1:]), Path("out"), Outputs(palette(5))
origin = Origin({"step": 1}, list_sources({file: [file] for file in files}))
done = find_done(files, out, outputs, origin)
print(len(done), flush=True)
for file in predict(lambda examples, sizes: segment(forward, {}, examples, 1), files, out, outputs, 2, origin, done):
    print(file)
print("end")
"""


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_it_gives_the_results_of_an_undisturbed_run(tmp_path):
    generator = np.random.default_rng()
    (tmp_path / "in").mkdir()
    for index in range(60):
        image = generator.integers(0, 256, (300, 400, 3), np.uint8)
        (tmp_path / "in" / f"p{index}.bmp").write_bytes(encode(Image.fromarray(image), "BMP"))
    command = [sys.executable, "-u", "-c", RESUMED, str(tmp_path / "in")]
    environment = {**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2]), "XLA_FLAGS": FAST_COMPILE}
    kept = []
    for awaited in (*generator.integers(1, 20, 2), 1000):
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
        kept.append(int(process.stdout.readline()))
        lines = [line for line, _ in zip(process.stdout, range(awaited), strict=False)]
        time.sleep(generator.uniform(0, 0.02) if awaited < 1000 else 0)
        process.kill()
        process.communicate(timeout=60)
    assert lines[-1] == "end\n"
    assert 0 == kept[0] < kept[1] < kept[2] < 60, kept
    assert len(lines) == 61 - kept[2]
    files = find_images([str(tmp_path / "in")])
    origin = Origin({"step": 1}, list_sources({file: [file] for file in files}))
    list(predict(segmenting(by_red), files, tmp_path / "whole", Outputs(palette(5)), origin=origin))
    found, expected = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("out", "whole")
    )
    assert found == expected
    assert len(found) == 121
