"""What is told of a training before it, and where memory runs out; traces; compiled programs that are kept."""

import dataclasses
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from small_runs import RESNET, config, folder_data

from fcn_jax.config import Config, DataConfig
from fcn_jax.data.batches import Batch
from fcn_jax.errors import InputError, OutOfMemory
from fcn_jax.models.fcn import FCN8s
from fcn_jax.runtime.memory import IN_EVALUATION, IN_TRAINING, explain_out_of_memory, read_memory
from fcn_jax.training import loop as module
from fcn_jax.training.loop import train


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Config:
    monkeypatch.setattr(module, "build", lambda model, classes: FCN8s(num_classes=classes, backbone=RESNET))
    data = DataConfig(name="folder", dir=folder_data(tmp_path), cache=tmp_path / "cache")
    return config(steps=8, eval_every=8, log_every=1, data=data)


def lines(folder: Path) -> list[dict]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "input_wait"} for line in found]


def test_a_dry_run_tells_and_leaves_nothing(settings, tmp_path):
    said: list[str] = []
    assert train(dataclasses.replace(settings, dry_run=True), tmp_path / "run", said.append) is None
    assert not (tmp_path / "run").exists()
    text = "\n".join(said)
    shapes = jax.eval_shape(
        FCN8s(num_classes=3, backbone=RESNET).init, jax.random.key(0), np.zeros((1, 32, 32, 3), "f")
    )
    count = sum(x.size for x in jax.tree.leaves(shapes["params"]))
    assert f"{count:,}" in text
    # Momentum has a number a parameter, of four bytes.
    assert re.search(rf"while training {4 * count / 1e6:.1f} MB of momentum", text)
    for part in ("training step, 8 images, crops of 32x32", "GFLOP", "arguments", "temporaries", "evaluation"):
        assert part in text


def test_a_trace_of_some_steps_changes_nothing(settings, tmp_path):
    said: list[str] = []
    train(settings, tmp_path / "plain", said.append)
    train(dataclasses.replace(settings, profile=2), tmp_path / "traced", said.append)
    assert lines(tmp_path / "traced") == lines(tmp_path / "plain")
    assert list((tmp_path / "traced" / "profile").rglob("*.xplane.pb"))
    assert not (tmp_path / "plain" / "profile").exists()


def test_a_run_too_short_for_a_trace_says_so(settings, tmp_path, capsys):
    train(dataclasses.replace(settings, steps=2, eval_every=2, profile=2), tmp_path / "run")
    assert "no trace: the run had 2 steps left" in capsys.readouterr().out


def test_profile_is_a_number_of_steps():
    with pytest.raises(InputError, match="profile is -1; it is a number of steps"):
        Config(profile=-1)


def batch() -> Batch:
    return Batch(np.zeros((2, 4, 6, 3), np.uint8), np.zeros((2, 4, 6), np.uint8), np.zeros((2, 2), np.int32))


@pytest.mark.parametrize(
    "error",
    [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore")],
    ids=["host", "device"],
)
def test_out_of_memory_is_answered_with_needs_and_remedy(error):
    def steps() -> None:
        with explain_out_of_memory(jax.jit(lambda scale, batch: batch.image * scale), "a step", IN_TRAINING) as noted:
            noted(np.uint8(2), batch())
            raise error

    with pytest.raises(OutOfMemory, match="out of memory in a step") as caught:
        steps()
    text = str(caught.value)
    assert "2 images on a canvas of 6x4 it needs" in text
    assert "--batch-size" in text
    assert "\n" not in text


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/sys/vm/overcommit_memory").is_file()
    or Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "1",
    reason="the system promises memory that it does not have",
)
def test_memory_that_no_machine_has(tmp_path):
    """No error is made up here: the step really asks for a thousand GB."""
    command = [sys.executable, "-m", "fcn_jax", "train", "fcn8s", "--model.backbone", "resnet18", "--steps", "2"]
    command += ["--augment.crop", "8192", "--batch-size", "256", "--data.cache", str(tmp_path / "cache")]
    command += ["--run-dir", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "XLA_FLAGS": ""})
    assert done.returncode == 1, done.stderr
    answer = done.stderr.splitlines()[-1]
    assert answer.startswith("fcn-jax: out of memory in a training step with crops of 8192x8192"), done.stderr
    assert "GB a device" in answer
    assert "lower --batch-size or --augment.crop" in answer
    assert "Traceback" not in done.stderr


def test_other_errors_pass():
    error = jax.errors.JaxRuntimeError("INTERNAL: something else")
    with pytest.raises(type(error)) as caught, explain_out_of_memory(jax.jit(abs), "a step", IN_EVALUATION):
        raise error
    assert caught.value is error


def test_memory_of_a_program_is_that_of_its_arrays():
    x = jax.ShapeDtypeStruct((1000, 10), np.float32)
    needs = read_memory(jax.jit(lambda x: x + np.float32(1)).lower(x).compile())
    assert (needs.arguments, needs.output) == (40_000, 40_000)


COMPILED = """
import sys
from pathlib import Path
from fcn_jax.runtime.compile_cache import keep_compiled
keep_compiled(Path(sys.argv[1]))
import jax, jax.numpy as jnp
print(float(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.arange(16.0).reshape(4, 4)).sum()))
"""


def start(cache: Path, **changes: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"JAX_PLATFORMS": "cpu", **changes}
    command = [sys.executable, "-c", COMPILED, str(cache)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment)


def test_a_second_start_compiles_nothing(tmp_path):
    first = start(tmp_path)
    programs = set(tmp_path.rglob("*-cache"))
    assert programs
    second = start(tmp_path)
    assert second.stdout == first.stdout
    assert set(tmp_path.rglob("*-cache")) == programs


def test_a_folder_that_cannot_be_written_costs_time_alone(tmp_path):
    (tmp_path / "compiled").write_text("in the way")
    done = start(tmp_path)
    assert float(done.stdout) == float(start(tmp_path / "other").stdout)
    assert "compiled programs are not kept" in done.stderr


def test_the_users_own_folder_stays(tmp_path):
    start(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "theirs"))
    assert not (tmp_path / "ours").exists()
    assert list((tmp_path / "theirs").iterdir())


GIVEN_BACK = """
import ctypes
import jax
from fcn_jax.runtime.compile_cache import give_back_memory

def resident():
    return 4096 * int(open("/proc/self/statm").read().split()[1])

c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
pieces = [c.malloc(100_000) for _ in range(3000)]
for piece in pieces:
    ctypes.memset(piece, 1, 100_000)
for piece in pieces[:-1]:  # the last one holds what is below it
    c.free(piece)
held = resident()
give_back_memory()
for seconds in (0.1, 30.0):
    jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", seconds)
    print(held - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed and can give it back")
def test_memory_of_compilers_is_given_back():
    after = subprocess.run([sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True)
    short, long = map(int, after.stdout.split())
    assert short < 50e6
    assert long > 250e6
