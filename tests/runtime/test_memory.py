"""The memory of programs, and what is said when it runs out."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from fcn_jax.data.canvas import Batch
from fcn_jax.errors import OutOfMemory
from fcn_jax.runtime.memory import (
    IN_EVALUATION,
    IN_TRAINING,
    Memory,
    explain_out_of_memory,
    format_bytes,
    is_out_of_memory,
    read_memory,
)
from fcn_jax.runtime.watchdog import watch


def make_batch(count: int = 2, height: int = 4, width: int = 6) -> Batch:
    label = np.zeros((count, height, width), np.uint8)
    return Batch(np.zeros((count, height, width, 3), np.uint8), label, np.zeros((count, 2), np.int32))


def scale(factor, batch):
    return batch.image * factor


@pytest.mark.parametrize(
    "error",
    [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore")],
    ids=["host", "device"],
)
def test_out_of_memory_is_answered_with_needs_and_remedy(error):
    def take_steps() -> None:
        with explain_out_of_memory(jax.jit(scale), "a step", IN_TRAINING) as step:
            step(np.uint8(2), make_batch(1))
            step(np.uint8(2), make_batch())
            raise error

    with pytest.raises(OutOfMemory, match="out of memory in a step") as caught:
        take_steps()
    text = str(caught.value)
    assert "2 images on a canvas of 6x4 it needs" in text  # the last batch
    assert "--batch-size" in text
    assert "\n" not in text


def test_out_of_memory_in_a_watched_function_is_answered_too():
    def evaluate() -> None:
        with watch(0.0) as watched:
            forward = watched("batch", jax.jit(scale))
            with explain_out_of_memory(forward, "evaluation", IN_EVALUATION) as forward:
                forward(np.uint8(2), make_batch())
                raise MemoryError

    with pytest.raises(OutOfMemory, match="2 images on a canvas of 6x4 it needs"):
        evaluate()


def test_out_of_memory_before_the_first_call_has_no_needs():
    def fail() -> None:
        with explain_out_of_memory(jax.jit(scale), "evaluation", "give smaller images"):
            raise MemoryError("the host is full")

    with pytest.raises(OutOfMemory, match=r"^out of memory in evaluation \(the host is full\); give smaller images$"):
        fail()


def test_out_of_memory_while_the_needs_are_compiled_names_the_batch_alone():
    class Function:
        def __call__(self, factor, batch):
            raise MemoryError

        def lower(self, factor, batch):
            raise MemoryError

    def fail() -> None:
        with explain_out_of_memory(Function(), "a step", IN_EVALUATION) as step:
            step(np.uint8(2), make_batch())

    with pytest.raises(OutOfMemory, match="on 2 images on a canvas of 6x4; lower --eval-batch-size"):
        fail()


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError("INTERNAL: something else"), ValueError("of memory")])
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as caught, explain_out_of_memory(jax.jit(scale), "a step", IN_EVALUATION):
        raise error
    assert caught.value is error


def test_calls_give_the_function_s_results():
    with explain_out_of_memory(lambda factor, batch: factor + batch.label.size, "a step", IN_TRAINING) as step:
        assert [step(np.int32(1), make_batch(count)) for count in (1, 2, 1)] == [25, 49, 25]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("RESOURCE_EXHAUSTED: x"), True),
        (RuntimeError("Out of memory allocating 1 byte"), True),
        (RuntimeError("INTERNAL: x"), False),
        (ValueError(), False),
    ],
)
def test_errors_of_memory_are_told_from_others(error, expected):
    assert is_out_of_memory(error) is expected


def test_memory_of_a_program_is_that_of_its_arrays():
    x = jax.ShapeDtypeStruct((1000, 10), np.float32)
    plain = jax.jit(lambda x: x + np.float32(1))
    needs = read_memory(plain.lower(x).compile())
    assert (needs.arguments, needs.output) == (40_000, 40_000)
    donated = jax.jit(plain, donate_argnums=0)
    assert read_memory(donated.lower(x).compile()).output == 0  # it takes the place of the argument


def test_memory_is_printed_with_its_parts():
    text = str(Memory(2_000_000_000, 500_000, 1_500_000))
    assert text == "2.00 GB a device (arguments 2.00 GB, output 0.5 MB, temporaries 1.5 MB)"
    assert [format_bytes(count) for count in (0, 999_900_000, 1_000_000_000)] == ["0.0 MB", "999.9 MB", "1.00 GB"]


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
