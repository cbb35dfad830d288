"""Inputs of data sets: how they are chosen, stored, read, decoded, normalised, changed and shown."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import make_folder, save
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import Image
from small_nyud import NAMES, write_official, write_reference

from fcn_jax.config import AugmentConfig, DataConfig, InputConfig
from fcn_jax.data.augment import augment, draw_changes, normalise
from fcn_jax.data.batches import load_on_devices
from fcn_jax.data.canvas import place_on_canvas
from fcn_jax.data.dataset import Example, prepare
from fcn_jax.data.decoded import open_decoded
from fcn_jax.data.hha import NYUD_CAMERA, encode_hha
from fcn_jax.data.inputs import decode_image, encode_png, make_picture
from fcn_jax.data.sources.nyud import convert_to_millimetres
from fcn_jax.errors import InputError

INPUTS = ("colour", "depth", "hha")


def expect(arrays, inputs):
    """The image of an example: its arrays side by side, in the largest type."""
    kinds = {"colour": arrays["images"], "depth": arrays["depth"][..., None], "hha": arrays["hha"]}
    return np.concatenate([kinds[name] for name in inputs], axis=-1)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    root = tmp_path_factory.mktemp("nyud")
    return root / "data", write_reference(root / "data")


@pytest.mark.parametrize("inputs", [("colour", "depth"), ("hha",), ("depth",), ("depth", "colour", "hha")])
def test_layout_of_the_reference(reference, inputs, tmp_path):
    root, arrays = reference
    data = prepare("nyud", root, tmp_path, inputs=inputs)
    deep = "depth" in inputs
    for split, names in NAMES.items():
        for name, example in zip(names, data.source(split), strict=True):
            assert example.name == name
            assert example.image.dtype == (np.uint16 if deep else np.uint8)
            np.testing.assert_array_equal(example.image, expect(arrays[name], inputs))
            np.testing.assert_array_equal(example.label, np.where(arrays[name]["mask"], arrays[name]["mask"] - 1, 255))
            with pytest.raises(ValueError, match="read-only"):
                example.image[0] = 0
    decoded = open_decoded(data, "train")
    for example, again in zip(data.source("train"), decoded, strict=True):
        assert again.image.dtype == example.image.dtype
        np.testing.assert_array_equal(again.image, example.image)
        np.testing.assert_array_equal(again.label, example.label)


def test_official_layout(tmp_path):
    arrays = write_official(tmp_path / "data")
    data = prepare("nyud", tmp_path / "data", tmp_path, inputs=("colour", "depth"))
    for split, numbers in (("trainval", (3, 1)), ("test", (2, 4))):
        for number, example in zip(numbers, data.source(split), strict=True):
            np.testing.assert_array_equal(example.image, expect(arrays[number - 1], ("colour", "depth")))
    data = prepare("nyud", tmp_path / "data", tmp_path, inputs=("hha",))
    for number, example in zip((3, 1), data.source("trainval"), strict=True):
        metres = (arrays[number - 1]["depth"] / 1000).astype(np.float32)
        measured = np.arange(metres.shape[1]) > 1
        hha = encode_hha(metres, NYUD_CAMERA, np.broadcast_to(measured, metres.shape))
        np.testing.assert_array_equal(example.image, hha)


@pytest.mark.parametrize("metres", [np.ones((2, 2), int), np.ones(2), np.full((2, 2), 66.0), np.full((2, 2), np.nan)])
def test_depths_that_are_none(metres):
    with pytest.raises(ValueError, match=r"the depths are .*, not metres from 0 to 65\.535"):
        convert_to_millimetres(metres)


def test_the_default_input_says_what_channels_there_are(reference, tmp_path):
    given = prepare("nyud", reference[0], tmp_path, inputs=("colour", "depth")).input
    assert given.mean == (*InputConfig().mean, 7.844)
    assert given.log == (3,)
    assert given.channels == (("colour", 3), ("depth", 1))
    assert (given.dtype, given.num_channels, given.bytes_per_pixel, given.colour) == ("uint16", 4, 8, slice(0, 3))
    assert prepare("nyud", reference[0], tmp_path).input == InputConfig()


def test_wrong_inputs(reference, tmp_path):
    root, _ = reference
    with pytest.raises(InputError, match="nyud has no input 'infrared'; it has colour, depth, hha: give some of them"):
        prepare("nyud", root, tmp_path, inputs=("infrared",))
    with pytest.raises(InputError, match=r"data\.inputs is hha hha; name each input once"):
        prepare("nyud", root, tmp_path, inputs=("hha", "hha"))
    with pytest.raises(InputError, match="folder has no input 'depth'; it has colour"):
        prepare("folder", make_folder(tmp_path / "f"), tmp_path, inputs=("colour", "depth"))


def test_files_of_inputs_that_are_wrong_or_missing(tmp_path):
    root = tmp_path / "data"
    write_reference(root)
    first, second, third = (root / f"data/depth/img_{name}.png" for name in ("5001", "5002", "5003"))
    first.unlink()
    with pytest.raises(InputError, match=r"train: 5001 has no img_5001\.png in .*depth: .* add the missing file"):
        prepare("nyud", root, tmp_path, inputs=("colour", "depth"))
    save(np.zeros((36, 40), np.uint8), first)
    save(np.zeros((36, 40, 3), np.uint8), second)
    save(np.zeros((36, 39), np.uint16), third)
    with pytest.raises(InputError) as caught:
        prepare("nyud", root, tmp_path, inputs=("colour", "depth"))
    text = str(caught.value)
    assert "depth image img_5001.png has samples of 8 bits; they must have 16" in text
    assert "depth image img_5002.png has 3 channels; it must have 1" in text
    assert "mask img_5003.mat has 40x36 pixels, img_5003.png 39x36: they must have the same size" in text
    Image.fromarray(np.zeros((36, 40), np.int32) + 70_000).save(first.with_suffix(".tif"))
    first.with_suffix(".tif").rename(first)
    with pytest.raises(InputError, match=r"depth image img_5001.png has samples from 70000 to 70000; they must be"):
        prepare("nyud", root, tmp_path, inputs=("depth",))
    save(np.zeros((36, 40, 4), np.uint8), first)
    with pytest.raises(InputError, match=r"depth image img_5001.png is of mode RGBA .*it must have one channel"):
        prepare("nyud", root, tmp_path, inputs=("depth",))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((36, 40), np.uint8)).save(first, exif=exif)
    with pytest.raises(InputError, match=r"depth image img_5001.png has EXIF orientation 6; turn its pixels"):
        prepare("nyud", root, tmp_path, inputs=("depth",))


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, "uint8"), (3, "uint8"), (3, "uint16"), (5, "uint8"), (7, "uint16")]
)
def test_stored_images_come_back(channels, dtype):
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (5, 4, channels), dtype, endpoint=True)
    again = decode_image([encode_png(array)], 5)
    assert again.dtype == dtype
    np.testing.assert_array_equal(again, array)


def test_normalise_by_hand():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (4, 5, 5)).astype(np.uint16)
    image[..., 0] = rng.integers(0, 9000, (4, 5))
    image[0, 0, 0] = 0
    given = InputConfig(
        "bgr", (7.0, 1.0, 2.0, 3.0, 5.0), (0.5, 2.0, 3.0, 4.0, 10.0), log=(0,),
        channels=(("depth", 1), ("colour", 3), ("heat", 1)), dtype="uint16",
    )  # fmt: skip
    got = np.asarray(normalise(jnp.asarray(image), given))
    for place in np.ndindex(4, 5):
        depth, red, green, blue, heat = image[place].astype(float)
        expected = [(np.log(max(depth, 1)) - 7) / 0.5, (blue - 1) / 2, (green - 2) / 3, (red - 3) / 4, (heat - 5) / 10]
        np.testing.assert_allclose(got[place], expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="images have 4 channels; the input of the network has 5"):
        normalise(jnp.asarray(image[..., :4]), given)


def test_colour_changes_leave_other_inputs_and_geometry_changes_all():
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (20, 24, 3), np.uint8)
    label = jnp.zeros((20, 24), jnp.uint8)
    config = AugmentConfig(crop=16, scale=(0.7, 1.4), colour=0.5)
    both = InputConfig(
        mean=(*InputConfig().mean, 5.0), std=(*InputConfig().std, 2.0), channels=(("colour", 3), ("depth", 1)),
        dtype="uint16",
    )  # fmt: skip
    size = jnp.array([20, 24], jnp.int32)

    def run(image, given, config, changes):
        return np.asarray(augment(jnp.asarray(image), label, size, changes, None, config=config, input_config=given)[0])

    for step in range(3):
        changes = jax.tree.map(lambda x: x[0], draw_changes(0, step, np.asarray(size)[None], 0, 1, config))
        alone = run(colour, InputConfig(), config, changes)
        # The first colour channel is depth, too, so it must end where that does.
        stacked = np.concatenate([colour, colour[..., :1]], axis=-1).astype(np.uint16)
        joined = run(stacked, both, config, changes)
        np.testing.assert_allclose(joined[..., :3], alone, atol=1e-5)
        grey = InputConfig(mean=(5.0,), std=(2.0,), channels=(("depth", 1),))
        plain = run(colour[..., :1], grey, AugmentConfig(crop=16, scale=(0.7, 1.4)), changes)
        np.testing.assert_allclose(joined[..., 3:], plain, atol=1e-5)
        assert np.abs(alone[..., 0] * both.std[0] + both.mean[0] - (joined[..., 3] * 2 + 5)).max() > 1


def test_batches_have_the_channels_of_the_examples(reference, tmp_path):
    data = prepare("nyud", reference[0], tmp_path, inputs=("colour", "depth"))
    source = data.source("train")
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("data",)), PartitionSpec("data"))
    resident = load_on_devices(source, (40, 48), sharding, 2).batch
    for index, example in enumerate(source):
        np.testing.assert_array_equal(resident.image[index, :36, :40], example.image)
    wrong = Example("b", np.zeros((4, 4, 3), np.uint16), np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match=r"b has an image of shape \(4, 4, 3\) .* they must be \[height, width, 4\]"):
        place_on_canvas([source[0], wrong], 2, (40, 48))
    wrong = wrong._replace(image=np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(InputError, match="b has an image of uint8 and a label of uint8; they must be uint16"):
        place_on_canvas([source[0], wrong], 2, (40, 48))


def test_pictures_to_look_at():
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (4, 5, 3), np.uint8)
    assert make_picture(colour) is colour
    depth = np.full((4, 5, 1), 3000, np.uint16)
    np.testing.assert_array_equal(make_picture(np.concatenate([colour, depth], axis=-1)), colour)
    ramp = np.linspace(1000, 5000, 20).astype(np.uint16).reshape(4, 5, 1)
    shown = make_picture(ramp)
    assert (shown.shape, shown.dtype, shown.min(), shown.max()) == ((4, 5, 3), np.uint8, 0, 255)
    assert (np.diff(shown[..., 0].ravel().astype(int)) >= 0).all()
    assert Example("a", ramp, colour[..., 0]).picture.shape == (4, 5, 3)


def test_configurations_of_earlier_releases_mean_colour():
    assert DataConfig("camvid").inputs == ()
    assert InputConfig("bgr", (1.0, 2.0, 3.0), (1.0, 1.0, 1.0)).colour == slice(0, 3)
