"""A training that has diverged: the step, the images and the first value it names, and how it goes back."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_arrays import read_arrays
from flax import traverse_util
from PIL import Image
from small_runs import PLAIN, folder_run
from small_trainings import read as lines

from fcn_jax.config import AugmentConfig, OptimConfig
from fcn_jax.data.batches import train_batches
from fcn_jax.errors import Diverged, InputError
from fcn_jax.models.fcn import FCN8s
from fcn_jax.runs.checkpoint import Checkpoints
from fcn_jax.runs.checkpoint_files import list_complete
from fcn_jax.runs.run_dir import open_run
from fcn_jax.training import loop, setup
from fcn_jax.training.divergence import find_first_bad, find_place, list_images
from fcn_jax.training.loop import train
from fcn_jax.training.rewind import _is_sound as is_sound
from fcn_jax.training.rewind import rewind
from fcn_jax.training.setup import set_up

STILL = AugmentConfig(crop=32, scale=(1.0, 1.0), flip=False)


@pytest.fixture(autouse=True)
def _small_network(monkeypatch):
    monkeypatch.setattr(setup, "build", lambda model, classes: FCN8s(num_classes=classes, backbone=PLAIN))


def paint(folder: Path) -> None:
    """Two images to train on, one of them bright and one of nearly the mean colour."""
    for name, colour in (("bright", (255, 255, 255)), ("mean", (124, 116, 104))):
        for kind, array in (("images", np.full((32, 32, 3), colour, np.uint8)), ("labels", np.eye(32, dtype=np.uint8))):
            Image.fromarray(array).save(folder / kind / "train" / f"{name}.png")
    for kind in ("images", "labels"):
        (folder / kind / "train" / "one.png").unlink()


@pytest.fixture
def settings(tmp_path):
    config, options = folder_run(tmp_path, augment=STILL, batch_size=8, steps=6, eval_every=2)
    paint(tmp_path)
    return config, options


def place_with(config, options, changes: dict[str, float]):
    """The first bad tensor of step 1, with every number of some parameters replaced, and the images of the step."""
    ready = set_up(config, options, Path("nowhere"))
    state = ready.init()
    params = traverse_util.flatten_dict(state.variables["params"], sep="/")
    params |= {path: jnp.full_like(params[path], number) for path, number in changes.items()}
    state = state.replace(variables={"params": traverse_util.unflatten_dict(params, sep="/")})
    state = jax.device_put(state, ready.everywhere)
    batch = next(train_batches(ready.train_source, ready.dataset.max_size, config, options, 0, ready.sharding))
    return find_place(ready, state, batch), list_images(ready, 1)


@pytest.mark.parametrize("accumulate", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_the_first_tensor_and_its_images(settings, accumulate):
    """Bright pixels are 2.2 to 2.6, those of the mean colour at most 0.01; a kernel of conv1 sums 192 of them."""
    config, options = settings
    config = dataclasses.replace(config, accumulate=accumulate, batch_size=8 * accumulate)
    place, images = place_with(config, options, {"backbone/conv1/kernel": 1e37})
    assert place.tensor == "the output of backbone/conv1"
    assert set(images) == {"bright", "mean"}
    assert place.images == [index for index, name in enumerate(images) if name == "bright"]


@pytest.mark.slow
def test_a_later_layer_a_parameter_a_gradient_and_nothing(settings):
    place, images = place_with(*settings, {"backbone/conv3/kernel": 1e38, "backbone/conv2/bias": 1.0})
    assert place.tensor == "the output of backbone/conv3"
    assert place.images == list(range(len(images)))
    assert place_with(*settings, {"backbone/conv2/bias": np.nan})[0] == (
        "the parameter backbone/conv2/bias, before the step",
        [],
    )
    # The scores are 0 whatever the features are; the gradient of the kernel that makes them is a sum of the features.
    place, _ = place_with(*settings, {"backbone/conv3/bias": 3e38, "score_fr/kernel": 0.0})
    assert place == ("the gradient of score_fr/kernel", [])
    assert place_with(*settings, {})[0] is None


def test_the_first_of_several_steps():
    good, bad = {"loss": jnp.float32(1.0)}, {"loss": jnp.float32(np.nan)}
    assert find_first_bad([good, good]) is None
    assert find_first_bad([good, bad, bad]) == 1


@pytest.mark.slow
def test_a_training_that_stops_names_what_it_found(tmp_path, settings):
    config, options = settings
    optim = OptimConfig(learning_rate=3e3, clip_norm=0.0, warmup_steps=0)
    with pytest.raises(Diverged) as raised:
        train(dataclasses.replace(config, optim=optim), options, tmp_path / "run")
    found = re.fullmatch(
        r"loss \S+ and gradient norm \S+ at step (\d): training has diverged\. Step (\d) takes "
        r"(bright, mean|mean, bright)\. "
        r"Taken again from step (\d), its first value that is not finite is in .*; .* --optim\.learning-rate 0\.05",
        str(raised.value),
    )
    assert found, raised.value
    step = int(found[1])
    assert (int(found[2]), int(found[4])) == (step, (step - 1) // 2 * 2)
    assert lines(tmp_path / "run")[-1]["step"] == step - 1


@pytest.mark.slow
def test_a_process_without_the_checkpoints_of_all_names_the_images(tmp_path, settings, monkeypatch):
    monkeypatch.setattr(Checkpoints, "has_all", False)
    config, options = settings
    optim = OptimConfig(learning_rate=3e3, clip_norm=0.0, warmup_steps=0)
    with pytest.raises(Diverged, match=r"at step (\d): .*\. Step \1 takes (bright, mean|mean, bright); "):
        train(dataclasses.replace(config, optim=optim), options, tmp_path / "run")


@pytest.mark.slow
def test_a_training_that_rewinds_is_one_with_these_rate_cuts(tmp_path, settings, monkeypatch):
    config, options = settings
    diverges = iter([False] * 4 + [True] + [False] * 10)  # at step 5
    with monkeypatch.context() as patch:
        patch.setattr(loop, "find_first_bad", lambda metrics: 0 if next(diverges) else None)
        said: list[str] = []
        train(config, dataclasses.replace(options, on_divergence="rewind"), tmp_path / "run", said.append)
    assert any(line.endswith("goes back to step 4, and the learning rate after it is halved") for line in said)
    assert open_run(tmp_path / "run").config.optim.rate_cuts == (4,)
    cut = dataclasses.replace(config, optim=dataclasses.replace(config.optim, rate_cuts=(4,)))
    train(cut, options, tmp_path / "cut")
    assert lines(tmp_path / "run") == lines(tmp_path / "cut")
    arrays, others = (read_arrays(tmp_path / name, 6) for name in ("run", "cut"))
    assert arrays.keys() == others.keys()
    for path, array in arrays.items():
        np.testing.assert_array_equal(array, others[path], err_msg=path)
    said.clear()
    assert train(config, options, tmp_path / "run", said.append) is None  # with the flags of the start
    assert "nothing to do" in said[-1]
    with pytest.raises(InputError, match=r"optim.rate_cuts: \[4\] -> \[3\]"):
        train(
            dataclasses.replace(config, optim=dataclasses.replace(config.optim, rate_cuts=(3,))),
            options,
            tmp_path / "run",
        )

    def go_back() -> tuple[list[int], list[int]]:
        """The cuts after a further rewind, and the checkpoints that are left."""
        changed, step = rewind(config, tmp_path / "run")
        assert changed.optim.rate_cuts[-1] == step
        file = tmp_path / "run" / "config.json"
        stored = json.loads(file.read_text())
        stored["config"]["optim"]["rate_cuts"] = changed.optim.rate_cuts
        file.write_text(json.dumps(stored))
        return list(changed.optim.rate_cuts), list_complete(tmp_path / "run" / "checkpoints")

    before = list_complete(tmp_path / "run" / "checkpoints")
    assert before[-2:] == [4, 6]
    assert go_back() == ([4, 6], before)
    assert go_back() == ([4, 6, 6], before)
    assert go_back() == ([4, 6, 6, 4], before[:-1])  # step 6 did not help twice
    metrics = tmp_path / "run" / "metrics.jsonl"
    worse = [line | {"loss": 1e9 if line["step"] > 1 else line["loss"]} for line in lines(tmp_path / "run")]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in worse))
    assert go_back() == ([4, 6, 6, 4, 0], [])
    assert len(list((tmp_path / "run" / "damaged").iterdir())) == len(before)


@pytest.mark.slow
def test_a_rate_that_is_too_high_is_halved_until_it_trains(tmp_path, settings):
    config, options = settings
    optim = OptimConfig(learning_rate=300.0, clip_norm=0.0, warmup_steps=0)
    config, options = dataclasses.replace(config, optim=optim), dataclasses.replace(options, on_divergence="rewind")
    assert np.isfinite(train(config, options, tmp_path / "run").loss)
    cuts = open_run(tmp_path / "run").config.optim.rate_cuts
    assert cuts
    with pytest.raises(Diverged, match="Taken again from step"):  # after the last rewind it stops
        train(
            dataclasses.replace(config, optim=dataclasses.replace(optim, learning_rate=1e30)),
            options,
            tmp_path / "other",
        )


def test_a_checkpoint_is_sound_by_the_loss_of_training_alone(tmp_path):
    """The loss of val may be far above that of training, and a summed loss far above the mean one of val."""

    def write(*lines):
        (tmp_path / "metrics.jsonl").write_text(
            "".join(f'{{"step": {step}, "split": "{split}", "loss": {loss}}}\n' for step, split, loss in lines)
        )

    write((1, "train", 0.2), (100, "train", 0.2), (100, "val", 0.45))
    assert is_sound(tmp_path, 100)
    write((1, "train", 0.2), (98, "train", 0.45), (99, "train", 0.45), (100, "train", 0.45), (100, "val", 0.2))
    assert not is_sound(tmp_path, 100)
    write((100, "val", 0.2))
    assert is_sound(tmp_path, 100)


@pytest.mark.parametrize(
    ("losses", "sound"),
    [
        ([0.2, 0.9, 1.0, 0.9, 1.1, 0.8], True),  # the first image was easy
        ([1.0] * 12 + [2.5], True),  # the last one was hard
        ([0.0, 1.0, 1.0], True),  # the first one was all void
        ([1.0] * 12 + [2.5, 3.0], False),
    ],
)
def test_one_batch_does_not_decide_whether_a_checkpoint_is_sound(tmp_path, losses, sound):
    lines = ({"step": step, "split": "train", "loss": loss} for step, loss in enumerate(losses, 1))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert is_sound(tmp_path, 100) is sound
