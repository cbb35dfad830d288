"""Checkpoints: bit-exact, the right ones kept, and safe from donation."""

import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import SingleDeviceSharding
from small_checkpoints import SMALL, assert_same, everywhere, folders, like, save_small

from fcn_jax.config import Config, OptimConfig
from fcn_jax.data.defaults import fill_config
from fcn_jax.errors import InputError, WriteFailed
from fcn_jax.runs.checkpoint import Checkpoints
from fcn_jax.runs.checkpoint_files import SCORES, find_latest_step
from fcn_jax.training.optim import make_optimizer


def test_trees_come_back_bit_for_bit(tmp_path):
    generator = np.random.default_rng(0)
    odd = np.array([np.nan, -0.0, np.inf, -np.inf, 1e-42, 3.4e38], np.float32)
    odd[:1].view(np.uint32)[0] = 0x7FC12345  # a NaN that carries something
    params = {"conv": {"kernel": generator.normal(size=(3, 3, 2, 4)).astype(np.float32), "bias": odd}}
    optim = OptimConfig(learning_rate=0.1, warmup_steps=2, clip_norm=1.0)
    transformation = make_optimizer(fill_config(Config(optim=optim, steps=10)))
    state, update = transformation.init(params), jax.jit(transformation.update)
    for _ in range(3):
        gradient = jax.tree.map(lambda x: generator.normal(size=x.shape).astype(np.float32), params)
        _, state = update(gradient, state, params)
    items = {
        "variables": {"params": params, "batch_stats": {"mean": jnp.asarray(odd, jnp.bfloat16)}},
        "opt_state": state,
        "others": {"count": jnp.int32(-7), "flags": np.array([True, False]), "bytes": np.arange(3, dtype=np.uint8)},
    }
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, items)
        checkpoints.note_score(3, 0.5)
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(3, like(items))
    assert_same(restored, items)
    counts = [state.count for state in jax.tree.leaves(restored["opt_state"], is_leaf=has_count) if has_count(state)]
    assert [int(count) for count in counts] == [3]
    # The state goes on to be used.
    update(gradient, restored["opt_state"], params)


def test_a_process_that_may_not_write_any_more_saves_nothing(tmp_path):
    def refuse() -> None:
        raise InputError("another one writes here")

    with Checkpoints(tmp_path, before_save=refuse) as checkpoints:
        with pytest.raises(InputError, match="another one writes here"):
            checkpoints.save(1, SMALL)
        assert checkpoints.steps() == []


def test_a_save_that_failed_is_explained_by_the_process_that_has_taken_the_folder(tmp_path):
    folder, calls = tmp_path / "c", []

    def take_over() -> None:
        calls.append(1)
        if len(calls) > 1:
            raise InputError("another one writes here")
        shutil.rmtree(folder)
        folder.write_text("")

    def save() -> None:
        with Checkpoints(folder, before_save=take_over) as checkpoints:
            checkpoints.save(1, SMALL)

    with pytest.raises(InputError, match="another one writes here"):
        save()


def test_the_error_of_a_save_is_told_once(tmp_path, monkeypatch):
    """Where several processes save, Orbax raises JAX's error of waiting for one that failed, and again at the end."""

    def fail(*args, **kwargs):
        raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: barrier timed out")

    def save() -> None:
        with Checkpoints(tmp_path / "c") as checkpoints:
            monkeypatch.setattr(checkpoints._manager, "wait_until_finished", fail)
            monkeypatch.setattr(checkpoints._manager, "close", fail)
            checkpoints.save(1, SMALL)

    with pytest.raises(WriteFailed, match="step 1 could not be written"):
        save()


def has_count(node) -> bool:
    return isinstance(node, optax.ScaleByScheduleState)


def test_arrays_are_restored_where_they_are_wanted(tmp_path):
    save_small(tmp_path, 1)
    with Checkpoints(tmp_path) as checkpoints:
        array = checkpoints.restore(1, like(SMALL, everywhere()))["variables"]["params"]["kernel"]
        assert array.sharding == everywhere()
        assert len(array.sharding.device_set) == 8
        one = SingleDeviceSharding(jax.devices()[3])
        assert checkpoints.restore(1, like(SMALL, one))["variables"]["params"]["kernel"].sharding == one


def test_one_of_several_items_can_be_restored_alone(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {**SMALL, "opt_state": {"velocity": np.ones(2, np.float32)}})
        checkpoints.save(2, {**SMALL, "opt_state": {"velocity": np.ones(2, np.float32)}})
        assert_same(checkpoints.restore(1, like(SMALL)), SMALL)


def test_the_latest_and_the_best_are_kept(tmp_path):
    scores = {1: 0.1, 2: 0.5, 3: 0.2, 4: None, 5: 0.3, 6: 0.6, 7: 0.4, 8: None, 9: 0.55}
    seen = []
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, score in scores.items():
            checkpoints.save(step, SMALL)
            if score is not None:
                checkpoints.note_score(step, score)
            seen.append(step)
            scored = [s for s in seen if scores[s] is not None]
            assert checkpoints.latest() == step
            assert checkpoints.best() == max(scored, key=scores.get)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.steps() == [6, 8, 9]
        assert (checkpoints.latest(), checkpoints.best()) == (9, 6)
    assert folders(tmp_path) == ["6", "8", "9"]


def test_the_score_of_a_state_that_was_set_aside_decides_nothing(tmp_path):
    """A training that went back takes its steps again, and the state of a step is another one then."""
    save_small(tmp_path, 1, 2, scores={1: 0.4, 2: 0.5})
    shutil.rmtree(tmp_path / "2")
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(2, SMALL)
        assert checkpoints.best() == 1
    with Checkpoints(tmp_path, keep=1) as checkpoints:  # after a stop before the evaluation of step 2
        assert checkpoints.best() == 1
        checkpoints.note_score(2, 0.3)
        checkpoints.save(3, SMALL)
    assert folders(tmp_path) == ["1", "3"]


def test_more_are_kept_if_wanted(tmp_path):
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        for step, score in enumerate([0.9, 0.1, 0.2, 0.3, 0.4], 1):
            checkpoints.save(step, SMALL)
            checkpoints.note_score(step, score)
    assert folders(tmp_path) == ["1", "3", "4", "5"]


def test_without_evaluations_the_last_is_the_best(tmp_path):
    save_small(tmp_path, 1, 2, 3)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.best() == checkpoints.latest() == 3


def test_the_latest_step_of_a_run(tmp_path):
    assert find_latest_step(tmp_path) is None
    save_small(tmp_path / "checkpoints", 0)
    assert find_latest_step(tmp_path) == 0
    save_small(tmp_path / "checkpoints", 4, 11)
    assert find_latest_step(tmp_path) == 11


def test_without_checkpoints_there_is_neither(tmp_path):
    with Checkpoints(tmp_path / "new" / "folder") as checkpoints:
        assert checkpoints.steps() == []
        assert checkpoints.latest() is None
        assert checkpoints.best() is None


def test_a_score_that_is_not_a_number_is_never_the_best(tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        for step, score in enumerate([0.5, math.nan, 0.2], 1):
            checkpoints.save(step, SMALL)
            checkpoints.note_score(step, score)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.best() == 1
        assert checkpoints.steps() == [1, 3]


def test_scores_of_former_versions_are_read(tmp_path):
    """They were in the folder of each checkpoint."""
    save_small(tmp_path, 1, 2, 3)
    for step, score in ((1, 0.7), (2, 0.4)):
        (tmp_path / str(step) / "metrics").mkdir()
        (tmp_path / str(step) / "metrics" / "metrics").write_text(json.dumps({"mean_iu": score}))
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.best() == 1
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.note_score(3, 0.5)
        assert checkpoints.best() == 1
        checkpoints.save(4, SMALL)
        checkpoints.note_score(4, 0.8)
    assert json.loads((tmp_path / SCORES).read_text()) == {"1": 0.7, "2": 0.4, "3": 0.5, "4": 0.8}
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.best() == 4


def test_of_equal_scores_the_last_is_the_best(tmp_path):
    save_small(tmp_path, 1, 2, 3, scores={1: 0.5, 2: 0.5, 3: 0.1})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.best() == 2


# Donation: the next step takes the state's memory while it is still being written.


def advanced(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array * np.uint32(1664525) + np.uint32(1013904223) for name, array in state.items()}


@pytest.mark.parametrize(
    ("sizes", "replicated"),
    [((50 * 2**20,), False), ((6 * 2**20, 6 * 2**20 + 4), True)],  # Orbax writes odd sizes in another way
    ids=["50 MB on one device", "on eight devices"],
)
def test_what_is_saved_is_the_state_at_the_time_of_the_save(tmp_path, sizes, replicated):
    sharding = everywhere() if replicated else SingleDeviceSharding(jax.devices()[0])
    # Whole numbers that no compression shortens, and whose every step can be followed exactly.
    generator = np.random.default_rng(0)
    current = {str(size): generator.integers(0, 2**32, size // 4, np.uint32) for size in (*sizes, 20)}
    step_fn = jax.jit(
        lambda state: {name: array * jnp.uint32(1664525) + jnp.uint32(1013904223) for name, array in state.items()},
        donate_argnums=0,
    )
    # Made by a computation, as in training: JAX owns the memory, so it can be given away.
    state, current = step_fn(jax.device_put(current, sharding)), advanced(current)
    expected = {}
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, {"variables": state})
            expected[step] = current
            for _ in range(4):
                donated, state, current = state, step_fn(state), advanced(current)
            assert all(array.is_deleted() for array in donated.values())
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1, 2, 3]
        for step, values in expected.items():
            restored = checkpoints.restore(step, like({"variables": state}, sharding))["variables"]
            for name, array in values.items():
                assert np.array_equal(np.asarray(restored[name]), array), f"step {step}, {name} bytes"
    for name, array in current.items():
        assert np.array_equal(np.asarray(state[name]), array)
