"""The table of data sets."""

import re
import subprocess
import sys

import pytest

from fcn_jax.data.sources import SOURCES, camvid, describe_sources, get_source, voc
from fcn_jax.errors import InputError


def test_table():
    paper = ["voc2012", "sbd", "pascal-context", "siftflow", "siftflow-semantic", "siftflow-geometric", "nyud"]
    official = ["shapes", *paper, "camvid", "cityscapes", "ade20k", "oxford_iiit_pet"]
    assert list(SOURCES) == [*official, "folder", "voc", "coco", "panoptic", "labelme"]
    assert all(source.name == name for name, source in SOURCES.items())
    text = describe_sources()
    assert max(map(len, text.splitlines())) <= 100
    for block, source in zip(text.split("\n\n"), SOURCES.values(), strict=True):
        name, *rest = block.split("\n")
        assert name == source.name
        assert all(line.startswith("  ") for line in rest)
        about, facts, licence, defaults = re.sub("\n   +", " ", "\n".join(rest)).splitlines()
        assert about.strip() == source.description
        assert facts.strip().endswith(f"; size: {source.size}")
        assert licence.strip() == f"licence: {source.licence}"
        numbers = (
            source.defaults.steps,
            source.defaults.batch_size,
            source.defaults.crop,
            source.defaults.learning_rate,
        )
        assert [float(word) for word in re.findall(r"[\d.]+", defaults)] == list(map(float, numbers))


def test_every_data_set_has_a_size_and_a_licence():
    assert all(source.size and source.licence for source in SOURCES.values())


def test_numbers_of_classes():
    assert SOURCES["voc2012"].outline.num_classes == (len(voc.CLASS_NAMES),) == (21,)
    assert SOURCES["camvid"].outline.num_classes == (len(camvid.COLOURS),) == (11,)


def test_the_table_says_what_is_known_without_the_files():
    text = re.sub("\n +", " ", describe_sources())
    for facts in (
        "classes: 21; splits: train val (trainaug, seg11valid, test without labels); size: 2,913 images",
        "classes: 33 and 3; splits: train val; size:",
        "classes: 40; splits: trainval test (train, val); size:",
        "classes: any; splits: any; size:",
    ):
        assert facts in text


def test_unknown_name():
    assert get_source("camvid") is SOURCES["camvid"]
    with pytest.raises(InputError, match=r"'voc2021'; did you mean 'voc2012'\? there are shapes, voc2012"):
        get_source("voc2021")
    with pytest.raises(InputError, match="'zzz'; there are shapes"):
        get_source("zzz")


def test_the_table_needs_no_slow_library():
    """The command line reads it for help and flags, before it loads JAX."""
    slow = ("jax", "flax", "grain", "tensorflow_datasets", "array_record", "orbax", "tensorflow")
    code = f"import sys, fcn_jax.data.sources; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
