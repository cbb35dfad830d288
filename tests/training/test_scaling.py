"""The communication of a training step, read from the compiled program, and its results on several devices."""

import functools
import json
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import Image
from xla_flags import FAST_COMPILE

from fcn_jax import cli
from fcn_jax.config import AugmentConfig, Config, InputConfig, OptimConfig
from fcn_jax.data.augment import draw_changes, normalise
from fcn_jax.data.canvas import Batch
from fcn_jax.data.defaults import fill_config
from fcn_jax.inference.segment import make_forward
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.backbones.vgg import VGG
from fcn_jax.models.dilated import DilatedFCN
from fcn_jax.models.fcn import FCN8s
from fcn_jax.training import setup
from fcn_jax.training.state import init_state
from fcn_jax.training.step import make_step, train_step

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import extrapolation
import step_program
from processes import both_end_well, free_address

CLASSES, SIDE, DEVICES = 3, 32, 8
RESNET = ResNet(depths=(1, 1, 1, 1), width=8)
VGG_TINY = VGG(depths=(1, 1, 1, 1, 1), fc_features=8, fc_kernel=3)
AUGMENT = AugmentConfig(crop=SIDE, scale=(0.5, 2.0), colour=0.3)
SCALARS = 2 * 4  # the loss and the number of labelled pixels


def config(**changes) -> Config:
    """Everything on that might make devices exchange images."""
    settings = {
        "augment": AUGMENT,
        "optim": OptimConfig(learning_rate=0.1, class_weights=(1.0, 2.0, 0.5), label_smoothing=0.1, clip_norm=1.0),
        "steps": 10,
        "batch_size": 2 * DEVICES,
    }
    return fill_config(Config(**(settings | changes)))


def shardings(devices: int) -> tuple[NamedSharding, NamedSharding]:
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))


def shaped(tree, sharding: NamedSharding):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def images(count: int = 2 * DEVICES, augment: AugmentConfig = AUGMENT) -> Batch:
    """Images that grow lighter, so that the statistics of a few are not those of all."""
    rng = np.random.default_rng(0)
    light = np.linspace(0.2, 1, count)[:, None, None, None]
    sizes = np.full((count, 2), SIDE, np.int32)
    return Batch(
        (light * rng.integers(0, 256, (count, SIDE, SIDE, 3))).astype(np.uint8),
        rng.integers(0, CLASSES, (count, SIDE, SIDE), np.uint8),
        sizes,
        draw_changes(0, 0, sizes, 0, count, augment),
    )


def communication(model, settings: Config) -> tuple[dict, dict[str, int]]:
    """The variables' shapes, and the bytes of a step's collectives by kind."""
    everywhere, split = shardings(DEVICES)
    state = shaped(jax.eval_shape(functools.partial(init_state, model, settings)), everywhere)
    program = make_step(model, settings).lower(state, shaped(images(), split)).compile()
    sizes: Counter[str] = Counter()
    for kind, size, times in step_program.collectives(program.as_text()):
        sizes[kind] += size * times
    return state.variables, dict(sizes)


def numbers(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def rounded_up(params) -> int:
    """Numbers that the gradients of odd upsampling kernels have more: they are computed in whole strides."""
    strides = {3: 2, 15: 8}
    kernels = [x["kernel"].shape for name, x in params.items() if name.startswith("upscore")]
    sides = [(shape[0], strides.get(shape[0], 1)) for shape in kernels]
    return sum(
        ((-(-side // stride) * stride) ** 2 - side**2) * shape[2] * shape[3]
        for shape, (side, stride) in zip(kernels, sides, strict=True)
    )


def test_a_resnet_reduces_its_gradient_and_its_statistics_and_nothing_else():
    variables, sizes = communication(FCN8s(num_classes=CLASSES, backbone=RESNET), config())
    params, channels = variables["params"], numbers(variables["batch_stats"]) // 2
    # Of each channel the sum and the sum of squares; in the backward pass the sums that are needed are the gradients of
    # scale and shift.
    expected = 4 * (numbers(params) + rounded_up(params) + 2 * channels) + SCALARS
    assert rounded_up(params) > 0
    assert sizes == {"all-reduce": expected}


def test_a_network_without_norms_reduces_its_gradient_alone():
    """Dropout draws for the global batch, and each device its own part."""
    variables, sizes = communication(FCN8s(num_classes=CLASSES, backbone=VGG_TINY), config())
    assert sizes == {"all-reduce": 4 * numbers(variables["params"]) + SCALARS}


@pytest.mark.slow
def test_norms_that_keep_their_statistics_reduce_none():
    model = FCN8s(num_classes=CLASSES, backbone=RESNET.clone(freeze_bn=True))
    variables, sizes = communication(model, config())
    params = variables["params"]
    assert sizes == {"all-reduce": 4 * (numbers(params) + rounded_up(params)) + SCALARS}


def test_what_is_frozen_is_not_reduced():
    optim = OptimConfig(learning_rate=0.1, frozen=("backbone",))
    variables, sizes = communication(FCN8s(num_classes=CLASSES, backbone=VGG_TINY), config(optim=optim))
    trained = {name: x for name, x in variables["params"].items() if name != "backbone"}
    assert sizes == {"all-reduce": 4 * numbers(trained) + SCALARS}


@pytest.mark.slow
def test_the_dilated_net_and_its_auxiliary_scores_reduce_no_more():
    backbone = ResNet(depths=(1, 1, 1, 1), width=4, output_stride=8)
    variables, sizes = communication(DilatedFCN(num_classes=CLASSES, backbone=backbone), config())
    params, channels = numbers(variables["params"]), numbers(variables["batch_stats"]) // 2
    assert list(sizes) == ["all-reduce"]
    assert 4 * params < sizes["all-reduce"] <= 4 * (params + 4 * channels) + SCALARS


@pytest.mark.slow
def test_accumulation_moves_no_images_either():
    """XLA's CPU backend reduces each part's gradient; those for GPUs and TPUs reduce their sum."""
    variables, sizes = communication(FCN8s(num_classes=CLASSES, backbone=VGG_TINY), config(accumulate=2))
    once = 4 * numbers(variables["params"]) + SCALARS
    assert list(sizes) == ["all-reduce"]
    assert once <= sizes["all-reduce"] <= 2 * once


@pytest.mark.parametrize("backbone", [RESNET, VGG_TINY], ids=["resnet", "vgg"])
def test_evaluation_reduces_two_numbers(backbone):
    model = FCN8s(num_classes=CLASSES, backbone=backbone)
    everywhere, split = shardings(DEVICES)
    variables = jax.eval_shape(functools.partial(init_state, model, config())).variables
    forward = make_forward(model, InputConfig())
    program = forward.lower(shaped(variables, everywhere), shaped(images(), split)).compile()
    found = list(step_program.collectives(program.as_text()))
    assert {kind for kind, _, _ in found} == {"all-reduce"}
    assert sum(size * times for _, size, times in found) == SCALARS


@functools.cache
def step_on(devices: int):
    """The variables before a step over so many devices, and the state after it."""
    unchanged = AugmentConfig(crop=SIDE, scale=(1.0, 1.0), flip=False)
    settings = config(augment=unchanged, optim=OptimConfig(learning_rate=0.1, weight_decay=0.0))
    model = FCN8s(num_classes=CLASSES, backbone=RESNET)
    everywhere, split = shardings(devices)
    state = jax.jit(functools.partial(init_state, model, settings), out_shardings=everywhere)()
    # Scores and the last scale of a block start at zero, which would hide the gradient of all that lies before them.
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda x: x + rng.normal(0, 0.1, x.shape).astype(np.float32), state.variables)
    step = jax.jit(functools.partial(train_step, model=model, config=settings))
    after, _ = step(state.replace(variables=variables), jax.device_put(images(augment=unchanged), split))
    return variables, after


def test_eight_devices_have_the_gradient_and_the_statistics_of_one():
    (_, one), (_, eight) = step_on(1), step_on(8)
    # After one step without decay the momentum is the gradient.
    for name in ("opt_state", "variables"):
        pairs = zip(jax.tree.leaves(getattr(one, name)), jax.tree.leaves(getattr(eight, name)), strict=True)
        for expected, got in pairs:
            largest = np.abs(expected).max()
            assert largest > 1e-5
            np.testing.assert_allclose(got, expected, atol=1e-4 * largest, rtol=0)


def test_batch_norm_sees_the_global_batch():
    """The running statistics of the first norm, from the definition, in float64."""
    before, after = step_on(8)
    pixels = np.asarray(normalise(jnp.asarray(images().image), InputConfig()), np.float64)
    kernel = np.asarray(before["params"]["backbone"]["conv1"]["kernel"], np.float64)
    padded = np.pad(pixels, ((0, 0), (3, 3), (3, 3), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], axis=(1, 2))[:, ::2, ::2]
    values = np.einsum("nijchw,hwco->nijo", windows, kernel)
    start, running = (variables["batch_stats"]["backbone"]["bn1"] for variables in (before, after.variables))
    mean, variance = values.mean(axis=(0, 1, 2)), values.var(axis=(0, 1, 2))
    np.testing.assert_allclose(running["mean"], 0.9 * start["mean"] + 0.1 * mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(running["var"], 0.9 * start["var"] + 0.1 * variance, rtol=1e-4)
    # Within the two images of a device it is another one.
    apart = values.reshape(8, -1, values.shape[-1]).var(axis=1).mean(axis=0)
    assert np.abs(apart / variance - 1).max() > 0.2


# Several hosts.


@pytest.mark.slow
def test_two_hosts_train_what_one_does(tmp_path, monkeypatch):
    """Each decodes its half of a batch and scores its half of val; the losses are those of one with eight devices."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 3)):
        for index in range(count):
            for kind, shape in (("images", (30, 30 + index, 3)), ("labels", (30, 30 + index))):
                values = rng.integers(0, 256 if kind == "images" else CLASSES, shape, np.uint8)
                file = tmp_path / "data" / kind / split / f"{index}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(file)
    (tmp_path / "data" / "classes.txt").write_text("sky\nsea\nsand\n")
    flags = ["--data.name", "folder", "--data.dir", str(tmp_path / "data"), "--data.cache", str(tmp_path / "cache")]
    flags += ["--augment.crop", "32", "--steps", "3", "--batch-size", "8", "--log-every", "1"]
    monkeypatch.setattr(setup, "build", lambda model, classes: FCN8s(num_classes=classes, backbone=RESNET))
    cli.main(["train", "fcn8s", *flags, "--run-dir", str(tmp_path / "one")])

    code = """
        import sys
        import jax
        jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]), initialization_timeout=100)
        assert (jax.process_count(), jax.local_device_count(), jax.device_count()) == (2, 4, 8)

        from fcn_jax import cli
        from fcn_jax.models.backbones.resnet import ResNet
        from fcn_jax.models.fcn import FCN8s
        from fcn_jax.training import setup

        backbone = ResNet(depths=(1, 1, 1, 1), width=8)
        setup.build = lambda model, classes: FCN8s(num_classes=classes, backbone=backbone)
        cli.main(sys.argv[3:])
        """
    address = free_address()
    monkeypatch.setenv("XLA_FLAGS", f"--xla_force_host_platform_device_count=4 {FAST_COMPILE}")
    command = ["train", "fcn8s", *flags, "--run-dir", str(tmp_path / "two")]
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), address, host, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for host in "01"
    ]
    both_end_well(hosts, 200)
    one, two = (
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    )
    assert [(line["step"], line["split"]) for line in two] == [(1, "train"), (2, "train"), (3, "train"), (3, "val")]
    for expected, got in zip(one, two, strict=True):
        assert got["loss"] == pytest.approx(expected["loss"], rel=1e-3)
    assert sorted(int(file.name) for file in (tmp_path / "two" / "checkpoints").iterdir()) == [3]


# The reader of programs.


def test_collectives_of_a_program_with_loops_and_branches():
    hlo = """\
HloModule step, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%inner (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a = (f32[8,2]{1,0:T(8,128)S(1)}, bf16[3]{0}, /*index=2*/f32[]) all-reduce(%x, %y, %z), to_apply=%add
}

%outer (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %w = (s32[], f32[8]) while(%t), condition=%cond, body=%inner, backend_config={"known_trip_count":{"n":"5"}}
  %g = u8[4,2]{1,0} all-gather(%x), dimensions={0}
}

%cond (p: (s32[], f32[8])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

%branch (p: f32[8]) -> f32[8] {
  ROOT %c = f32[8]{0} collective-permute(%p), source_target_pairs={{0,1}}
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]) while(%t), condition=%cond, body=%outer
  %b = f32[8] conditional(%i, %x, %y), branch_computations={%branch, %other}
  %s = (f32[1]{0}, f32[8]{0}) all-gather-start(%q), dimensions={0}
  %d = f32[8]{0} all-gather-done(%s)
  ROOT %r = f32[8]{0} all-reduce(%d), to_apply=%add
}
"""
    assert sorted(step_program.collectives(hlo, trips=3)) == [
        ("all-gather", 8, 3),
        ("all-gather", 32, 1),
        ("all-reduce", 32, 1),
        ("all-reduce", 64 + 6 + 4, 15),
        ("collective-permute", 32, 1),
    ]


def test_collectives_are_found_where_sharding_needs_them():
    """A product over a split axis is an all-reduce, a split made whole an all-gather."""
    everywhere, split = shardings(DEVICES)
    x = jax.ShapeDtypeStruct((16, 4), jnp.float32, sharding=split)

    def found(function, out: NamedSharding):
        return list(step_program.collectives(jax.jit(function, out_shardings=out).lower(x).compile().as_text()))

    assert found(lambda x: x.T @ x, everywhere) == [("all-reduce", 64, 1)]
    assert found(lambda x: x + 1, everywhere) == [("all-gather", 256, 1)]
    assert found(lambda x: x + 1, split) == []
    assert found(lambda x: lax.fori_loop(0, 3, lambda _, y: y + (x.T @ (x + y)).sum(), jnp.zeros(())), everywhere) in (
        [("all-reduce", 4, 3)],
        [("all-reduce", 64, 3)],
    )


@pytest.mark.parametrize(
    ("name", "devices", "seconds"),
    [
        # 2 * 7/8 of it over NVLink, and seven links of half a microsecond there and back.
        ("H100 SXM", 8, 2 * 7 / 8 * 1e9 / 450e9 + 1e-6 * (4.4 + 14 * 0.52)),
        # An eighth of it each over the network as well.
        ("H100 SXM", 64, 1.75e9 / 450e9 + 1.75 * 0.125e9 / 50e9 + 1e-6 * (4.4 + 14 * 0.936 + 30)),
        # Two lines, as axes below 16 are not closed: 1 + 3 hops; and two rings: 8 + 8 hops.
        ("TPU v5e", 8, 2 * 7 / 8 * 1e9 / 100e9 + 8e-6),
        ("TPU v5e", 256, 2 * 255 / 256 * 1e9 / 200e9 + 32e-6),
        ("TPU v5p", 64, 2 * 63 / 64 * 1e9 / 600e9 + 12e-6),
    ],
)
def test_the_time_of_an_all_reduce(name, devices, seconds):
    assert extrapolation.ACCELERATORS[name].all_reduce(1e9, devices) == pytest.approx(seconds, rel=1e-9)
