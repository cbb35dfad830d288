"""The machine's backend, its devices, and compiler options that XLA may or may not know."""

import ast
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import fcn_jax.layers
from fcn_jax.layers import backend
from fcn_jax.layers.backend import compiler_options, jit_options


@pytest.fixture
def fresh_options():
    """Have the options looked up anew, in this test and after it."""
    backend._find_known_options.cache_clear()
    yield
    backend._find_known_options.cache_clear()


@pytest.mark.parametrize(
    ("name", "is_cpu", "is_tpu"), [("cpu", True, False), ("gpu", False, False), ("tpu", False, True)]
)
def test_backend_is_that_of_jax(monkeypatch, name, is_cpu, is_tpu):
    monkeypatch.setattr(jax, "default_backend", lambda: name)
    assert (backend.is_cpu(), backend.is_tpu()) == (is_cpu, is_tpu)


def test_devices_are_counted(monkeypatch):
    assert backend.count_devices() == backend.count_local_devices() == 8  # conftest.py asks for as many
    assert not backend.is_single_device()
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert backend.is_single_device()


def test_no_other_module_of_the_layers_asks_jax():
    folder = Path(fcn_jax.layers.__file__).parent
    asked = {
        file.name
        for file in folder.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("default_backend", "device_count", "local_device_count")
    }
    assert asked == {"backend.py"}


def test_options_are_known_to_this_version():
    forward, step = compiler_options(training=False), compiler_options()
    assert step == backend._CPU_OPTIONS  # one that is no longer known halves the speed: look for its successor
    assert forward == backend._CPU_OPTIONS | backend._FORWARD_OPTIONS
    for options in (step, forward):
        compiled = jax.jit(lambda x: lax.optimization_barrier(x * 2) + 1, compiler_options=options)
        assert "barrier" in compiled.lower(np.float32(0)).compile().as_text()


def test_accelerators_have_no_options(fresh_options, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler_options() == compiler_options(training=False) == {}
    assert jit_options() == jit_options(training=False) == {}


@pytest.mark.parametrize("training", [True, False])
def test_jit_options_reach_the_compiler(training):
    """Without them XLA removes the barrier before operations are fused."""

    def compute(x):
        return lax.optimization_barrier(x * 2) + 1

    texts = [
        jax.jit(compute, **options).lower(np.float32(0)).compile().as_text() for options in ({}, jit_options(training))
    ]
    assert ["barrier" in text for text in texts] == [False, True]


def test_within_plain_methods_there_are_no_options():
    before = jit_options()
    assert before["compiler_options"] == compiler_options()
    with fcn_jax.layers.plain_methods():
        assert jit_options() == {}
    assert jit_options() == before


def test_a_program_with_options_cannot_be_a_part_of_another():
    """The docstring of `jit_options` says so."""
    double = jax.jit(lambda x: 2 * x, **jit_options())
    with pytest.raises(ValueError, match="top-level"):
        jax.grad(double)(1.0)


def test_unknown_option_is_named_once_and_left_out(fresh_options, monkeypatch):
    known = dict(backend._CPU_OPTIONS)
    monkeypatch.setattr(backend, "_CPU_OPTIONS", known | {"xla_cpu_no_such_option": "1"})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step, forward, again = compiler_options(), compiler_options(training=False), compiler_options()
    (warning,) = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    assert "options xla_cpu_no_such_option:" in warning
    assert "XLA's defaults" in warning
    assert "slower on CPUs" in warning
    assert step == again == known
    assert forward == known | backend._FORWARD_OPTIONS
    assert float(jax.jit(lambda x: 2 * x, compiler_options=step)(np.float32(1.5))) == 3


def test_within_plain_methods_programs_are_of_xlas_own_operations():
    x, kernel = jnp.ones((1, 8, 8, 4)), jnp.ones((4, 4, 4, 4))

    def compute(x):
        y = fcn_jax.layers.conv(fcn_jax.layers.max_pool(x, 2), kernel[:3, :3], padding=1)
        return fcn_jax.layers.upsample_bilinear(fcn_jax.layers.conv_transpose(y, kernel, (2, 2), 1), 2)

    with fcn_jax.layers.plain_methods():
        assert not backend.is_cpu()
        plain = str(jax.make_jaxpr(compute)(x))
    assert backend.is_cpu()
    counts = [plain.count(f"{name}[") for name in ("reduce_window_max", "conv_general_dilated", "dot_general")]
    assert counts == [1, 3, 0]
    fast = str(jax.make_jaxpr(lambda x: compute(x))(x))
    assert "reduce_window_max" not in fast
