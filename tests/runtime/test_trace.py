"""Traces of some steps: what is traced, and that results stay the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax.runtime.trace import WARM_UP, trace_steps


@jax.jit
def step(state, batch):
    return state + jnp.sin(batch)


def take_steps(count: int, traced: int, folder, said: list[str]):
    state = jnp.zeros(4)
    with trace_steps(step, traced, folder, said.append) as call:
        for number in range(count):
            state = call(state, jnp.arange(4.0) * number)
    return state


@pytest.mark.parametrize(("count", "seen"), [(WARM_UP + 5, 2), (WARM_UP + 2, 2), (WARM_UP + 1, 1)])
def test_a_trace_of_some_steps_changes_nothing(tmp_path, count, seen):
    said: list[str] = []
    traced = take_steps(count, 2, tmp_path / "trace", said)
    np.testing.assert_array_equal(traced, take_steps(count, 0, tmp_path / "none", said))
    (file,) = (tmp_path / "trace").rglob("*.xplane.pb")
    assert file.read_bytes().count(b"step_num") >= 1
    assert not (tmp_path / "none").exists()
    assert len(said) == 1
    assert said[0].startswith(f"trace of {seen} steps: {tmp_path / 'trace'}\n")


def test_without_a_trace_the_function_is_the_same(tmp_path):
    with trace_steps(step, 0, tmp_path, print) as call:
        assert call is step


def test_a_run_too_short_for_a_trace_says_so(tmp_path):
    said: list[str] = []
    take_steps(WARM_UP, 2, tmp_path / "trace", said)
    assert said == [
        f"no trace: the run has ended after {WARM_UP} steps of this start, and a trace begins after {WARM_UP}"
    ]
    assert not (tmp_path / "trace").exists()


def test_a_trace_is_written_when_the_run_fails(tmp_path):
    def fail_in_third(state, batch):
        if calls.pop() == 0:
            raise ValueError("the loss is not finite")
        return step(state, batch)

    def run():
        with trace_steps(fail_in_third, 9, tmp_path, said.append) as call:
            while True:
                call(jnp.zeros(4), jnp.zeros(4))

    calls, said = list(range(WARM_UP + 3)), []
    with pytest.raises(ValueError, match="not finite"):
        run()
    assert said[0].startswith("trace of 3 steps")
    assert list(tmp_path.rglob("*.xplane.pb"))
