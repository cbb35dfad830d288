"""Hashes of images, and groups of them, against loops over the pixels and over all pairs."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fcn_jax.data.survey.duplicates import (
    NEAR,
    count_bits,
    group_alike,
    group_equal,
    hash_appearance,
    hash_pixels,
)


def photograph(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A smooth image with noise."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (7, 9, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(smooth + generator.integers(-3, 4, smooth.shape), 0, 255).astype(np.uint8)


def measure_distance(one: np.ndarray, other: np.ndarray) -> int:
    return int(count_bits(hash_appearance(one)[None], hash_appearance(other))[0])


def test_hash_of_pixels():
    image = photograph(0)
    assert hash_pixels(image) == hash_pixels(np.asfortranarray(image))
    assert len(hash_pixels(image)) == 16
    changed = image.copy()
    changed[5, 6, 2] ^= 1
    others = [changed, image.reshape(128, 96, 3), image[..., :2], image[:-1], photograph(1)]
    assert len({hash_pixels(array) for array in [image, *others]}) == 6


def test_hash_of_appearance_is_that_of_steps_between_mean_greys():
    # Sides that both 8 and 9 divide: each cell is the mean of whole pixels.
    image = np.repeat(np.random.default_rng(0).integers(0, 256, (72, 144, 1), np.uint8), 3, axis=2)
    grey = image[..., 0].astype(float)

    def average(rows: int, columns: int) -> np.ndarray:
        height, width = 72 // rows, 144 // columns
        return np.array(
            [
                [
                    np.floor(grey[i * height : (i + 1) * height, j * width : (j + 1) * width].mean() + 0.5)
                    for j in range(columns)
                ]
                for i in range(rows)
            ]
        )

    wide, tall = average(8, 9), average(9, 8)
    bits = [wide[i, j] < wide[i, j + 1] for i in range(8) for j in range(8)]
    bits += [tall[i, j] < tall[i + 1, j] for i in range(8) for j in range(8)]
    np.testing.assert_array_equal(np.unpackbits(hash_appearance(image).view(np.uint8)), bits)
    assert 20 < sum(bits) < 108


@pytest.mark.parametrize("seed", range(5))
def test_changes_that_keep_the_content_are_near_and_other_images_far(seed):
    image = photograph(seed)
    picture = Image.fromarray(image)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=70)
    changed = {
        "compressed": Image.open(stream),
        "scaled": picture.resize((77, 58), Image.Resampling.BICUBIC),
        "brightened": ImageEnhance.Brightness(picture).enhance(0.8),
    }
    for name, other in changed.items():
        assert measure_distance(image, np.asarray(other)) <= NEAR, name
    assert measure_distance(image, photograph(seed + 1)) > 3 * NEAR
    assert measure_distance(image, image[:, ::-1]) > NEAR


def test_an_image_smaller_than_the_hash():
    assert measure_distance(np.zeros((1, 1, 3), np.uint8), np.zeros((2, 1, 3), np.uint8)) == 0


def test_equal_groups():
    assert group_equal(list("abcabd")) == [[0, 3], [1, 4]]
    assert group_equal([]) == group_equal(["a"]) == []


def search_all_pairs(hashes: np.ndarray) -> list[list[int]]:
    """Groups by comparing every hash with every other one."""
    words = [int(right) << 64 | int(down) for right, down in hashes]
    group = list(range(len(words)))
    for i, one in enumerate(words):
        for j, other in enumerate(words[:i]):
            if (one ^ other).bit_count() <= NEAR and group[i] != group[j]:
                old, new = max(group[i], group[j]), min(group[i], group[j])
                group = [new if value == old else value for value in group]
    members = [[i for i, value in enumerate(group) if value == leader] for leader in range(len(words))]
    return [places for places in members if len(places) > 1]


@pytest.mark.parametrize("seed", range(4))
def test_near_groups_equal_those_of_a_search_through_all_pairs(seed):
    generator = np.random.default_rng(seed)
    bits = generator.integers(0, 2, (60, 128), np.uint8)
    copies = bits[generator.integers(0, 30, 60)].copy()
    for row in copies:  # 0 to 12 changed bits, so some are just near enough and others just too far
        row[generator.choice(128, generator.integers(0, 13), replace=False)] ^= 1
    rows = generator.permutation(np.concatenate([bits, copies]))
    hashes = np.packbits(rows, axis=1).view(np.uint64)
    groups = group_alike(hashes)
    assert groups == search_all_pairs(hashes)
    assert len(groups) > 5


def test_the_bound_is_exact():
    hashes = np.zeros((3, 2), np.uint64)
    hashes[1, 0] = sum(1 << bit for bit in range(0, 56, 8))  # 7 bits, one in each byte: 4 bands differ
    assert group_alike(hashes[:2]) == [[0, 1]]
    hashes[1] = [0x0001_0001_0001_0001, 0x0001_0001_0001_0000]  # 7 bits in 7 bands
    assert group_alike(hashes[:2]) == [[0, 1]]
    hashes[1] = [0x0001_0001_0001_0001, 0x0001_0001_0001_0001]  # 8 bits
    assert group_alike(hashes[:2]) == []
    assert group_alike(hashes) == [[0, 2]]
    assert group_alike(hashes[:0]) == []


def count_compared(hashes: np.ndarray) -> tuple[list[list[int]], int]:
    """The groups of `group_alike`, and how many hashes it compared with another one."""
    compared = []

    def count(some: np.ndarray, one: np.ndarray) -> np.ndarray:
        compared.append(len(some))
        return count_bits(some, one)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fcn_jax.data.survey.duplicates.count_bits", count)
        return group_alike(hashes), sum(compared)


def test_the_time_hardly_grows_faster_than_the_number_of_images():
    """5,000 varied images have 12 million pairs; few of these are compared."""
    groups, compared = count_compared(np.random.default_rng(0).integers(0, 2**64, (5_000, 2), np.uint64))
    assert groups == []
    assert compared < 4_000  # 8 bands of 2^16 values: about 1,500


def test_a_film_of_a_fixed_camera_takes_little_time_and_memory():
    """All pairs of 4,000 frames look alike: 8 million pairs, of which few are compared and kept."""
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 64, (4_000, 2), dtype=np.uint64)
    groups, compared = count_compared(np.uint64(1) << bits)
    assert groups == [list(range(4_000))]
    assert compared < 100_000
