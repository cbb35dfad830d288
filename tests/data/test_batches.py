"""Windows of large images, split over hosts, threads and devices; splits kept on the devices."""

import functools
from collections.abc import Sequence
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_runs
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fcn_jax.config import AugmentConfig, Config, InputConfig, RunOptions
from fcn_jax.data import batches as module
from fcn_jax.data.augment import Changes, augment, draw_changes, find_origin, reach
from fcn_jax.data.batches import load_on_devices, require_room, train_batches
from fcn_jax.data.canvas import Batch
from fcn_jax.data.dataset import Example
from fcn_jax.data.defaults import fill_config, fill_options
from fcn_jax.errors import InputError

CROP = 24
AUGMENT = AugmentConfig(crop=CROP, scale=(0.5, 2.0), colour=0.3)
LONGEST = 64  # 24 / 0.5 = 48 source pixels, and a margin, in multiples of 64
# Larger on both axes, on one of them, and on none; the window is 64x64.
SIZES = [(200, 150), (150, 200), (65, 64), (64, 300), (20, 90), (40, 30), (64, 64), (7, 9)]
LARGEST = (200, 300)


def examples() -> list[Example]:
    generator = np.random.default_rng(0)

    def example(index: int, size: tuple[int, int]) -> Example:
        image = generator.integers(0, 256, (*size, 3), np.uint8)
        return Example(str(index), image, generator.integers(0, 20, size).astype(np.uint8))

    return [example(index, size) for index, size in enumerate(SIZES)]


def config(**changes) -> Config:
    return fill_config(Config(**({"augment": AUGMENT, "batch_size": 4, "seed": 3, "steps": 9} | changes)))


def devices(count: int) -> NamedSharding:
    return NamedSharding(Mesh(np.array(jax.devices()[:count]), ("data",)), PartitionSpec("data"))


def opened(source: list[Example], decoded: str, on: int = 1) -> Sequence[Example]:
    return load_on_devices(source, LARGEST, devices(on), 2) if decoded == "device" else source


def batches(
    count: int, first: int = 0, on: int = 1, decoded: str = "never", workers: int = 2, **changes
) -> list[Batch]:
    settings = config(**changes)
    options = fill_options(RunOptions(workers=workers), settings)
    stream = train_batches(opened(examples(), decoded, on), LARGEST, settings, options, first, devices(on))
    return [jax.tree.map(np.asarray, next(stream)) for _ in range(count)]


def on_canvas(array: np.ndarray, canvas: tuple[int, int], fill: int) -> np.ndarray:
    whole = np.full((*canvas, *array.shape[2:]), fill, np.uint8)
    whole[: array.shape[0], : array.shape[1]] = array
    return whole


@pytest.mark.parametrize(
    ("crop", "scale", "longest"),
    [
        # The presets': no image of VOC (500x500), CamVid (360x480) or shapes (96x96) is cut.
        (256, (0.5, 2.0), 576),
        (224, (0.5, 2.0), 512),
        (80, (1.0, 1.0), 128),
        (CROP, (0.5, 2.0), LONGEST),
    ],
)
def test_reach_by_hand(crop, scale, longest):
    assert reach(AugmentConfig(crop=crop, scale=scale)) == longest


def noise(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    return generator.integers(0, 256, (*size, 3), np.uint8), generator.integers(0, 20, size).astype(np.uint8)


def augmented(settings: AugmentConfig, image, label, size, changes: Changes, origin=None):
    """A batch, operation by operation: compiled as a whole, two programs may round a position to two neighbours."""
    one = functools.partial(augment, config=settings, input_config=InputConfig())
    return jax.vmap(one)(*jax.tree.map(jnp.asarray, (image, label, size, changes, origin)))


SCALES = ((0.5, 2.0), (0.5, 0.5), (1.0, 1.0), (1.5, 3.0), (0.3, 0.4))
PHOTOGRAPHS = ((200, 150), (90, 300), (40, 131))
WINDOWS = [
    pytest.param(scale, size, marks=() if i == j else pytest.mark.slow)
    for i, scale in enumerate(SCALES)
    for j, size in enumerate(PHOTOGRAPHS)
]


@pytest.mark.parametrize(("scale", "size"), WINDOWS)
def test_what_the_crop_looks_at_is_all_in_the_window(scale, size):
    settings = AugmentConfig(crop=CROP, scale=scale, colour=0.3)
    longest, count = reach(settings), 100
    canvas = (min(longest, LARGEST[0]), min(longest, LARGEST[1]))
    image, label = (on_canvas(x, LARGEST, 77) for x in noise(size))
    sizes = np.tile(np.array(size, np.int32), (count, 1))
    changes = draw_changes(7, 0, sizes, 0, count, settings)
    wholes = [np.broadcast_to(x, (count, *x.shape)) for x in (image, label)]
    pixels, labels = augmented(settings, *wholes, sizes, changes)

    most, unlimited = np.maximum(np.array(size) - canvas, 0), find_origin(changes, sizes, (1, 1))
    at = find_origin(changes, sizes, canvas)
    np.testing.assert_array_equal(at, np.minimum(unlimited, most))
    assert (unlimited.max(axis=0) > 0).any()
    rows = at[:, :1] + np.arange(canvas[0])
    columns = at[:, 1:] + np.arange(canvas[1])
    windows = [x[rows[:, :, None] % LARGEST[0], columns[:, None] % LARGEST[1]] for x in (image, label)]
    ours, our_labels = augmented(settings, *windows, sizes, changes, at)
    np.testing.assert_array_equal(our_labels, labels)
    np.testing.assert_allclose(ours, pixels, rtol=0, atol=1e-5)


def test_batches_hold_the_windows_that_their_steps_look_at():
    settings, source = config(), examples()
    seen = []
    for step, batch in enumerate(batches(4, first=6), 6):
        assert batch.image.shape == (4, LONGEST, LONGEST, 3)
        chex.assert_trees_all_equal(batch.changes, draw_changes(settings.seed, step, batch.size, 0, 4, AUGMENT))
        for index in range(4):
            size, (top, left) = tuple(batch.size[index]), batch.origin[index]
            example = source[SIZES.index(size)]
            seen.append(SIZES.index(size))
            where = (slice(top, top + LONGEST), slice(left, left + LONGEST))
            np.testing.assert_array_equal(batch.image[index], on_canvas(example.image[where], (LONGEST, LONGEST), 0))
            np.testing.assert_array_equal(batch.label[index], on_canvas(example.label[where], (LONGEST, LONGEST), 255))
            whole = [on_canvas(example.image, LARGEST, 0)[None], on_canvas(example.label, LARGEST, 255)[None]]
            one = slice(index, index + 1)
            changes = jax.tree.map(lambda x, one=one: x[one], batch.changes)
            pixels, labels = augmented(AUGMENT, *whole, batch.size[one], changes)
            ours, our_labels = augmented(AUGMENT, *(x[one] for x in batch[:3]), changes, batch.origin[one])
            np.testing.assert_array_equal(our_labels, labels)
            np.testing.assert_allclose(ours, pixels, rtol=0, atol=1e-5)
    assert sorted(seen) == sorted([*range(len(SIZES))] * 2)


def test_windows_are_a_function_of_seed_step_and_index():
    expected = batches(6)
    assert len({tuple(at) for batch in expected for at in batch.origin}) > 6
    for workers in (1, 5):
        chex.assert_trees_all_equal(batches(6, workers=workers), expected)
    chex.assert_trees_all_equal(batches(2, first=4), expected[4:])
    chex.assert_trees_all_equal(batches(6, on=4), expected)
    other = batches(6, seed=4)
    assert not all(np.array_equal(a.origin, b.origin) for a, b in zip(other, expected, strict=True))


@pytest.mark.parametrize("decoded", ["never", "device"])
def test_hosts_prepare_the_parts_of_one_batch(monkeypatch, decoded):
    """Two hosts that see each its own devices; what each hands over is its part of the batch of one host."""
    expected = batches(3)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for host in (0, 1):
        monkeypatch.setattr(jax, "process_index", lambda host=host: host)
        monkeypatch.setattr(jax, "make_array_from_process_local_data", lambda sharding, array: jnp.asarray(array))
        for ours, whole in zip(batches(3, decoded=decoded), expected, strict=True):
            chex.assert_trees_all_equal(ours, jax.tree.map(lambda x, h=host: x[2 * h : 2 * h + 2], whole))


@pytest.mark.parametrize("crop", [CROP, 150])
@pytest.mark.parametrize("on", [1, 4])
def test_a_split_on_the_devices_gives_the_same_batches(crop, on):
    """With windows, and where all images are whole."""
    augment_config = AugmentConfig(crop=crop, scale=(0.5, 2.0))
    expected = batches(5, augment=augment_config)
    assert (expected[0].origin is None) == (crop == 150)
    ours = batches(3, first=2, on=on, augment=augment_config, decoded="device")
    chex.assert_trees_all_equal(ours, expected[2:])


def test_a_split_is_put_on_every_device_in_parts_and_taken_from_without_communication(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 3 * 4 * LARGEST[0] * LARGEST[1])  # parts of 3, 3 and 2
    sharding, source = devices(8), examples()
    split = load_on_devices(source, LARGEST, sharding, 2)
    assert [example.name for example in split] == [example.name for example in source]
    resident = split.batch
    assert resident.image.sharding.is_fully_replicated
    assert len(resident.image.addressable_shards) == 8
    for index, example in enumerate(source):
        np.testing.assert_array_equal(resident.image[index], on_canvas(example.image, LARGEST, 0))
        np.testing.assert_array_equal(resident.label[index], on_canvas(example.label, LARGEST, 255))
    np.testing.assert_array_equal(resident.size, SIZES)
    indices = jax.device_put(np.arange(8, dtype=np.int32), sharding)
    at = jax.device_put(np.zeros((8, 2), np.int32), sharding)
    changes = jax.device_put(draw_changes(0, 0, np.array(SIZES, np.int32), 0, 8, AUGMENT), sharding)
    for canvas, origins in ((LARGEST, None), ((64, 64), at)):
        take = jax.jit(functools.partial(module._take, canvas=canvas), out_shardings=sharding)
        program = take.lower(resident, indices, changes, origins).compile().as_text()
        assert not any(word in program for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"))


def test_a_split_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(module, "_read_free_memory", lambda device: 8e9)
    require_room(1000, (1000, 1000), 4)  # 4 GB
    message = (
        "1001 decoded images on canvases of 1000x1000 need 4.0 GB on each device, and half of the 8.0 GB that are free "
        "there are kept for training; give --data.decoded disk, or never"
    )
    with pytest.raises(InputError) as raised:
        require_room(1001, (1000, 1000), 4)
    assert str(raised.value) == message
    with pytest.raises(InputError, match="half of the"):
        load_on_devices(examples() * 126, (1000, 1000), devices(1), 1)


def test_free_memory():
    device = SimpleNamespace(memory_stats=lambda: {"bytes_limit": 100, "bytes_in_use": 30})
    assert module._read_free_memory(device) == 70
    everything = module._read_free_memory(SimpleNamespace(memory_stats=lambda: None))
    assert 0 < everything * jax.local_device_count() < 1e15


def whole_batches(count: int) -> list[Batch]:
    """Of images that all fit on the canvas."""
    settings = config(augment=AugmentConfig(crop=32, scale=(0.7, 1.4)))
    options = fill_options(RunOptions(workers=2), settings)
    stream = train_batches(small_runs.examples(10), (40, 40), settings, options, 0, devices(1))
    return [jax.tree.map(np.asarray, next(stream)) for _ in range(count)]


def test_every_image_comes_once_an_epoch_and_whole():
    source = small_runs.examples(10)
    seen = []
    for batch in whole_batches(5):
        assert batch.origin is None
        for image, label, (height, width) in zip(batch.image, batch.label, batch.size, strict=True):
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


@pytest.mark.parametrize("decoded", ["never", "device"])
def test_labels_of_several_tasks_are_changed_alike(decoded):
    """The labels of each task are those of batches with that task alone, of large and of small images."""
    first = examples()
    second = [example._replace(label=np.flipud(example.label).copy()) for example in first]
    both = [
        one._replace(label=np.stack([one.label, other.label], axis=-1))
        for one, other in zip(first, second, strict=True)
    ]
    settings = config()
    options = fill_options(RunOptions(workers=2), settings)

    def take(source):
        source = opened(source, decoded)
        batch = jax.tree.map(np.asarray, next(train_batches(source, LARGEST, settings, options, 0, devices(1))))
        return batch, augmented(settings.augment, *batch[:5])

    (batch, (images, labels)), *alone = map(take, (both, first, second))
    assert batch.label.shape == (*batch.image.shape[:3], 2)
    for task, (single, (own_images, own_labels)) in enumerate(alone):
        np.testing.assert_array_equal(batch.image, single.image)
        np.testing.assert_array_equal(batch.label[..., task], single.label)
        np.testing.assert_array_equal(images, own_images)
        np.testing.assert_array_equal(labels[..., task], own_labels)
