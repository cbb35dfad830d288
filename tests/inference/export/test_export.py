"""Exported networks against the networks themselves, each image computed alone; and what is left after a failure."""

import dataclasses
import json
import os
import re
import stat
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from jax import export as jax_export
from PIL import Image
from random_network import draw_network_variables
from safetensors.numpy import load_file
from small_runs import PLAIN

from fcn_jax.config import CAFFE_INPUT, InputConfig
from fcn_jax.data.augment import normalise
from fcn_jax.data.labels import palette
from fcn_jax.data.tasks import Task
from fcn_jax.errors import ExportDiffers, InputError
from fcn_jax.inference.export import export as module
from fcn_jax.inference.export.export import export
from fcn_jax.inference.export.onnx_file import make_onnx
from fcn_jax.inference.export.program import make_program, make_scores
from fcn_jax.inference.export.stablehlo_file import make_stablehlo
from fcn_jax.inference.segment import make_unlabelled
from fcn_jax.inference.segmenter import Segmenter
from fcn_jax.models.backbones.alexnet import AlexNet
from fcn_jax.models.backbones.googlenet import GoogLeNet
from fcn_jax.models.backbones.resnet import Bottleneck, ResNet
from fcn_jax.models.backbones.vgg import VGG
from fcn_jax.models.dilated import DilatedFCN
from fcn_jax.models.fcn import FCN8s, FCN16s, FCN32s
from fcn_jax.runs.run_dir import open_run

# As on a machine without these packages: their import fails.
WITHOUT = "import sys\nsys.modules.update(dict.fromkeys({names!r}.split()))\n"
CLASSES = 4
ONE = (Task("", tuple("abcd"), palette(CLASSES)),)
TWO = (Task("what", tuple("abcd"), palette(CLASSES)), Task("how", tuple("xyz"), palette(3)))
SIZES = ((1, 1), (45, 77), (64, 96))
BGR = dataclasses.replace(CAFFE_INPUT, std=(57.0, 58.0, 59.0))
SMALL_VGG = VGG(depths=(1, 1, 1, 1, 1), fc_features=16)
NETWORKS = {
    "resnet": (FCN8s(CLASSES, ResNet(depths=(1, 1, 1, 1), width=8)), dataclasses.replace(InputConfig(), order="bgr")),
    "vgg": (FCN8s(CLASSES, SMALL_VGG, upsampling="fixed"), BGR),
    "vgg, reference": (FCN16s(CLASSES, SMALL_VGG.clone(padding="reference", fc_kernel=3)), BGR),
    "resnet50, stride 8": (
        FCN32s(CLASSES, ResNet(depths=(3, 4, 6, 3), block=Bottleneck, output_stride=8)),
        InputConfig(),
    ),
    "dilated head": (DilatedFCN(CLASSES, PLAIN), InputConfig()),
    "dilated": (
        DilatedFCN(CLASSES, ResNet(depths=(1, 1, 1, 1), width=8, block=Bottleneck, output_stride=8)),
        InputConfig(),
    ),
    "alexnet": (FCN32s(CLASSES, AlexNet(fc_features=64)), BGR),
    "googlenet": (FCN16s(CLASSES, GoogLeNet()), BGR),
    "vgg16": (FCN8s(CLASSES, VGG(fc_features=64)), BGR),
}


def photographs() -> list[np.ndarray]:
    return [np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8) for size in SIZES]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_programs_compute_what_the_network_gives_each_image_alone(name):
    model, input_config = NETWORKS[name]
    alone = jax.jit(model.apply)
    variables = draw_network_variables(model)
    largest = jnp.abs(alone(variables, normalise(jnp.asarray(photographs()[-1]), input_config))).max()
    params = variables["params"]
    params |= {x: jax.tree.map(lambda a: 10 * a / largest, params[x]) for x in params if x.startswith("score")}
    scores = make_scores(model, input_config)
    written = make_onnx(scores, variables, ONE, probabilities=True).SerializeToString()
    session = onnxruntime.InferenceSession(written)
    stablehlo = make_stablehlo(make_program(scores, variables, (CLASSES,), probabilities=True))
    program = jax_export.deserialize(bytearray(stablehlo))
    assert program.platforms == ("cpu", "cuda", "tpu")
    seen = set()
    for image in photographs():
        logits = alone(variables, normalise(jnp.asarray(image), input_config))
        expected, best = np.asarray(jax.nn.softmax(logits)), np.asarray(logits.argmax(-1))
        for class_map, probabilities in (session.run(None, {"image": image}), map(np.asarray, program.call(image))):
            assert (class_map.dtype, class_map.shape) == (np.uint8, best.shape)
            np.testing.assert_allclose(probabilities, expected, atol=1e-4)
            np.testing.assert_array_equal(class_map, best)
        seen |= set(best.ravel())
    assert len(seen) > 1
    # A batch is computed at once.
    pair = np.concatenate([photographs()[1], photographs()[1][:, ::-1, ::-1]])
    for index, image in enumerate(pair):
        (single, _), (both, _) = (session.run(None, {"image": images}) for images in (image[None], pair))
        np.testing.assert_array_equal(both[index], single[0])


@pytest.mark.slow
def test_programs_of_several_tasks_give_a_class_map_and_probabilities_for_each():
    model = FCN32s(7, PLAIN, tasks=(4, 3))
    variables, scores = draw_network_variables(model), make_scores(model, InputConfig())
    session = onnxruntime.InferenceSession(make_onnx(scores, variables, TWO, probabilities=True).SerializeToString())
    stablehlo = make_stablehlo(make_program(scores, variables, (4, 3), probabilities=True))
    program = jax_export.deserialize(bytearray(stablehlo))
    names = ["class_map", "class_map_how", "probabilities", "probabilities_how"]
    assert [(output.name, output.shape) for output in session.get_outputs()] == [
        *((name, ["batch", "height", "width"]) for name in names[:2]),
        *((name, ["batch", "height", "width", count]) for name, count in zip(names[2:], (4, 3), strict=True)),
    ]
    image = photographs()[1]
    logits = np.asarray(model.apply(variables, normalise(jnp.asarray(image), InputConfig())), np.float64)
    for given in (session.run(names, {"image": image}), list(map(np.asarray, program.call(image)))):
        for task, own in enumerate((logits[..., :4], logits[..., 4:])):
            assert (given[task].dtype, len(np.unique(given[task])) > 1) == (np.uint8, True)
            np.testing.assert_array_equal(given[task], own.argmax(-1))
            powers = np.exp(own - own.max(-1, keepdims=True))
            np.testing.assert_allclose(given[2 + task], powers / powers.sum(-1, keepdims=True), atol=1e-4)


def test_a_network_that_onnx_cannot_hold_is_refused():
    def scores(variables, canvas, size):
        return jax.lax.cumsum(canvas.astype(jnp.float32), axis=1)

    with pytest.raises(InputError, match=r"cannot be written as ONNX: it has the operation cumsum; export it without"):
        make_onnx(scores, {}, ONE, probabilities=False)


@pytest.fixture(scope="module")
def openvino():
    """OpenVINO without the package by which it reports its use to its maker whenever it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "openvino_telemetry", None)
        return pytest.importorskip("openvino", reason="OpenVINO is not here: pip install --no-deps openvino")


@pytest.mark.peers
@pytest.mark.parametrize("name", ["dilated head", pytest.param("resnet", marks=pytest.mark.slow)])
def test_openvino_computes_what_the_network_gives(openvino, tmp_path, name):
    model, input_config = NETWORKS[name]
    variables = draw_network_variables(model)
    file = tmp_path / "model.onnx"
    scores = make_scores(model, input_config)
    file.write_bytes(make_onnx(scores, variables, ONE, probabilities=True).SerializeToString())
    program = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    alone, seen = jax.jit(model.apply), set()
    for image in photographs():
        logits = np.asarray(alone(variables, normalise(jnp.asarray(image), input_config)))
        given = program({"image": image})
        np.testing.assert_allclose(given["probabilities"], np.asarray(jax.nn.softmax(logits)), atol=1e-4)
        np.testing.assert_array_equal(given["class_map"], logits.argmax(-1))
        seen |= set(logits.argmax(-1).ravel())
    assert len(seen) > 1


@pytest.fixture(scope="module")
def examples():
    generator = np.random.default_rng(3)
    sizes = ((40, 50), (70, 33))
    images = [
        make_unlabelled(f"photo{i}.png", generator.integers(0, 256, (*size, 3), np.uint8))
        for i, size in enumerate(sizes)
    ]
    return [image._replace(label=generator.integers(0, 3, image.label.shape, np.uint8)) for image in images]


@pytest.fixture(scope="module")
def exported(run_dir, tmp_path_factory, examples):
    """A network exported with probabilities: the folder, its parities and what was said."""
    said, out = [], tmp_path_factory.mktemp("exported") / "new" / "out"
    return out, export(open_run(run_dir), out, examples, probabilities=True, say=said.append), said


def test_a_folder_has_the_programs_the_weights_and_what_they_are(run_dir, exported, examples):
    out, parities, said = exported
    assert sorted(file.name for file in out.iterdir()) == [
        "README.md", "model.onnx", "model.safetensors", "model.stablehlo", "parity.json"
    ]  # fmt: skip
    assert stat.S_IMODE(out.stat().st_mode) == 0o755
    assert os.listdir(out.parent) == ["out"]
    image = examples[0].image
    class_map = Segmenter.from_run(run_dir)(image)
    session = onnxruntime.InferenceSession(out / "model.onnx")
    assert [x.name for x in session.get_outputs()] == ["class_map", "probabilities"]
    assert session.get_modelmeta().custom_metadata_map["class_names"] == "sky\nsea\nsand"
    np.testing.assert_array_equal(session.run(["class_map"], {"image": image[None]})[0][0], class_map)
    program = jax_export.deserialize(bytearray((out / "model.stablehlo").read_bytes()))
    np.testing.assert_array_equal(np.asarray(program.call(image[None])[0])[0], class_map)
    assert load_file(out / "model.safetensors")["params/score_fr/kernel"].shape[-1] == 3
    stored = json.loads((out / "parity.json").read_text())
    assert stored["step"] == 1
    for name in ("model.onnx", "model.stablehlo"):
        (parity,) = parities[name]
        assert (parity.images, parity.pixels) == (4, 40 * 50 + 70 * 33 + 1 + 40 * 41)
        assert parity.mean_iu == pytest.approx(parity.mean_iu_of_network, abs=1e-6)
        assert stored[name]["mean_iu"] == parity.mean_iu
        assert 0 <= stored[name]["largest_probability_difference"] == parity.largest_probability_difference < 1e-5
    assert parities["model.onnx"][0].largest_difference < 1e-5
    assert len(said) == 3
    card = (out / "README.md").read_text()
    assert "| 1 | sea | `#" in card
    assert "float32[batch, height, width, 3]" in card


def test_products_are_computed_in_full_precision(exported):
    """On accelerators, which round the factors of products if they are not told otherwise."""
    out, _, _ = exported
    program = jax_export.deserialize(bytearray((out / "model.stablehlo").read_bytes()))
    lines = program.mlir_module().splitlines()
    products = [line for line in lines if "stablehlo.convolution" in line or "stablehlo.dot" in line]
    assert len(products) > 20
    assert all("HIGHEST" in line for line in products)


def test_the_examples_of_the_card_run_without_this_package(run_dir, exported):
    out, _, _ = exported
    image = np.random.default_rng(5).integers(0, 256, (45, 60, 3), np.uint8)
    Image.fromarray(image).save(out / "photo.jpg", quality=100, subsampling=0)
    with Image.open(out / "photo.jpg") as photo:
        class_map = Segmenter.from_run(run_dir)(np.asarray(photo))
    codes = re.findall(r"`(model\.\w+)`:\n\n```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    printed = {}
    for name, code in codes:
        missing = "fcn_jax flax" if name == "model.stablehlo" else "fcn_jax flax jax"
        program = WITHOUT.format(names=missing) + code
        process = subprocess.run([sys.executable, "-c", program], cwd=out, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        printed[name] = process.stdout.splitlines()
    shares = [(index, (class_map == index).mean()) for index in np.unique(class_map)]
    assert len(shares) > 1
    assert list(printed) == ["model.onnx", "model.stablehlo", "model.safetensors"]
    assert printed["model.onnx"] == [f"{('sky', 'sea', 'sand')[index]} {share}" for index, share in shares]
    assert printed["model.stablehlo"] == [f"{index} {share}" for index, share in shares]
    assert any(line.startswith("params/score_fr/kernel (") for line in printed["model.safetensors"])


def test_a_program_that_differs_fails_and_nothing_is_left(run_dir, tmp_path, examples, monkeypatch):
    def make_other(scores, variables, counts, probabilities):
        return make_program(scores, jax.tree.map(lambda x: 1.1 * x, variables), counts, probabilities)

    monkeypatch.setattr(module, "make_program", make_other)
    with pytest.raises(ExportDiffers, match=r"model.stablehlo computes something else .* nothing is written"):
        export(open_run(run_dir), tmp_path / "out", examples, formats=["stablehlo"])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_formats_and_steps_are_chosen(run_dir, tmp_path, examples):
    parities = export(open_run(run_dir), tmp_path / "out", examples[:1], step=2, formats=["stablehlo"])
    assert list(parities) == ["model.stablehlo"]
    assert not (tmp_path / "out" / "model.onnx").exists()
    assert "model.onnx" not in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["step"] == 2


def test_a_folder_in_use_and_no_image_are_refused(run_dir, tmp_path, examples):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(InputError, match="is there already; give a new folder"):
        export(open_run(run_dir), tmp_path / "out", examples)
    with pytest.raises(InputError, match="no image to compare"):
        export(open_run(run_dir), tmp_path / "new", [])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        export(open_run(run_dir), tmp_path / "file" / "out", examples)
    assert sorted(os.listdir(tmp_path)) == ["file", "out"]


def test_a_missing_package_is_named(run_dir, tmp_path, examples, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"ONNX needs the package onnxruntime: pip install 'fcn-jax\[export\]'"):
        export(open_run(run_dir), tmp_path / "out", examples)
    assert not list(tmp_path.iterdir())
