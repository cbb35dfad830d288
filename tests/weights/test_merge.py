"""Weights: our own files against the definition of their format, and a file into a network, array by array."""

import dataclasses
import functools
import hashlib
import http.server
import json
import re
import struct
import threading
from pathlib import Path

import caffe_peer
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from fcn_jax.config import CAFFE_INPUT, InputConfig
from fcn_jax.errors import InputError
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.fcn import FCN8s, FCN16s, FCN32s
from fcn_jax.runtime import download as download_module
from fcn_jax.weights import imagenet, ours
from fcn_jax.weights.merge import describe_weights, match_weights, name_classes
from fcn_jax.weights.read import read_weights
from fcn_jax.weights.weights import Weights

NAMES = ("sky", "sea", "sand")
SMALL = Weights(
    {
        "params/score_fr/bias": np.array([1.5, -2.0], np.float32),
        "params/backbone/conv1/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "params/a scalar/é": np.array(7.0, np.float32),
    },
    (),
    CAFFE_INPUT,
    "x.caffemodel (Caffe)",
    ("ground", "thing"),
)


def assert_same(left: Weights, right: Weights) -> None:
    assert left.arrays.keys() == right.arrays.keys()
    for path, array in left.arrays.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, right.arrays[path], strict=True)


# Our own files.


@pytest.mark.parametrize("weights", [SMALL, SMALL._replace(input=None, class_names=None)], ids=["told", "not told"])
def test_what_is_written_is_read(tmp_path, weights):
    file = tmp_path / "any.name"
    ours.write(file, weights)
    back = read_weights(file)
    assert_same(back, weights)
    assert back.input == weights.input
    assert back.class_names == weights.class_names
    assert back.unknown == ()
    assert back.origin == "any.name (fcn_jax, from x.caffemodel (Caffe))"
    assert [path.name for path in tmp_path.iterdir()] == ["any.name"]


def test_the_file_is_safetensors_by_its_definition(tmp_path):
    # github.com/huggingface/safetensors, README: u64 length, JSON header, data without holes.
    ours.write(tmp_path / "w.safetensors", SMALL)
    data = (tmp_path / "w.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert (8 + length) % 8 == 0
    assert all(isinstance(value, str) for value in header.pop("__metadata__").values())
    covered = []
    for path, entry in header.items():
        first, end = entry["data_offsets"]
        array = np.frombuffer(data[8 + length + first : 8 + length + end], "<f4").reshape(entry["shape"])
        np.testing.assert_array_equal(array, SMALL.arrays[path], strict=True)
        assert entry["dtype"] == "F32"
        covered.append((first, end))
    assert header.keys() == SMALL.arrays.keys()
    ends = [0, *(end for _, end in sorted(covered))]
    assert [first for first, _ in sorted(covered)] == ends[:-1]
    assert 8 + length + ends[-1] == len(data)


def test_a_file_cut_short_is_refused_wherever_it_is_cut(tmp_path):
    ours.write(tmp_path / "whole", SMALL)
    data = (tmp_path / "whole").read_bytes()
    for length in (*range(80, len(data), 7), len(data) - 1):
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(InputError, match=r"cut is damaged or cut short \(.*\); download or save it again"):
            read_weights(tmp_path / "cut")
    (tmp_path / "cut").write_bytes(data + b"\0")
    with pytest.raises(InputError, match=r"cut is damaged or cut short \(.*its tensors need \d+ bytes, it has \d+\)"):
        read_weights(tmp_path / "cut")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"F32"', b'"F64"'),
        (b'"shape": [2]', b'"shape": [3]'),
        (b'"data_offsets": [0', b'"data_offsets": [4'),
        (b"order", b"ordnr"),
        (b"[104.00699", b"{104.00699"),
        (b'"class_names"', b'"klass_names"'),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(tmp_path, old, new):
    ours.write(tmp_path / "w", SMALL)
    data = (tmp_path / "w").read_bytes()
    assert old in data
    (tmp_path / "w").write_bytes(data.replace(old, new))
    with pytest.raises(InputError, match=r"w is damaged|has \['ordnr'\], which InputConfig of this version"):
        read_weights(tmp_path / "w")


def test_what_is_no_file_of_weights_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"weights .*nothing cannot be read \(No such file.*\); give a file of w"):
        read_weights(tmp_path / "nothing")
    for content, what in ((b"", "is empty"), (b"<!DOCTYPE html><html>", "is text"), (b"GIF89a" + bytes(30), "format")):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(InputError, match=rf"other .*{what}.*; weights come as"):
            read_weights(tmp_path / "other")


@pytest.mark.parametrize("v1", [True, False])
@pytest.mark.parametrize("net", ["", "a net"])
def test_a_caffemodel_is_known_by_its_first_field(tmp_path, v1, net):
    blobs = {"conv1_1": [np.arange(4 * 3 * 9, dtype=np.float32).reshape(4, 3, 3, 3), np.ones(4, np.float32)]}
    (tmp_path / "w.pth").write_bytes(caffe_peer.caffemodel(None, blobs, net, v1=v1))
    weights = read_weights(tmp_path / "w.pth")
    assert set(weights.arrays) == {"params/backbone/conv1_1/kernel", "params/backbone/conv1_1/bias"}
    assert weights.input == CAFFE_INPUT
    assert "Caffe" in weights.origin


def test_a_keras_file_is_known_by_its_beginning(tmp_path):
    with h5py.File(tmp_path / "w.caffemodel", "w") as file:
        group = file.create_group("layers/conv2d/vars")
        group.attrs["name"] = "block1_conv1"
        group["0"], group["1"] = np.ones((3, 3, 3, 4), np.float32), np.ones(4, np.float32)
    weights = read_weights(tmp_path / "w.caffemodel")
    assert set(weights.arrays) == {"params/backbone/conv1_1/kernel", "params/backbone/conv1_1/bias"}
    assert "Keras" in weights.origin


def test_a_pytorch_file_is_known_by_its_beginning_and_as_good_once_converted(tmp_path):
    torch = pytest.importorskip("torch")
    state = {"layer1.0.conv1.weight": torch.arange(8 * 3 * 9.0).reshape(8, 3, 3, 3), "fc.weight": torch.ones(2, 3)}
    torch.save(state, tmp_path / "w.h5")
    weights = read_weights(tmp_path / "w.h5")
    assert list(weights.arrays) == ["params/backbone/layer1_0/conv1/kernel"]
    assert weights.unknown == ("fc.weight",)
    ours.write(tmp_path / "w.pth", weights)
    back = read_weights(tmp_path / "w.pth")
    assert_same(back, weights)
    assert back.input == weights.input == InputConfig()
    assert "PyTorch" in back.origin


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match=r"w cannot be written \(No such file or directory\); make room, or give"):
        ours.write(tmp_path / "no" / "w", SMALL)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"folder cannot be written"):
        ours.write(tmp_path / "folder", SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


# Into a network.


@functools.cache
def variables(kind=FCN16s, classes: int = 3, width: int = 8, seed: int = 0) -> dict:
    """Of a small network, every array with values of its own."""
    model = kind(num_classes=classes, backbone=ResNet(depths=(1, 1, 1, 1), width=width))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.asarray(generator.normal(size=s.shape), jnp.float32), shapes)


def file_of(tree: dict, **changes) -> Weights:
    arrays = {path: np.asarray(array) for path, array in traverse_util.flatten_dict(tree, sep="/").items()}
    return Weights(arrays, (), InputConfig(), "w", NAMES)._replace(**changes)


def flat(tree: dict) -> dict[str, np.ndarray]:
    return {path: np.asarray(array) for path, array in traverse_util.flatten_dict(tree, sep="/").items()}


def without(weights: Weights, *parts: str) -> Weights:
    kept = {path: x for path, x in weights.arrays.items() if not any(part in path for part in parts)}
    assert len(kept) < len(weights.arrays)
    return weights._replace(arrays=kept)


def test_the_same_network_is_loaded_whole():
    result = match_weights(variables(), file_of(variables(seed=1)), NAMES)
    loaded, expected = flat(result.merge_into(variables())), flat(variables(seed=1))
    assert set(result.loaded) == set(expected) == set(loaded)
    assert (result.by_class, result.new, result.unused) == ((), (), ())
    for path, array in expected.items():
        np.testing.assert_array_equal(loaded[path], array)
    assert any(path.startswith("batch_stats/backbone/bn1") for path in loaded)


@pytest.mark.parametrize("shapes_alone", [True, False])
def test_every_array_is_accounted_for_when_a_finer_net_starts_from_a_coarser_one(shapes_alone):
    fine = variables(FCN8s)
    coarse = file_of(variables(FCN16s, seed=1), unknown=("fc.weight", "fc.bias"))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), fine) if shapes_alone else fine
    result = match_weights(shapes, coarse, NAMES)
    assert {path.split("/")[1] for path in result.new} == {"score_pool3", "upscore_pool4", "upscore8"}
    assert [path.split("/")[1] for path in result.unused] == ["upscore16"]
    merged = flat(result.merge_into(fine))
    for path, array in flat(fine).items():
        np.testing.assert_array_equal(merged[path], array if path in result.new else coarse.arrays[path], err_msg=path)
    table = str(result).splitlines()
    assert table[0] == "weights of w:"
    assert re.fullmatch(rf"  loaded +{len(result.loaded)}  backbone \d+, score_fr 2, score_pool4 2, upscore2", table[1])
    assert table[2:] == [
        "  new          4  score_pool3 2, upscore8, upscore_pool4",
        "  unused       3  upscore16, fc.weight, fc.bias",
    ]


def test_a_classifiers_backbone_starts_a_net_and_its_head_is_left_over():
    backbone = without(file_of(variables(seed=1), class_names=None, unknown=("fc.weight",)), "score")
    result = match_weights(variables(), backbone, NAMES)
    assert {path.split("/")[1] for path in result.new} == {"score_fr", "score_pool4", "upscore2", "upscore16"}
    assert set(result.loaded) == set(backbone.arrays)


LEFT_OVER = (
    "fc.weight", "module.fc.bias", "classifier.6.weight", "head.fc.weight", "aux1.fc1.weight", "aux_classifier.4.bias",
    "fc8", "fc8_voc", "prob", "loss3/classifier", "loss1/conv", "dsn1", "fuse", "predictions",
)  # fmt: skip


def test_heads_of_classifiers_losses_and_side_outputs_may_be_left_over():
    match_weights(variables(), file_of(variables(seed=1), unknown=LEFT_OVER), NAMES)


@pytest.mark.parametrize(
    "name", ["layer1.0.se.fc1.weight", "layer1.0.se.fc.weight", "bn_conv1", "scale_conv1", "losses.x"]
)
def test_what_is_not_known_may_matter_and_is_refused_unless_it_is_allowed(name):
    file = file_of(variables(seed=1), unknown=("fc.weight", name))
    with pytest.raises(InputError, match=rf"network:\n  {re.escape(name)} of the file is nothing that is known here\n"):
        match_weights(variables(), file, NAMES)
    match_weights(variables(), file, NAMES, (name[:6],))


def test_a_backbone_must_come_whole_unless_it_is_allowed_to_differ():
    file = without(file_of(variables(seed=1)), "bn1/var", "layer4_0/conv1")
    file.arrays["params/backbone/conv1/kernel"] = np.zeros((3, 3, 3, 8), np.float32)
    file.arrays["params/backbone/extra/kernel"] = np.zeros(1, np.float32)
    with pytest.raises(InputError) as refused:
        match_weights(variables(), file, NAMES)
    lines = str(refused.value).splitlines()
    assert lines[0] == "w does not fit the network:"
    assert "  batch_stats/backbone/bn1/var is not in the file" in lines
    assert "  params/backbone/layer4_0/conv1/kernel is not in the file" in lines
    assert "  params/backbone/conv1/kernel is (3, 3, 3, 8) in the file and (7, 7, 3, 8) in the network" in lines
    assert "  params/backbone/extra/kernel is not in the network" in lines
    assert len(lines) <= 2 + 12 + 2
    assert "--model.backbone" in lines[-1]
    assert "--model.allow backbone/fc6" in lines[-1]
    # One beginning for each thing, or it is refused still.
    allow = ("backbone/bn1", "backbone/layer4_0", "backbone/conv1", "backbone/extra", "backbone/layer")
    result = match_weights(variables(), file, NAMES, allow)
    assert {"batch_stats/backbone/bn1/var", "params/backbone/conv1/kernel"} <= set(result.new)
    assert result.unused == ("params/backbone/extra/kernel",)
    with pytest.raises(InputError, match=r"network:\n  params/backbone/extra/kernel is not in the network\ngive"):
        match_weights(variables(), file, NAMES, (*allow[:3], "backbone/layer"))


def test_many_problems_are_counted():
    with pytest.raises(InputError, match=r"\n  and \d+ more\n") as refused:
        match_weights(variables(), file_of(variables(width=4, seed=1)), NAMES)
    assert len(str(refused.value).splitlines()) == 1 + 12 + 1 + 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value):
    file = file_of(variables(seed=1))
    broken = file.arrays["params/score_fr/kernel"].copy()
    broken[0, 0, 3, 1] = value
    file.arrays["params/score_fr/kernel"] = broken
    with pytest.raises(InputError, match=r"params/score_fr/kernel holds values in the file that are not finite"):
        match_weights(variables(), file, NAMES)


@pytest.mark.parametrize("new", ["sea road sky tree", "sand sky", "sky sand sea", "a b c"])
def test_other_classes_are_taken_by_name(new):
    """A loop over pairs of classes; the kernels are random, so a swap of their axes would be seen."""
    new = tuple(new.split())
    start, file = variables(classes=len(new)), file_of(variables(seed=1))
    result = match_weights(start, file, new)
    merged = flat(result.merge_into(start))
    assert {path.split("/")[1] for path in result.by_class} == {"score_fr", "score_pool4", "upscore2", "upscore16"}
    for path in result.by_class:
        expected, theirs = flat(start)[path].copy(), file.arrays[path]
        for i, name in enumerate(new):
            if "upscore" not in path and name in NAMES:
                expected[..., i] = theirs[..., NAMES.index(name)]
            for j, other in enumerate(new):
                if "upscore" in path and name in NAMES and other in NAMES:
                    expected[..., i, j] = theirs[..., NAMES.index(name), NAMES.index(other)]
        np.testing.assert_array_equal(merged[path], expected, err_msg=path)
    for path in set(merged) - set(result.by_class):
        np.testing.assert_array_equal(merged[path], file.arrays[path])
    known = ", ".join(name for name in new if name in NAMES) or "none"
    assert f"(known from before: {known}; the others start at zero)" in str(result)


def test_classes_without_names_are_taken_if_there_are_as_many_and_start_anew_if_not():
    file = file_of(variables(seed=1), class_names=None)
    assert set(match_weights(variables(), file, ("x", "y", "z")).loaded) == set(file.arrays)
    result = match_weights(variables(classes=4), file, ("w", "x", "y", "z"))
    assert {path.split("/")[1] for path in result.new} == {"score_fr", "score_pool4", "upscore2", "upscore16"}
    assert result.by_class == ()


def test_names_may_be_given_to_scores():
    file = file_of(variables(FCN32s), class_names=None)
    assert name_classes(file, NAMES).class_names == NAMES
    with pytest.raises(InputError, match=r"params/score_fr/bias of w has 3 classes, and 2 names are given; give"):
        name_classes(file, NAMES[:2])


def test_a_description_says_what_there_is():
    text = describe_weights(file_of(variables(FCN32s), unknown=("fc8", "prob")))
    assert re.search(r"\d+ arrays, [\d,]+ numbers: backbone \d+, score_fr 2, upscore", text)
    assert "order='rgb', mean=(123.675" in text
    assert "classes: sky, sea, sand" in text
    assert "not used: fc8, prob" in text
    assert "not told by the file" in describe_weights(SMALL._replace(input=None))


# The official ones.


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Serves one file, whose name tells the beginning of its checksum; counts what it is asked for."""
    ours.write(tmp_path / "served", SMALL)
    data = (tmp_path / "served").read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["Range"]))
            start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start : start + 300] if len(asked) == 1 else data[start:])

        def log_message(self, *args):
            pass

    asked: list[tuple[str, str | None]] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download_module, "PAUSES", (0, 0))
    monkeypatch.setattr(imagenet, "SERVER", f"http://127.0.0.1:{server.server_port}")
    digits = hashlib.sha256(data).hexdigest()[:8]
    monkeypatch.setitem(imagenet.FILES, "resnet18", f"resnet18-{digits}.pth")
    yield asked, digits
    server.shutdown()
    server.server_close()
    thread.join()


def test_official_weights_are_fetched_once_and_gone_on_with_after_a_break(server, tmp_path):
    asked, digits = server
    file = imagenet.fetch_weights("resnet18", tmp_path / "cache")
    assert file == tmp_path / "cache" / "weights" / f"resnet18-{digits}.pth"
    assert asked == [(f"/resnet18-{digits}.pth", None), (f"/resnet18-{digits}.pth", "bytes=300-")]
    assert_same(read_weights(file), SMALL)
    assert imagenet.fetch_weights("resnet18", tmp_path / "cache") == file
    assert len(asked) == 2


def test_official_weights_that_are_not_what_their_name_says_are_refused(server, tmp_path, monkeypatch):
    monkeypatch.setitem(imagenet.FILES, "resnet18", "resnet18-00000000.pth")
    with pytest.raises(InputError, match=r"the SHA-256 [0-9a-f]{64}; the rule is 00000000: it was damaged on the way"):
        imagenet.fetch_weights("resnet18", tmp_path / "cache")
    assert not list((tmp_path / "cache" / "weights").glob("*.pth"))


def test_without_a_network_it_is_said_which_file_goes_where(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "SERVER", "http://host.invalid/models")
    place = tmp_path / "weights" / "resnet34-b627a593.pth"
    expected = f"fetch http://host.invalid/models/resnet34-b627a593.pth by other means and save it as {place}"
    with pytest.raises(InputError, match=re.escape(expected)):
        imagenet.fetch_weights("resnet34", tmp_path)
    place.write_bytes(b"placed by hand")
    with pytest.raises(
        InputError, match=rf"{place} has the SHA-256 [0-9a-f]{{64}}, .* begins with b627a593; delete it"
    ):
        imagenet.fetch_weights("resnet34", tmp_path)
    digits = hashlib.sha256(b"placed by hand").hexdigest()[:8]
    monkeypatch.setitem(imagenet.FILES, "resnet34", f"resnet34-{digits}.pth")
    place = place.rename(place.with_name(f"resnet34-{digits}.pth"))
    assert imagenet.fetch_weights("resnet34", tmp_path) == place


def test_backbones_without_official_weights(tmp_path):
    with pytest.raises(InputError, match=r"no official ImageNet weights for alexnet here, but for vgg16, .*; give a"):
        imagenet.fetch_weights("alexnet", tmp_path)


def test_weights_are_as_their_docstring_says():
    fields = dataclasses.make_dataclass("Fields", Weights._fields)
    assert all(f"        {name}: " in Weights.__doc__ for name in fields.__annotations__)
    assert Path(imagenet.FILES["resnet50"]).suffix == ".pth"
