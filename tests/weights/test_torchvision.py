"""Files of PyTorch weights: what is read of them, and that damaged and malicious ones end in a clear error."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax.config import InputConfig
from fcn_jax.errors import InputError
from fcn_jax.models.dilated import DilatedFCN
from fcn_jax.weights.torch_file import LEGACY_START, _Unpickler, read_tensors
from fcn_jax.weights.torchvision import read

torch = pytest.importorskip("torch")


def save_safetensors(tensors: dict, file: Path, metadata: bool = True) -> None:
    """Written after the format's description: length of the header, header, numbers."""
    names = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    names |= {torch.int64: "I64", torch.uint8: "U8", torch.bool: "BOOL"}
    header, body = {"__metadata__": {"format": "pt"}} if metadata else {}, b""
    for name, tensor in tensors.items():
        data = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        body += data
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + body)


SAVE = {
    "zip": torch.save,
    "legacy": lambda content, file: torch.save(content, file, _use_new_zipfile_serialization=False),
    "safetensors": save_safetensors,
}


def tensors_of_all_types() -> dict:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn((3, 2, 5), generator=generator)
    floats = {str(t): numbers.to(t) for t in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}
    return {**floats, "int64": (numbers * 1e12).long(), "uint8": numbers.byte(), "bool": numbers > 0}


@pytest.mark.parametrize("kind", SAVE)
def test_every_type_and_shape_is_read(tmp_path, kind):
    tensors = tensors_of_all_types() | {"scalar": torch.tensor(7), "none": torch.zeros((0, 4))}
    SAVE[kind](tensors, tmp_path / "x")
    got = read_tensors(tmp_path / "x")
    assert list(got) == list(tensors)
    for name, tensor in tensors.items():
        assert got[name].shape == tuple(tensor.shape)
        assert got[name].dtype == jnp.dtype(str(tensor.dtype).removeprefix("torch."))
        np.testing.assert_array_equal(got[name].astype(np.float64), tensor.double().numpy())


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_views_are_read_as_they_lie(tmp_path, kind):
    """Transposed, cut out, sharing a storage, and as parameters."""
    base = torch.arange(24.0).reshape(4, 6)
    tensors = OrderedDict(
        a=base.T, b=base[1:3, 2:5], c=base, d=torch.nn.Parameter(base[::2]), e=base[:1].expand(3, 6), f=base.T[2]
    )
    SAVE[kind](tensors, tmp_path / "x")
    got = read_tensors(tmp_path / "x")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(got[name], tensor.detach().numpy())


class OldTensor:
    """A tensor as torch 0.1 to 0.3 pickled it: parameters by their class, with a state to set."""

    def __init__(self, key: str, *view: object):
        self.key, self.view = key, view

    def __reduce__(self):
        tensor = Call(torch._utils._rebuild_tensor, (Stored(self.key), *self.view))
        return torch.nn.Parameter, (tensor,), (True, False, OrderedDict())


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: object, arguments: tuple):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Stored:
    """Pickles as a reference to four numbers of float32."""

    def __init__(self, key: str):
        self.key = key


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        return ("storage", torch.FloatStorage, obj.key, "cpu", 4) if isinstance(obj, Stored) else None


def write_zip(file: Path, content: object, **entries: bytes) -> None:
    """A file of torch.save with the given object pickled in it."""
    with zipfile.ZipFile(file, "w") as archive:
        with archive.open("x/data.pkl", "w") as stream:
            Pickler(stream, protocol=2).dump(content)
        archive.writestr("x/data/0", np.arange(4, dtype=np.float32).tobytes())
        for name, data in entries.items():
            archive.writestr(f"x/{name}", data)


def write_legacy(file: Path, content: object, little_endian: bool = True) -> None:
    with file.open("wb") as stream:
        for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": little_endian}, content, ["0"]):
            Pickler(stream, protocol=2).dump(value)
        stream.write(struct.pack("<q", 4) + np.arange(4, dtype=np.float32).tobytes())


WRITE = {"zip": write_zip, "legacy": write_legacy}


@pytest.mark.parametrize("write", WRITE.values(), ids=WRITE)
def test_parameters_of_the_first_versions_are_read(tmp_path, write):
    write(tmp_path / "x", {"weight": OldTensor("0", 1, (3,), (1,))})
    np.testing.assert_array_equal(read_tensors(tmp_path / "x")["weight"], [1, 2, 3])


def test_the_legacy_start_is_what_torch_writes(tmp_path):
    SAVE["legacy"]({}, tmp_path / "x")
    assert (tmp_path / "x").read_bytes().startswith(LEGACY_START)


# ------------------------------------------------------------------------------------------------ what is refused


class Malicious:
    """Writes a file when unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("write", WRITE.values(), ids=WRITE)
def test_code_in_a_pickle_does_not_run(tmp_path, write):
    proof = tmp_path / "was here"
    write(tmp_path / "x.pth", {"weight": OldTensor("0", 0, (4,), (1,)), "more": Malicious(proof)})
    message = r"x\.pth refers to posix\.system, which is no tensor and could run code when read.*state_dict\(\)"
    with pytest.raises(InputError, match=message):
        read_tensors(tmp_path / "x.pth")
    assert not proof.exists()
    # The pickle is not a dud: whoever trusts it runs it.
    pickle.loads(pickle.dumps(Malicious(tmp_path / "was_here")))
    assert (tmp_path / "was_here").exists()


@pytest.mark.parametrize(
    "name", ["builtins.eval", "builtins.getattr", "torch.load", "torch.FloatStorage.__init__", "copyreg._reconstructor"]
)
def test_no_other_name_is_given_out(tmp_path, name):
    module, _, attribute = name.partition(".")
    code = f"c{module}\n{attribute}\n.".encode()
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", code)
    with pytest.raises(InputError, match=f"refers to {name}, which"):
        read_tensors(tmp_path / "x.pth")


class Built:
    """An OrderedDict with attributes, by the pickle's BUILD: it looks like a storage."""

    def __reduce__(self):
        return OrderedDict, (), {"key": "0", "dtype": "O"}


class Rebuilt:
    """A tensor on anything."""

    def __init__(self, storage: object):
        self.storage = storage

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (self.storage, 0, (1, 1, 1, 1), (1, 1, 1, 1), False, OrderedDict())


class ObjectStorage:
    """A storage whose type of numbers is NumPy's of Python objects."""


class ObjectPickler(pickle.Pickler):
    def persistent_id(self, obj):
        return ("storage", "O", "0", "cpu", 1) if isinstance(obj, ObjectStorage) else None


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize(
    ("storage", "message"),
    [
        (ObjectStorage(), "a storage has the type 'O', which is none of numbers"),
        (Built(), "in a OrderedDict, which is"),
    ],
)
def test_numbers_are_never_taken_for_objects(tmp_path, kind, storage, message):
    """Where the file's bytes were addresses of objects, methods of these would run."""
    file, stream = tmp_path / "x.pth", io.BytesIO()
    ObjectPickler(stream, 2).dump({"conv1.weight": Rebuilt(storage)})
    address = struct.pack("<Q", id(None))
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", stream.getvalue())
            archive.writestr("archive/data/0", address)
    else:
        keys = ["0"] if isinstance(storage, ObjectStorage) else []
        system = pickle.dumps({"little_endian": True}, 2)
        parts = (LEGACY_START, pickle.dumps(1001, 2), system, stream.getvalue(), pickle.dumps(keys, 2))
        file.write_bytes(b"".join(parts) + struct.pack("<q", 1) + address)
    with pytest.raises(InputError, match=message):
        read_tensors(file)


def test_tensors_without_a_name_are_none(tmp_path):
    torch.save({0: torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(InputError, match="holds no tensors by name"):
        read_tensors(tmp_path / "x.pth")


@pytest.mark.parametrize("prefix", ["backbone.", "module."])
def test_two_tensors_for_one_place_are_refused(tmp_path, prefix):
    torch.save({f"{before}conv1.weight": torch.zeros(4, 3, 7, 7) for before in ("", prefix)}, tmp_path / "x.pth")
    message = f"two tensors for params/backbone/conv1/kernel, one of them {prefix}conv1.weight"
    with pytest.raises(InputError, match=message):
        read(tmp_path / "x.pth")


def test_what_a_pickle_changes_is_gone_with_it(tmp_path):
    """BUILD sets attributes of whatever a pickle can name."""
    code = b"ctorch._utils\n_rebuild_parameter\n}U\x07changedK\x01sb."
    first, second = (_Unpickler(io.BytesIO(code), tmp_path) for _ in range(2))
    first.load()
    rebuild = ("torch._utils", "_rebuild_parameter")
    assert first.known[rebuild].changed == 1
    assert not hasattr(second.known[rebuild], "changed")


def test_a_whole_network_is_refused(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"refers to torch\.nn\.modules\.container\.Sequential.*state_dict"):
        read(tmp_path / "net.pth")


@pytest.mark.parametrize("view", [(0, (5,), (1,)), (2, (3,), (1,)), (0, (2, 2), (4, 1)), (3, (2,), (-4,))])
@pytest.mark.parametrize("write", WRITE.values(), ids=WRITE)
def test_a_view_cannot_leave_its_storage(tmp_path, write, view):
    write(tmp_path / "x.pth", {"weight": OldTensor("0", *view)})
    with pytest.raises(InputError, match=r"x\.pth is damaged or cut short"):
        read_tensors(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, as a failed download leaves it; weights come as"),
        (b"<!DOCTYPE html>\n<html>Quota exceeded</html>" * 9, r"is text \('<!DOCTYPE html>'\), as a failed download"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", r"is text \('version https://git-lfs"),
        (b"\x89HDF\r\n\x1a\n" + bytes(300), r"is of a format that is not known \(it starts with b'\\x89HDF"),
        (pickle.dumps({"a": np.ones(3)}), "is of a format that is not known"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, content, message):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.pth " + message):
        read(tmp_path / "x.pth")


def test_missing_files_and_other_zip_files(tmp_path):
    for path in (tmp_path, tmp_path / "none.pth"):
        with pytest.raises(InputError, match="is not a file; give one of weights"):
            read(path)
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    with pytest.raises(InputError, match=r"is a zip file, but not one of torch\.save: it has no data\.pkl"):
        read(tmp_path / "x.npz")


def test_the_other_byte_order_is_refused(tmp_path):
    content = {"weight": OldTensor("0", 0, (4,), (1,))}
    write_zip(tmp_path / "zip", content, byteorder=b"big")
    write_legacy(tmp_path / "legacy", content, little_endian=False)
    for name in ("zip", "legacy"):
        with pytest.raises(InputError, match="must both be little-endian"):
            read_tensors(tmp_path / name)
    write_zip(tmp_path / "zip", content, byteorder=b"little")
    assert read_tensors(tmp_path / "zip")["weight"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"model": {"epoch": 3}}])
def test_files_without_tensors(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"holds no tensors by name, at the top or under state_dict, model"):
        read(tmp_path / "x.pth")


def test_a_dictionary_that_holds_itself_ends(tmp_path):
    content = {}
    content["model"] = content
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(InputError, match="holds no tensors"):
        read(tmp_path / "x.pth")


@pytest.mark.parametrize("kind", SAVE)
def test_cut_off_files(tmp_path, kind):
    file = tmp_path / "x.pth"
    SAVE[kind](tensors_of_all_types(), file)
    whole = file.read_bytes()
    for length in {*range(1, len(whole), 97), len(whole) - 1}:
        file.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"x\.pth (is damaged or cut short|is of a format|is text)"):
            read_tensors(file)


def test_changed_bits_are_noticed_or_change_nothing(tmp_path):
    """Every number and name is under a checksum; only times and padding are not."""
    file = tmp_path / "x.pth"
    tensors = tensors_of_all_types()
    torch.save(tensors, file)
    whole = file.read_bytes()
    generator = np.random.default_rng(0)
    noticed = 0
    for place in generator.integers(len(whole), size=400):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << generator.integers(8)
        file.write_bytes(damaged)
        try:
            got = read_tensors(file)
        except InputError:
            noticed += 1
            continue
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(got[name].astype(np.float64), tensor.double().numpy())
    assert noticed > 40


def test_a_changed_number_is_damage(tmp_path):
    file = tmp_path / "x.pth"
    torch.save({"weight": torch.full((1000,), 3.0)}, file)
    damaged = bytearray(file.read_bytes())
    place = damaged.index(np.full(4, 3, np.float32).tobytes()) + 123
    damaged[place] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(InputError, match=r"is damaged or cut short \(BadZipFile: Bad CRC-32.*download or save"):
        read(file)


@pytest.mark.parametrize("kind", ["legacy", "safetensors"])
def test_changed_bits_without_a_checksum_end_in_no_other_error(tmp_path, kind):
    file = tmp_path / "x.pth"
    SAVE[kind](tensors_of_all_types(), file)
    whole = file.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for place in generator.integers(len(whole), size=400):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << generator.integers(8)
        file.write_bytes(damaged)
        try:
            read_tensors(file)
        except InputError:
            refused += 1
    assert refused > 40


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, r"weight of shape \[3\] has 8 bytes"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "its tensors need 4 bytes, it has 8"),
        ({"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}, "F8_E4M3"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}, "buffer"),
    ],
)
def test_safetensors_that_contradict_themselves(tmp_path, entry, reason):
    text = json.dumps({"weight": entry}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(InputError, match=f"is damaged or cut short.*{reason}"):
        read_tensors(tmp_path / "x.safetensors")


# -------------------------------------------------------------------------------------------- names and layouts


def conv(ins: int, outs: int, side: int, name: str, bias: bool = False) -> dict:
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    weights = {f"{name}.weight": torch.randn((outs, ins, side, side), generator=generator)}
    return weights | ({f"{name}.bias": torch.randn(outs, generator=generator)} if bias else {})


def norm(features: int, name: str) -> dict:
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{kind}": torch.randn(features, generator=generator) for kind in kinds} | {
        f"{name}.num_batches_tracked": torch.tensor(9)
    }


def small_resnet() -> dict:
    return {
        **conv(3, 4, 7, "conv1"),
        **norm(4, "bn1"),
        **conv(4, 8, 1, "layer2.0.conv1"),
        **norm(8, "layer2.0.bn1"),
        **conv(4, 8, 1, "layer2.0.downsample.0"),
        **norm(8, "layer2.0.downsample.1"),
        **conv(8, 8, 3, "layer2.11.conv2"),
        "fc.weight": torch.zeros(10, 8),
        "fc.bias": torch.zeros(10),
    }


def test_a_resnet_s_names_and_layouts(tmp_path):
    state = small_resnet()
    torch.save(state, tmp_path / "r.pth")
    weights = read(tmp_path / "r.pth")
    assert set(weights.arrays) == {
        "params/backbone/conv1/kernel",
        *(f"params/backbone/{norm}/{leaf}" for norm in NORMS for leaf in ("scale", "bias")),
        *(f"batch_stats/backbone/{norm}/{leaf}" for norm in NORMS for leaf in ("mean", "var")),
        "params/backbone/layer2_0/conv1/kernel",
        "params/backbone/layer2_0/downsample_conv/kernel",
        "params/backbone/layer2_11/conv2/kernel",
    }
    kernel, weight = weights.arrays["params/backbone/layer2_11/conv2/kernel"], state["layer2.11.conv2.weight"]
    assert kernel.shape == (3, 3, 8, 8)
    assert kernel[0, 2, 5, 7] == weight[7, 5, 0, 2]
    statistics = {leaf: weights.arrays[f"batch_stats/backbone/layer2_0/bn1/{leaf}"] for leaf in ("mean", "var")}
    np.testing.assert_array_equal(statistics["mean"], state["layer2.0.bn1.running_mean"])
    np.testing.assert_array_equal(statistics["var"], state["layer2.0.bn1.running_var"])
    np.testing.assert_array_equal(
        weights.arrays["params/backbone/layer2_0/downsample_bn/scale"], state["layer2.0.downsample.1.weight"]
    )
    # The head of the classifier is named; the counts of batches say nothing and are not.
    assert weights.unknown == ("fc.weight", "fc.bias")
    assert weights.input == InputConfig()
    assert weights.origin.startswith("r.pth (PyTorch, ResNet")


NORMS = ("bn1", "layer2_0/bn1", "layer2_0/downsample_bn")


def around(prefix: str, state: dict) -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": small_resnet(), "epoch": 3},
        {"model": small_resnet(), "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        {"model_state": around("module.", small_resnet())},
        {"model": {"model_state_dict": around("_orig_mod.module.", small_resnet())}},
        around("module.", small_resnet()),
    ],
)
def test_wrappers_and_prefixes(tmp_path, content):
    torch.save(small_resnet(), tmp_path / "plain.pth")
    torch.save(content, tmp_path / "wrapped.pth")
    plain, wrapped = read(tmp_path / "plain.pth"), read(tmp_path / "wrapped.pth")
    assert plain.arrays.keys() == wrapped.arrays.keys()
    for name, value in plain.arrays.items():
        np.testing.assert_array_equal(wrapped.arrays[name], value)
    assert [name.rpartition(".fc.")[2].removeprefix("fc.") for name in wrapped.unknown] == ["weight", "bias"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_all_becomes_float32(tmp_path, dtype):
    state = {name: tensor.to(dtype) for name, tensor in small_resnet().items()}
    torch.save(state, tmp_path / "r.pth")
    arrays = read(tmp_path / "r.pth").arrays
    assert {array.dtype for array in arrays.values()} == {np.dtype("float32")}
    np.testing.assert_array_equal(
        arrays["params/backbone/conv1/kernel"], state["conv1.weight"].float().permute(2, 3, 1, 0).numpy()
    )


def small_vgg(with_bn: bool, dense: tuple[str, str, str] = ("classifier.0", "classifier.3", "classifier.6")) -> dict:
    """VGG11 of few channels as torchvision numbers it: a pooling behind layers 1, 2, 4, 6 and 8."""
    state, place, ins = {}, 0, 3
    for depth in (1, 1, 2, 2, 2):
        for _ in range(depth):
            state |= conv(ins, 4, 3, f"features.{place}", bias=True)
            ins = 4
            if with_bn:
                state |= norm(4, f"features.{place + 1}")
            place += 3 if with_bn else 2
        place += 1
    generator = torch.Generator().manual_seed(5)
    for name, ins, outs in zip(dense, (4 * 49, 6, 6), (6, 6, 10), strict=True):
        state |= {f"{name}.weight": torch.randn((outs, ins), generator=generator), f"{name}.bias": torch.zeros(outs)}
    return state


@pytest.mark.parametrize("with_bn", [False, True])
def test_a_vgg_s_layers_are_told_apart_by_their_numbers(tmp_path, with_bn):
    state = small_vgg(with_bn)
    torch.save(state, tmp_path / "v.pth")
    weights = read(tmp_path / "v.pth")
    layers = ["1_1", "2_1", "3_1", "3_2", "4_1", "4_2", "5_1", "5_2"]
    convs = [f"params/backbone/{name}/kernel" for name in [*(f"conv{layer}" for layer in layers), "fc6", "fc7"]]
    norms = [f"batch_stats/backbone/bn{layer}/mean" for layer in layers] if with_bn else []
    assert [path for path in weights.arrays if path.endswith("kernel")] == convs
    assert [path for path in weights.arrays if path.endswith("mean")] == norms
    numbers = [0, 4, 8, 11, 15, 18, 22, 25] if with_bn else [0, 3, 6, 8, 11, 13, 16, 18]
    for number, path in zip(numbers, convs, strict=False):
        np.testing.assert_array_equal(weights.arrays[path], state[f"features.{number}.weight"].permute(2, 3, 1, 0))
    assert weights.unknown == ("classifier.6.weight", "classifier.6.bias")
    assert weights.origin == f"v.pth (PyTorch, VGG11{' with BatchNorm' if with_bn else ''})"


def test_a_vgg_s_dense_layers_become_convolutions(tmp_path):
    state = small_vgg(False)
    torch.save(state, tmp_path / "v.pth")
    arrays = read(tmp_path / "v.pth").arrays
    x = torch.randn((1, 4, 7, 7), generator=torch.Generator().manual_seed(1))
    want = torch.nn.functional.linear(x.flatten(1), state["classifier.0.weight"])
    got = np.einsum("hwc,hwco->o", x[0].permute(1, 2, 0).numpy(), arrays["params/backbone/fc6/kernel"])
    np.testing.assert_allclose(got, want[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(arrays["params/backbone/fc7/kernel"][0, 0], state["classifier.3.weight"].T)


def test_timm_s_vgg_is_torchvision_s(tmp_path):
    """timm keeps fc6 and fc7 as convolutions."""
    torch.save(small_vgg(True), tmp_path / "v.pth")
    timm = small_vgg(True, ("pre_logits.fc1", "pre_logits.fc2", "head.fc"))
    timm["pre_logits.fc1.weight"] = timm["pre_logits.fc1.weight"].reshape(6, 4, 7, 7)
    timm["pre_logits.fc2.weight"] = timm["pre_logits.fc2.weight"].reshape(6, 6, 1, 1)
    save_safetensors(timm, tmp_path / "v.safetensors")
    ours, theirs = read(tmp_path / "v.pth"), read(tmp_path / "v.safetensors")
    assert ours.arrays.keys() == theirs.arrays.keys()
    for name, value in ours.arrays.items():
        np.testing.assert_array_equal(theirs.arrays[name], value)
    assert theirs.unknown == ("head.fc.weight", "head.fc.bias")


def test_weights_of_another_size_are_refused(tmp_path):
    state = small_vgg(False)
    state["classifier.0.weight"] = torch.zeros(6, 50)
    torch.save(state, tmp_path / "v.pth")
    with pytest.raises(InputError, match=r"classifier\.0\.weight of .*v\.pth has the shape \(6, 50\).*multiple of 49"):
        read(tmp_path / "v.pth")
    torch.save({"conv1.weight": torch.zeros(4, 3, 7)}, tmp_path / "r.pth")
    with pytest.raises(InputError, match=r"conv1\.weight of .* has the shape \(4, 3, 7\)"):
        read(tmp_path / "r.pth")


def meta_state(make) -> dict:
    """A network's tensors by their shapes alone, all zero."""
    with torch.device("meta"):
        shapes = make().state_dict()
    return {name: torch.zeros(()).expand(value.shape) for name, value in shapes.items()}


@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_1", "mobilenet_v2", "densenet121", "vit_b_16"])
def test_other_networks_are_refused(torchvision, tmp_path, name):
    torch.save(meta_state(lambda: getattr(torchvision.models, name)(weights=None)), tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"x\.pth holds none of the networks that are known here: its \d+ tensors"):
        read(tmp_path / "x.pth")


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
def test_torchvision_s_fcn_fills_ours(torchvision, tmp_path, backbone):
    segmentation = torchvision.models.segmentation
    make = getattr(segmentation, f"fcn_{backbone}")
    torch.save(
        meta_state(lambda: make(weights=None, weights_backbone=None, aux_loss=True, num_classes=21)), tmp_path / "x.pth"
    )
    weights = read(tmp_path / "x.pth")
    shapes = jax.eval_shape(DilatedFCN(21, backbone).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    want = {"/".join(key.key for key in path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)}
    assert {name: value.shape for name, value in weights.arrays.items()} == want
    assert weights.unknown == ()
    assert weights.origin == f"x.pth (PyTorch, FCN on ResNet{backbone.removeprefix('resnet')})"


def test_of_deeplab_only_what_is_common_is_taken(torchvision, tmp_path):
    deeplab = torchvision.models.segmentation.deeplabv3_resnet50
    torch.save(meta_state(lambda: deeplab(weights=None, weights_backbone=None, aux_loss=True)), tmp_path / "x.pth")
    weights = read(tmp_path / "x.pth")
    assert {name.split("/")[1] for name in weights.arrays} == {"backbone", "aux_classifier"}
    assert {"classifier.1.weight", "classifier.4.weight"} <= set(weights.unknown)
