"""Trainings on several inputs, from files to class maps, with early and with late fusion."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from small_nyud import write_official, write_reference
from small_runs import Tiny

from fcn_jax.cli import predict
from fcn_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    DataOptions,
    InputConfig,
    ModelConfig,
    OptimConfig,
    RunOptions,
)
from fcn_jax.data.dataset import prepare_configured
from fcn_jax.errors import InputError
from fcn_jax.inference.evaluate import evaluate
from fcn_jax.inference.segment import make_forward, make_unlabelled, segment
from fcn_jax.inference.segmenter import Segmenter
from fcn_jax.inference.tiles import Tiling, plan_tiles
from fcn_jax.inference.trained import load_trained
from fcn_jax.inference.tta import Views
from fcn_jax.models.build import build, init_variables
from fcn_jax.models.fcn import FCN32s
from fcn_jax.models.reference import LateFusion
from fcn_jax.runs.restore import restore_variables
from fcn_jax.runs.run_dir import open_run
from fcn_jax.training.loop import train
from fcn_jax.training.start import match_start, read_start

MODEL = ModelConfig(head="fcn32s", backbone="resnet18", upsampling="fixed")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    root = tmp_path_factory.mktemp("nyud")
    return root, write_reference(root / "data")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr("fcn_jax.models.build.BACKBONES", {"resnet18": lambda dtype: Tiny()})


def run(root, run_dir, inputs, **changes):
    config = Config(
        model=dataclasses.replace(MODEL, **changes),
        data=DataConfig("nyud", train_split=changes.pop("split", "train"), inputs=inputs),
        augment=AugmentConfig(crop=32, scale=(0.8, 1.2), colour=0.3),
        optim=OptimConfig(learning_rate=1.0),
        steps=2,
        batch_size=8,
    )
    data = DataOptions(root / "data", root / "cache", val_split="val")
    train(config, RunOptions(data=data, eval_every=2), run_dir)
    return open_run(run_dir)


def compute_by_hand(image, given):
    """Normalise an image in float64, channel by channel."""
    channels = [image[..., index].astype(np.float64) for index in range(image.shape[-1])]
    if given.order == "bgr":
        channels[:3] = channels[2::-1]
    channels = [np.log(np.maximum(x, 1)) if index in given.log else x for index, x in enumerate(channels)]
    return np.stack([(x - m) / s for x, m, s in zip(channels, given.mean, given.std, strict=True)], -1).astype(
        np.float32
    )


def assert_predicts(run_dir, root, arrays, others, image, expected, capsys):
    """Predict by the command line, and compare with logits."""
    kind = {"colour": "images", "depth": "depth", "hha": "hha"}
    data = root / "data" / "data"
    folders = [f"{name}={data / kind[name]}" for name in others]
    out = run_dir / "predicted"
    predict.run([str(run_dir), str(data / "images/img_5002.png"), "--out", str(out), "--inputs", *folders])
    with Image.open(out / "img_5002.png") as mask:
        got = np.asarray(mask)
    ranked = np.sort(expected, axis=-1)
    clear = ranked[..., -1] - ranked[..., -2] > 1e-5
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(got[clear], expected.argmax(-1)[clear])
    np.testing.assert_array_equal(Segmenter.from_run(run_dir)(image)[clear], got[clear])
    assert (out / "img_5002_overlay.png").is_file()


@pytest.mark.slow
def test_early_fusion(reference, tmp_path, capsys):
    root, arrays = reference
    trained = run(root, tmp_path / "run", ("colour", "depth"))
    given = trained.config.model.input
    assert (given.channels, given.log, given.dtype) == ((("colour", 3), ("depth", 1)), (3,), "uint16")
    model = build(trained.config.model, 40)
    variables, _ = restore_variables(trained, model)
    assert variables["params"]["backbone"]["conv1"]["kernel"].shape[2] == 4
    data = prepare_configured(trained.config.data, trained.options.data)
    (example,) = data.source("val")
    mine = arrays["5002"]
    image = np.concatenate([mine["images"], mine["depth"][..., None]], axis=-1)
    expected = np.asarray(model.apply(variables, compute_by_hand(image, given)[None]))[0]
    assert_predicts(tmp_path / "run", root, arrays, ("depth",), image, expected, capsys)
    for others in (("colour",), ("depth", "colour")):  # the input of the run is not taken for one that flags give
        with pytest.raises(InputError, match=r"holds a run with another configuration:\n(.*\n)*  data\.inputs: "):
            run(root, tmp_path / "run", others)
    loaded = load_trained(trained, labelled=True)
    scored = evaluate(loaded.forward, loaded.variables, [example], trained.tasks, 8)
    logs = jax.nn.log_softmax(jnp.asarray(expected))
    known = example.label != 255
    rows, columns = np.nonzero(known)
    by_hand = -float(np.asarray(logs)[rows, columns, example.label[known]].mean())
    assert scored.loss == pytest.approx(by_hand, rel=1e-4)
    with pytest.raises(InputError, match="the network takes colour and depth, and it needs depth, too: give"):
        predict.run([str(tmp_path / "run"), str(root / "data/data/images/img_5002.png")])
    wrong = image[..., :3].astype(np.uint8)
    segmenter = Segmenter.from_run(tmp_path / "run")
    with pytest.raises(
        InputError, match=r"dtype uint8; an image is a NumPy array uint16\[height, width, 4\] .* colour 3"
    ):
        segmenter(wrong)
    with pytest.raises(InputError, match=r"has shape \(36, 40, 3\); .*; join the inputs with np.concatenate"):
        segmenter(wrong.astype(np.uint16))
    views = Segmenter.from_run(tmp_path / "run", tta=Views((1.0, 0.5), flip=True)).probabilities(image)
    np.testing.assert_allclose(views.sum(axis=-1, dtype=np.float32), 1, atol=0.01)


@pytest.mark.slow
def test_late_fusion_from_two_runs(reference, tmp_path, capsys):
    root, arrays = reference
    singles = {name: run(root, tmp_path / name, (name,)) for name in ("colour", "hha")}
    streams = tuple(single.folder for single in singles.values())
    fused = run(root, tmp_path / "fused", ("colour", "hha"), fusion="late", init_streams=streams)
    given = fused.config.model.input
    inputs = [single.config.model.input for single in singles.values()]
    assert given.mean == inputs[0].mean + inputs[1].mean
    assert given.std == inputs[0].std + inputs[1].std
    mine = arrays["5002"]
    image = np.concatenate([mine["images"], mine["hha"]], axis=-1)
    model = build(fused.config.model, 40)
    variables, _ = restore_variables(fused, model)
    # The mean of two networks, each on its own channels.
    normal = compute_by_hand(image, given)[None]
    net = FCN32s(40, Tiny(), upsampling="fixed")
    parts = [
        np.asarray(net.apply({"params": variables["params"][name]}, normal[..., channels]))[0]
        for name, channels in (("colour", slice(0, 3)), ("hha", slice(3, 6)))
    ]
    expected = (parts[0] + parts[1]) / 2
    assert np.abs(parts[0] - parts[1]).max() > 5e-4
    assert_predicts(tmp_path / "fused", root, arrays, ("hha",), image, expected, capsys)
    start = start_of(fused)
    for name, single in singles.items():
        own, _ = restore_variables(single, build(single.config.model, 40))
        jax.tree.map(np.testing.assert_array_equal, start["params"][name], own["params"])


def start_of(fused):
    """The variables that a run starts from."""
    config = fused.config.model
    weights = read_start(config, None, [name for name, _ in config.input.channels])
    fresh = init_variables(build(config, 40), 5, 6)
    return match_start(config, fresh, weights, fused.tasks).merge_into(fresh)


@pytest.mark.slow
def test_late_fusion_in_tiles():
    rng = np.random.default_rng(0)
    model = LateFusion(FCN32s(5, Tiny(), upsampling="fixed"), (("colour", 3), ("depth", 1)))
    image = rng.integers(0, 256, (200, 330, 4)).astype(np.uint16)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 4)))
    variables = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32), variables)
    tiling = plan_tiles(model, 32, 4)
    assert isinstance(tiling, Tiling)
    given = InputConfig(mean=(128.0,) * 4, std=(60.0,) * 4, channels=model.streams, dtype="uint16")
    forward = make_forward(model, given, labelled=False, probabilities=True)
    whole, tiled = (
        next(segment(forward, variables, [make_unlabelled("a", image)], 8, how)).probabilities for how in (None, tiling)
    )
    np.testing.assert_allclose(tiled.astype(np.float32), whole.astype(np.float32), atol=2e-3)


@pytest.mark.slow
def test_official_layout(tmp_path):
    write_official(tmp_path / "data")
    config = Config(
        model=dataclasses.replace(MODEL, fusion="late"),
        data=DataConfig("nyud", train_split="trainval", inputs=("colour", "depth")),
        augment=AugmentConfig(crop=32),
        steps=1,
        batch_size=8,
    )
    options = RunOptions(data=DataOptions(tmp_path / "data", tmp_path / "cache", val_split="test"))
    train(config, options, tmp_path / "run")
    assert [name for name, _ in open_run(tmp_path / "run").config.model.input.channels] == ["colour", "depth"]
