"""Checkpoints: bit-exact, the right ones kept, damage refused, and safe from donation, kills and readers."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from fcn_jax.config import Config, OptimConfig
from fcn_jax.data.defaults import fill_config
from fcn_jax.errors import InputError
from fcn_jax.runs.checkpoint import MANIFEST, SCORES, Checkpoints, find_latest_step
from fcn_jax.training.optim import make_optimizer

SMALL = {"variables": {"params": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}}


def like(tree, sharding=None):
    """What to restore: shapes and types, where they shall lie."""
    sharding = sharding or SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def everywhere() -> NamedSharding:
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec())


def bits(array) -> np.ndarray:
    """The bytes, so that NaN equals itself and -0 does not equal 0."""
    array = np.asarray(array)
    return np.frombuffer(array.tobytes(), np.uint8)


def assert_same(restored, expected) -> None:
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_array_equal(bits(ours), bits(theirs))


def save_small(folder: Path, *steps: int, scores: dict[int, float] | None = None) -> None:
    scores = scores or {}
    with Checkpoints(folder, keep=len(steps)) as checkpoints:
        for step in steps:
            checkpoints.save(step, jax.tree.map(lambda x, step=step: x + step, SMALL))
            if step in scores:
                checkpoints.note_score(step, scores[step])


def folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


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


# Damage.


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pristine") / "checkpoints"
    save_small(folder, 1, 2, scores={1: 0.3, 2: 0.6})
    return folder


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


DAMAGES = {"a flipped bit": flip, "cut short": lambda content: content[: len(content) // 2], "emptied": lambda _: b""}


@pytest.mark.parametrize("damage", [*DAMAGES, "gone"])
def test_any_damage_to_any_file_is_refused(tmp_path, pristine, damage):
    names = [file.relative_to(pristine / "2") for file in sorted((pristine / "2").rglob("*")) if file.is_file()]
    assert len(names) > 8
    for number, name in enumerate(names):
        if damage == "gone" and str(name) == MANIFEST:
            continue  # a kill between a save and its checksums leaves this behind, see below
        folder = tmp_path / str(number)
        shutil.copytree(pristine, folder)
        file = folder / "2" / name
        if damage == "gone":
            file.unlink()
        else:
            file.write_bytes(DAMAGES[damage](file.read_bytes()))
        with pytest.raises(InputError) as caught, Checkpoints(folder) as checkpoints:
            checkpoints.restore(2, like(SMALL))
        text = str(caught.value)
        assert f"checkpoint {folder / '2'} is damaged: " in text
        if str(name) != MANIFEST or damage != "a flipped bit":  # a flip in the list of names can change any of them
            expected = "is missing" if damage == "gone" else "is not what was written"
            assert f": {name} {expected}; delete {folder / '2'} to use the checkpoint before it, or restore" in text
        # The remedy works.
        shutil.rmtree(folder / "2")
        with Checkpoints(folder) as checkpoints:
            assert checkpoints.latest() == checkpoints.best() == 1
            assert_same(checkpoints.restore(1, like(SMALL)), jax.tree.map(lambda x: x + 1, SMALL))


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"a": 1}', '{"1": "x"}', '{"1": {}}', '{"1": 1%s}' % ("0" * 400), "[" * 100_000]
)
def test_unreadable_scores_are_refused(tmp_path, pristine, content):
    shutil.copytree(pristine, tmp_path / "c")
    (tmp_path / "c" / SCORES).write_text(content)
    with pytest.raises(InputError, match=r"the scores of the checkpoints in .*/c cannot be read \(.*write {} into it"):
        Checkpoints(tmp_path / "c")
    (tmp_path / "c" / SCORES).write_text("{}")
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.best() == 2


@pytest.mark.parametrize("content", ["[" * 100_000, '{"custom_metadata": {"a": 1}, "unknown": 2}'])
def test_an_unreadable_description_of_a_checkpoint_is_refused(tmp_path, pristine, content):
    shutil.copytree(pristine, tmp_path / "c")
    (tmp_path / "c" / "1" / "_CHECKPOINT_METADATA").write_text(content)
    with pytest.raises(InputError, match=r"checkpoints in .*/c cannot be opened \(.*; remove the damaged one"):
        Checkpoints(tmp_path / "c")


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


def test_a_model_that_does_not_fit_is_refused(tmp_path, pristine):
    with Checkpoints(pristine, read_only=True) as checkpoints:
        kernel = SMALL["variables"]["params"]["kernel"]
        for other in (
            {"params": {"kernel": kernel, "bias": kernel}},
            {"params": {}},
            {"params": {"kernel": np.zeros((5, 3), np.float32)}},
        ):
            message = re.escape(f"checkpoint {pristine / '2'} is damaged or does not fit the model of its run: ")
            with pytest.raises(InputError, match=f"{message}(?s:.*)was it made by another version"):
                checkpoints.restore(2, like({"variables": other}))
        with pytest.raises(InputError, match=r"is damaged or does not fit the model of its run: .*optimizer"):
            checkpoints.restore(2, like({"optimizer": SMALL["variables"]}))


def test_the_checksums_are_of_all_files(pristine):
    noted = json.loads((pristine / "2" / MANIFEST).read_text())
    there = {str(file.relative_to(pristine / "2")) for file in (pristine / "2").rglob("*") if file.is_file()}
    assert noted.keys() == there - {MANIFEST}
    listing = "".join(f"{checksum}  {name}\n" for name, checksum in noted.items())
    if shutil.which("sha256sum"):
        command = ["sha256sum", "--check", "--strict", "-"]
        result = subprocess.run(command, input=listing, text=True, capture_output=True, cwd=pristine / "2", check=False)
        assert result.returncode == 0, result.stdout


# Processes that end early, and others that look on.


def test_an_error_in_the_loop_does_not_lose_the_save_under_way(tmp_path):
    def unlucky_training() -> None:
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(1, SMALL)
            raise KeyError("out of luck")

    with pytest.raises(KeyError, match="out of luck"):
        unlucky_training()
    assert (tmp_path / "1" / MANIFEST).is_file()
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore(1, like(SMALL)), SMALL)


def test_a_kill_between_a_save_and_its_checksums(tmp_path, pristine):
    shutil.copytree(pristine, tmp_path / "c")
    (tmp_path / "c" / "2" / MANIFEST).rename(tmp_path / "c" / "2" / f"{MANIFEST}.tmp")
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.latest() == 2
        assert_same(checkpoints.restore(2, like(SMALL)), jax.tree.map(lambda x: x + 2, SMALL))
    # They are made up for; and the half-written ones are no part of them.
    assert json.loads((tmp_path / "c" / "2" / MANIFEST).read_text()).keys() == (
        json.loads((pristine / "2" / MANIFEST).read_text()).keys()
    )
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.restore(2, like(SMALL))


def test_a_process_killed_while_it_saves_leaves_the_earlier_checkpoint(tmp_path):
    code = """
        import os, signal, sys
        from pathlib import Path
        import numpy as np
        from fcn_jax.runs.checkpoint import Checkpoints

        folder = Path(sys.argv[1])
        def items(size):
            values = np.random.default_rng(size).integers(0, 2**32, size, np.uint32)
            return {"variables": {"large": values}}
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(1, items(1000))
            checkpoints.note_score(1, 0.5)
        checkpoints = Checkpoints(folder)
        checkpoints.save(2, items(50_000_000))
        checkpoints.note_score(2, 0.6)
        print(*os.listdir(folder), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    # It was caught in the middle: 200 MB take longer than a listing.
    (unfinished,) = set(result.stdout.split()) - {"1", SCORES}
    assert unfinished.startswith("2.")
    assert folders(tmp_path) == ["1", unfinished]

    expected = {"variables": {"large": np.random.default_rng(1000).integers(0, 2**32, 1000, np.uint32)}}
    # Whoever only looks leaves the remains alone: they could be another process at work.
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.steps() == [1]
    assert folders(tmp_path) == ["1", unfinished]
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1]
        assert (checkpoints.latest(), checkpoints.best()) == (1, 1)
        assert_same(checkpoints.restore(1, like(expected)), expected)
        checkpoints.save(2, expected)
        checkpoints.note_score(2, 0.7)
    assert folders(tmp_path) == ["1", "2"]


def test_a_reader_does_not_disturb_a_save_under_way(tmp_path):
    save_small(tmp_path, 1, scores={1: 0.5})
    large = {"variables": {"large": np.random.default_rng(0).integers(0, 2**32, 12 * 2**20, np.uint32)}}
    with Checkpoints(tmp_path) as training:
        training.save(2, large)
        training.note_score(2, 0.6)
        with Checkpoints(tmp_path, read_only=True) as reader:
            assert 1 in reader.steps()
            assert_same(reader.restore(1, like(SMALL)), jax.tree.map(lambda x: x + 1, SMALL))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1, 2]
        assert_same(checkpoints.restore(2, like(large)), large)


def test_a_reader_writes_nothing(tmp_path, pristine):
    folder = tmp_path / "c"
    shutil.copytree(pristine, folder)
    (folder / "2" / MANIFEST).unlink()
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    with Checkpoints(folder, keep=1, read_only=True) as checkpoints:
        checkpoints.restore(2, like(SMALL))
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
    with Checkpoints(tmp_path / "none", read_only=True) as checkpoints:
        assert checkpoints.steps() == []
        assert checkpoints.best() is None
    assert os.listdir(tmp_path) == ["c"]
