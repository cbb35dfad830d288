"""The training step: data parallelism, accumulation, purity, and the order of the data."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from small_runs import CLASSES, RESNET, VGG_WITHOUT_DROPOUT, config, examples, folder_data

from fcn_jax import cli
from fcn_jax.config import AugmentConfig, Config, DataConfig, InputConfig, OptimConfig
from fcn_jax.data import batches as inputs
from fcn_jax.data.augment import normalise, origin, step_keys
from fcn_jax.data.batches import Batch, place, train_batches
from fcn_jax.errors import InputError
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.dilated import DilatedFCN
from fcn_jax.models.fcn import FCN8s
from fcn_jax.runs.restore import restore_variables
from fcn_jax.runs.run_dir import Run
from fcn_jax.training import loop as module
from fcn_jax.training.loop import train, train_step
from fcn_jax.training.state import init_state


def batch(seed: int = 0) -> Batch:
    return place(examples(8, seed), 8, (40, 40))


@functools.cache
def step_on(devices: int, backbone, settings: Config):
    """A jitted step over so many devices, its first state, and the sharding of batches."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    sharding, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    model = FCN8s(num_classes=CLASSES, backbone=backbone)
    state = jax.jit(functools.partial(init_state, model, settings), out_shardings=everywhere)()
    # Zero scores hide what reaches them: start from some.
    variables = jax.tree_util.tree_map_with_path(
        lambda path, x: x + 0.1 if "score" in str(path) and "kernel" in str(path) else x, state.variables
    )
    step = jax.jit(functools.partial(train_step, model=model, config=settings))
    return step, state.replace(variables=variables), sharding


def losses(devices: int, backbone, settings: Config, steps: int = 3) -> np.ndarray:
    step, state, sharding = step_on(devices, backbone, settings)
    values = []
    for index in range(steps):
        state, metrics = step(state, jax.device_put(batch(index), sharding))
        values.append([metrics["loss"], metrics["gradient_norm"]])
    return np.array(values)


def test_eight_devices_give_the_losses_of_one():
    """BatchNorm included: its statistics are those of the global batch."""
    one, eight = losses(1, RESNET, config()), losses(8, RESNET, config())
    assert np.ptp(one[:, 0]) > 1e-3
    np.testing.assert_allclose(eight, one, rtol=1e-3)


def test_accumulation_gives_the_losses_of_the_whole_batch():
    """Without BatchNorm, whose statistics are those of each part."""
    whole = losses(1, VGG_WITHOUT_DROPOUT, config())
    for parts, devices in ((4, 1), (2, 4)):
        in_parts = losses(devices, VGG_WITHOUT_DROPOUT, config(accumulate=parts))
        np.testing.assert_allclose(in_parts, whole, rtol=1e-3)


def test_the_loss_falls_and_one_program_does_all_steps():
    settings = config()
    model = FCN8s(num_classes=CLASSES, backbone=RESNET)
    state = jax.jit(functools.partial(init_state, model, settings))()
    chex.clear_trace_counter()
    once = chex.assert_max_traces(lambda state, batch: train_step(state, batch, model=model, config=settings), n=1)
    step = jax.jit(once, donate_argnums=0)
    values = []
    for index in range(settings.steps):
        state, metrics = step(state, jax.device_put(batch(index)))
        values.append(float(metrics["loss"]))
    assert abs(values[0] - np.log(CLASSES)) < 1e-5  # zero scores: every class as likely
    assert np.mean(values[-5:]) < 0.5 * values[0]


def test_a_batch_that_is_all_void_changes_nothing_but_decay():
    settings = config(optim=OptimConfig(learning_rate=0.1, weight_decay=0.0))
    step, state, _ = step_on(1, VGG_WITHOUT_DROPOUT, settings)
    void = batch()._replace(label=np.full((8, 40, 40), 255, np.uint8))
    after, metrics = step(state, void)
    assert float(metrics["loss"]) == 0
    chex.assert_trees_all_equal(after.variables, state.variables)


def test_the_sum_loss_is_the_mean_loss_times_the_labelled_pixels():
    mean = losses(1, VGG_WITHOUT_DROPOUT, config(), steps=1)[0]
    optim = OptimConfig(learning_rate=0.02, weight_decay=1e-3, reduction="sum")
    total = losses(1, VGG_WITHOUT_DROPOUT, config(optim=optim), steps=1)[0]
    pixels = total[0] / mean[0]
    assert abs(pixels - round(pixels)) < 0.1
    assert 8 * 32 * 32 * 0.3 < pixels <= 8 * 32 * 32
    np.testing.assert_allclose(total[1] / mean[1], pixels, rtol=1e-3)


@pytest.mark.parametrize("auxiliary", [0.5, 0.0])
def test_the_dilated_net_also_learns_from_its_auxiliary_scores(auxiliary):
    """The loss is main + weight * auxiliary, as torchvision's train.py has it; without a weight that head stays."""
    backbone = ResNet(depths=(1, 1, 1, 1), width=4, output_stride=8)
    model = DilatedFCN(num_classes=CLASSES, backbone=backbone, dropout=0.0)
    optim = OptimConfig(learning_rate=0.1, weight_decay=0.0, auxiliary_weight=auxiliary)
    settings = config(optim=optim, augment=AugmentConfig(crop=32, scale=(1.0, 1.0), flip=False))
    state, generator = init_state(model, settings), np.random.default_rng(0)
    for head in ("classifier", "aux_classifier"):
        score = state.variables["params"][head]["score"]
        score["kernel"] = jnp.asarray(generator.normal(size=score["kernel"].shape), jnp.float32)
    pixels = generator.integers(0, 256, (8, 32, 32, 3), np.uint8)
    label = generator.integers(0, CLASSES, (8, 32, 32), np.uint8)
    whole = Batch(pixels, label, np.full((8, 2), 32, np.int32))
    after, metrics = jax.jit(functools.partial(train_step, model=model, config=settings))(state, whole)

    images, learning = normalise(jnp.asarray(pixels), InputConfig()), {"train": True, "mutable": ["batch_stats"]}
    dropout = {"dropout": jax.random.key(0)}
    scores, _ = jax.jit(lambda: model.apply(state.variables, images, return_aux=True, rngs=dropout, **learning))()

    def mean(logits: jax.Array) -> float:
        exponents = np.exp(np.asarray(logits, np.float64))
        right = np.take_along_axis(exponents, label[..., None].astype(int), axis=-1)[..., 0]
        return -np.log(right / exponents.sum(axis=-1)).mean()

    logits, aux = scores
    assert abs(mean(logits) - mean(aux)) > 1e-3
    assert float(metrics["loss"]) == pytest.approx(mean(logits) + auxiliary * mean(aux), rel=1e-4)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), after.variables["params"], state.variables["params"])
    assert moved["aux_classifier"]["score"]["kernel"] == bool(auxiliary)
    assert moved["classifier"]["score"]["kernel"]


def test_class_weights_and_smoothing_reach_the_loss():
    plain = losses(1, VGG_WITHOUT_DROPOUT, config(), steps=2)
    for optim in (
        OptimConfig(learning_rate=0.05, class_weights=(1.0, 5.0, 0.2)),
        OptimConfig(learning_rate=0.05, label_smoothing=0.2),
    ):
        # From the second step on: at first all scores are equal, and so are all weightings of them.
        assert abs(losses(1, VGG_WITHOUT_DROPOUT, config(optim=optim), steps=2)[1, 0] - plain[1, 0]) > 1e-3


def test_a_mean_loss_does_not_depend_on_the_size_of_class_weights():
    """As in PyTorch: only their ratios count, even where they add up to less than 1."""
    large, small = (
        losses(1, VGG_WITHOUT_DROPOUT, config(optim=OptimConfig(learning_rate=0.05, class_weights=weights)), steps=3)
        for weights in ((1.0, 5.0, 0.2), (1e-6, 5e-6, 0.2e-6))
    )
    np.testing.assert_allclose(small, large, rtol=1e-3)


class Examples(list):
    """A source: what `len` and an index need."""


def one_device() -> NamedSharding:
    return NamedSharding(Mesh(np.array(jax.devices()[:1]), ("data",)), PartitionSpec("data"))


def first_batches(count: int, **changes) -> list[Batch]:
    first, sharding = changes.pop("first_step", 0), changes.pop("sharding", one_device())
    settings = config(**({"batch_size": 4, "seed": 3, "workers": 2} | changes))
    stream = train_batches(Examples(examples(10)), (40, 40), settings, first, sharding)
    return [jax.tree.map(np.asarray, next(stream)) for _ in range(count)]


def test_order_is_a_function_of_seed_and_step():
    expected = first_batches(8)
    for workers in (1, 5):
        chex.assert_trees_all_equal(first_batches(8, workers=workers), expected)
    chex.assert_trees_all_equal(first_batches(3, first_step=5), expected[5:])
    chex.assert_trees_all_equal(
        first_batches(8, sharding=NamedSharding(Mesh(np.array(jax.devices()[:4]), ("data",)), PartitionSpec("data"))),
        expected,
    )
    assert not all(np.array_equal(a.image, b.image) for a, b in zip(first_batches(8, seed=4), expected, strict=True))


def test_every_image_comes_once_an_epoch_and_whole():
    source = examples(10)
    batches = first_batches(5)
    seen = []
    for images, labels, sizes, _ in batches:
        for image, label, (height, width) in zip(images, labels, sizes, strict=True):
            matches = [
                index
                for index, example in enumerate(source)
                if example.image.shape[:2] == (height, width) and np.array_equal(example.image, image[:height, :width])
            ]
            assert len(matches) == 1
            np.testing.assert_array_equal(label[:height, :width], source[matches[0]].label)
            assert (label[height:] == 255).all()
            assert (label[:, width:] == 255).all()
            seen += matches
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def test_windows_of_images_give_the_losses_of_whole_images():
    """Each on a canvas of 40x40, of which the crop of the step looks at 12 / 0.8 pixels and those beside them."""
    settings = config(augment=AugmentConfig(crop=12, scale=(0.8, 0.8)))
    step, state, _ = step_on(1, RESNET, settings)
    whole, side = batch(), 26
    keys, _ = step_keys(settings.seed, state.step, 8)
    window = jax.vmap(lambda key, size: origin(key, size, jnp.array([side, side]), settings.augment))
    at = np.asarray(window(keys, jnp.asarray(whole.size)))
    assert len({tuple(x) for x in at}) > 2
    image, label = (
        np.stack([x[top : top + side, left : left + side] for x, (top, left) in zip(array, at, strict=True)])
        for array in (whole.image, whole.label)
    )
    windows = Batch(image, label, whole.size, at)
    for name, value in step(state, whole)[1].items():
        np.testing.assert_allclose(step(state, windows)[1][name], value, rtol=1e-4)


def test_batches_that_do_not_fit_the_devices_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"batch-size 12 cannot be split over 8 devices.*multiple of 8"):
        train(Config(batch_size=12), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_class_weights_must_fit_the_classes(tmp_path):
    data = DataConfig(name="folder", dir=folder_data(tmp_path), cache=tmp_path / "cache")
    settings = Config(batch_size=8, data=data, optim=OptimConfig(class_weights=(1.0, 2.0)))
    with pytest.raises(InputError, match="class-weights has 2 values for 3 classes; give one for each of sky, sea"):
        train(settings, tmp_path / "run")


def test_where_decoded_images_are_kept_changes_nothing_and_may_change_on_resume(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "build", lambda model, classes: FCN8s(num_classes=classes, backbone=RESNET))
    data = folder_data(tmp_path)
    settings = config(steps=4, eval_every=2, log_every=1, augment=AugmentConfig(crop=32, scale=(0.9, 1.1)))

    def lines(folder: Path) -> list[dict]:
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    def trained(decoded: str, folder: Path) -> list[dict]:
        where = DataConfig(name="folder", dir=data, cache=tmp_path / "cache", decoded=decoded)
        train(dataclasses.replace(settings, data=where), folder)
        return [{key: value for key, value in line.items() if key != "input_wait"} for line in lines(folder)]

    expected = trained("never", tmp_path / "never")
    assert not list((tmp_path / "cache").rglob("*.uint8"))
    assert trained("device", tmp_path / "device") == expected
    shares = [line["input_wait"] for line in lines(tmp_path / "device") if line["split"] == "train"]
    assert len(shares) == 4
    assert all(0 <= share <= 1 for share in shares)

    shutil.rmtree(tmp_path / "never" / "checkpoints" / "4")
    assert trained("disk", tmp_path / "never") == expected
    assert len(list((tmp_path / "cache").rglob("train.uint8"))) == 1


def test_a_split_that_does_not_fit_on_the_devices_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "_free", lambda device: 1.0)
    data = DataConfig(name="folder", dir=folder_data(tmp_path), cache=tmp_path / "cache", decoded="device")
    with pytest.raises(InputError, match=r"1 decoded images on canvases of .* give --data.decoded disk, or never"):
        train(Config(batch_size=8, data=data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "logged"),
    [(("--log-every", "1"), [1]), (("--log-every", "100", "--checkpoint-every", "2"), [])],
    ids=["seen when logged", "seen before saving"],
)
def test_divergence_ends_the_training_with_1_and_nothing_of_it_is_kept(tmp_path, monkeypatch, capsys, flags, logged):
    monkeypatch.setattr(module, "build", lambda model, classes: FCN8s(num_classes=classes, backbone=RESNET))
    data = ("--data.name", "folder", "--data.dir", str(folder_data(tmp_path)), "--data.cache", str(tmp_path / "cache"))
    flags += ("--augment.crop", "32", "--steps", "5", "--optim.learning-rate", "1e38")
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "fcn8s", *data, *flags, "--run-dir", str(tmp_path / "run")])
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "fcn-jax: loss nan and gradient norm nan at step 2: training has diverged; lower --optim.learning-rate, add "
        "--optim.warmup-steps or set --optim.clip-norm"
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    assert [json.loads(line)["step"] for line in lines] == logged
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_a_run_without_a_checkpoint_is_refused(tmp_path):
    run = Run(tmp_path, config(), ("sky", "sea", "sand"), np.zeros((3, 3), np.uint8), "abc")
    model = FCN8s(num_classes=CLASSES, backbone=RESNET)
    for step, which in ((None, ""), (7, " 7")):
        with pytest.raises(InputError, match=rf"{tmp_path} has no checkpoint{which}; there are: none; train it on"):
            restore_variables(run, model, step)


def test_the_same_step_twice_gives_the_same_bits():
    step, state, _ = step_on(1, RESNET, config())
    first, second = step(state, batch())[0], step(state, batch())[0]
    chex.assert_trees_all_equal(first, second)
    later = step(state.replace(step=state.step + 1), batch())[0]
    assert not all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(later), strict=True))
    assert int(first.step) == 1
    assert first.step.dtype == jnp.int32
