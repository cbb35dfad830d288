"""Traced programs that a second start finds again."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import Tiny, config

from fcn_jax.errors import InputError
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.build import _trace_network
from fcn_jax.models.fcn import FCN, FCN8s
from fcn_jax.runtime import traced
from fcn_jax.runtime.traced import keep_shapes, keep_traced


class Pair(NamedTuple):
    total: jax.Array
    parts: dict


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of traced programs, and a machine with one device."""
    monkeypatch.setattr(traced, "is_single_device", lambda: True)
    monkeypatch.setattr(traced, "_describe_code", lambda: "code")
    token = traced._folder.set(tmp_path)
    yield tmp_path
    traced._folder.reset(token)


def call(*key, x=(1.0, 2.0), **options):
    """Calls a program as a new start does, and returns its result and how often Python has traced it."""
    traces = []

    def double(x, *, factor=2):
        traces.append(x)
        return Pair(x.sum(), {"a": factor * x, "none": None})

    double.__qualname__ = "double"
    result = jax.jit(keep_traced(partial(double, **options), *key))(jnp.array(x))
    return result, len(traces)


def test_a_second_start_traces_nothing_and_computes_the_same(folder):
    first, traces = call("key")
    assert traces == 1
    again, traces = call("key")
    assert traces == 0
    assert isinstance(again, Pair)
    assert again.parts["none"] is None
    for result in (first, again):
        assert float(result.total) == 3.0
        np.testing.assert_array_equal(result.parts["a"], [2.0, 4.0])
    assert [file.name.split("-")[0] for file in folder.iterdir()] == ["double"]


@pytest.mark.parametrize(
    "change",
    [
        {"key": "other"},
        {"x": (1.0, 2.0, 3.0)},
        {"x": np.array([1, 2], np.int32)},
        {"code": "other code"},
        {"setting": "jax_default_matmul_precision"},
    ],
    ids=["key", "shape", "type", "code", "setting"],
)
def test_what_a_program_depends_on_is_traced_anew(folder, monkeypatch, change):
    call("key")
    if "code" in change:
        monkeypatch.setattr(traced, "_describe_code", lambda: change["code"])
    if "setting" in change:
        with jax.default_matmul_precision("float32"):
            monkeypatch.setitem(jax.config.values, change["setting"], "float32")
            assert call("key")[1] == 1
        return
    assert call(change.get("key", "key"), x=change.get("x", (1.0, 2.0)))[1] == 1


def test_a_damaged_program_is_made_anew(folder):
    call("key")
    (file,) = folder.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    result, traces = call("key")
    assert traces == 1
    assert float(result.total) == 3.0
    assert call("key")[1] == 0


def test_a_disk_that_cannot_be_written_costs_time_alone(folder):
    token = traced._folder.set(folder / "gone")
    result, traces = call("key")
    assert traces == 2  # for the program that cannot be written, and for this start
    assert float(result.total) == 3.0
    traced._folder.reset(token)
    assert list(folder.iterdir()) == []


def test_what_jax_does_not_export_is_traced_at_every_start(folder):
    def call_python(x):
        return jax.pure_callback(lambda x: np.asarray(x) + 1, x, x)

    for _ in range(2):
        assert float(jax.jit(keep_traced(call_python, "key"))(jnp.float32(2.0))) == 3.0
    assert list(folder.iterdir()) == []


def test_an_error_of_the_function_is_its_own(folder):
    def refuse(x):
        raise InputError(f"{x.shape} is refused")

    with pytest.raises(InputError, match=r"\(2,\) is refused"):
        jax.jit(keep_traced(refuse, "key"))(jnp.zeros(2))


def test_memory_of_arguments_is_reused(folder):
    def grow(x):
        return x + 1

    for _ in range(2):
        x = jnp.zeros(4)
        jax.jit(keep_traced(grow, "key"), donate_argnums=0)(x)
        assert x.is_deleted()


def test_nothing_is_kept_without_a_folder_a_whole_description_or_with_several_devices(folder, monkeypatch):
    def same(x):
        return x

    assert keep_traced(same, "key") is not same
    assert keep_traced(same, object()) is same
    with monkeypatch.context() as patch:
        patch.setattr(traced, "_describe_code", lambda: None)
        assert keep_traced(same, "key") is same
    with monkeypatch.context() as patch:
        patch.setattr(traced, "is_single_device", lambda: False)
        assert keep_traced(same, "key") is same
    token = traced._folder.set(None)
    assert keep_traced(same, "key") is same
    traced._folder.reset(token)
    assert list(folder.iterdir()) == []


def test_nothing_is_kept_of_code_that_is_not_described(folder):
    def same(x):
        return x

    for known in (FCN8s(3, ResNet(dtype=jnp.bfloat16)), config().optim, (1, "a", None, jnp.float32)):
        assert keep_traced(same, known) is not same
    for unknown in (FCN8s(3, Tiny()), ("key", [Tiny]), draw_changes_of_others):
        assert keep_traced(same, unknown) is same


def draw_changes_of_others():
    """A function that is not of the package."""


def test_code_that_was_changed_after_the_start_is_not_described(monkeypatch):
    describe = traced._describe_code.__wrapped__
    known = describe()
    assert known
    assert known == describe()
    assert known.endswith(f" {np.__version__}")
    monkeypatch.setattr(traced, "IMPORTED", 0.0)  # a process that imported the package in 1970
    assert describe() is None


def test_shapes_of_a_network_are_kept_with_the_reach_of_its_maps(folder, monkeypatch):
    model = FCN8s(3, ResNet(depths=(1, 1, 1, 1), width=8))
    first = _trace_network.__wrapped__(model, 3)
    monkeypatch.setattr(FCN, "init", None)  # which would trace the network
    again = _trace_network.__wrapped__(model, 3)
    assert jax.tree.structure(again) == jax.tree.structure(first)
    assert jax.tree.leaves(again) == jax.tree.leaves(first)
    (logits,) = again["intermediates"]["logits"]
    assert logits.reach > 0


def test_shapes_are_computed_where_nothing_is_kept():
    assert keep_shapes(lambda: jnp.zeros((2, 3)), "key") == jax.ShapeDtypeStruct((2, 3), jnp.float32)
