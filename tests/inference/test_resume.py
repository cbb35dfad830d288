"""Which results of an interrupted prediction are kept."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fcn_jax.config import ModelConfig
from fcn_jax.data.labels import palette
from fcn_jax.errors import InputError
from fcn_jax.inference.outputs import Outputs
from fcn_jax.inference.resume import MADE_BY, Origin, describe_network, find_done, list_sources, write_origin
from fcn_jax.inference.tta import FLIP_AND_SCALES

OUTPUTS = Outputs(palette(3), ("sky", "sea", "sand"))
VARIABLES = {"params": {"kernel": np.arange(6.0).reshape(2, 3), "bias": np.zeros(2, np.float32)}}
NETWORK = describe_network(ModelConfig(), 7, VARIABLES, None, OUTPUTS)
ORDER = ("a.jpg", "b.jpg", MADE_BY, "a.png", "a_overlay.png", "b.png", "b_overlay.png")


def make_origin(files, network=NETWORK) -> Origin:
    return Origin(network, list_sources({file: [file] for file in files}))


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Two images, what their results are made by, and the results, a second after each other."""
    files = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for time, name in enumerate(ORDER):
        if name == MADE_BY:
            write_origin(make_origin(files), tmp_path, OUTPUTS, keep=False)
        else:
            (tmp_path / name).write_bytes(b"content")
        os.utime(tmp_path / name, (time, time))
    return files


def test_complete_results_of_the_same_origin_are_kept(tmp_path, files):
    assert find_done(files, tmp_path, OUTPUTS, make_origin(files)) == files
    assert find_done(files, tmp_path / "none", OUTPUTS, make_origin(files)) == []


@pytest.mark.parametrize("name", ["b.png", "b_overlay.png"])
def test_results_that_lack_a_file_are_not_kept(tmp_path, files, name):
    (tmp_path / name).write_bytes(b"")
    assert find_done(files, tmp_path, OUTPUTS, make_origin(files)) == files[:1]
    (tmp_path / name).unlink()
    assert find_done(files, tmp_path, OUTPUTS, make_origin(files)) == files[:1]


@pytest.mark.parametrize("changed", ["a.jpg", MADE_BY])
def test_results_older_than_their_image_or_their_origin_are_not_kept(tmp_path, files, changed):
    os.utime(tmp_path / changed, (4, 4))  # as old as the overlay of the first image
    assert find_done(files, tmp_path, OUTPUTS, make_origin(files)) == files[1:]


@pytest.mark.parametrize(("content", "time"), [(b"content", -1), (b"longer content", 0)])
def test_results_of_an_image_that_was_replaced_are_not_kept(tmp_path, files, content, time):
    """The other one may be older: `cp -p`, `mv` and `unzip` keep its time."""
    files[0].write_bytes(content)
    os.utime(files[0], (time, time))
    assert find_done(files, tmp_path, OUTPUTS, make_origin(files)) == files[1:]


def test_results_of_another_origin_are_not_kept(tmp_path, files):
    others = [
        describe_network(ModelConfig(skip_scales=(0.5, 1.0)), 7, VARIABLES, None, OUTPUTS),
        describe_network(ModelConfig(), 8, VARIABLES, None, OUTPUTS),
        describe_network(ModelConfig(), 7, {**VARIABLES, "batch_stats": np.ones(1)}, None, OUTPUTS),
        describe_network(ModelConfig(), 7, {"params": {**VARIABLES["params"], "bias": np.ones(2)}}, None, OUTPUTS),
        describe_network(ModelConfig(), 7, VARIABLES, FLIP_AND_SCALES, OUTPUTS),
        *(
            describe_network(ModelConfig(), 7, VARIABLES, None, replace(OUTPUTS, **change))
            for change in ({"alpha": 0.4}, {"legend": True}, {"values": np.arange(3, dtype=np.uint8)})
        ),
    ]
    for other in others:
        assert find_done(files, tmp_path, OUTPUTS, make_origin(files, other)) == []
    # Summaries are made anew in any case, and may be added.
    more = describe_network(ModelConfig(), 7, VARIABLES, None, replace(OUTPUTS, counts=True, polygons=True))
    assert find_done(files, tmp_path, OUTPUTS, make_origin(files, more)) == files


@pytest.mark.parametrize("content", ["", "{", "[1", "null", "[]"])
def test_a_damaged_origin_keeps_nothing(tmp_path, files, content):
    (tmp_path / MADE_BY).write_text(content)
    assert find_done(files, tmp_path, OUTPUTS, make_origin(files)) == []


def test_a_new_origin_makes_all_results_older(tmp_path, files):
    write_origin(make_origin(files), tmp_path, OUTPUTS, keep=False)
    assert find_done(files, tmp_path, OUTPUTS, make_origin(files)) == []


def test_results_of_another_image_of_the_same_stem_are_removed(tmp_path, files):
    """Another folder may have an older image of the name, such as 0001.jpg of another camera."""
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "b.jpg"
    other.write_bytes(b"content")
    os.utime(other, (0, 0))
    both = [files[0], other]
    assert find_done(both, tmp_path, OUTPUTS, make_origin(both)) == files[:1]
    write_origin(make_origin(both), tmp_path, OUTPUTS, keep=True)
    assert not (tmp_path / "b.png").exists()
    assert not (tmp_path / "b_overlay.png").exists()
    assert find_done(both, tmp_path, OUTPUTS, make_origin(both)) == files[:1]


def test_results_are_kept_while_others_are_added(tmp_path, files):
    more = [tmp_path / "c.jpg"]
    write_origin(make_origin(more), tmp_path, OUTPUTS, keep=True)
    assert find_done(files, tmp_path, OUTPUTS, make_origin(files)) == files


def test_results_of_another_network_are_not_kept_while_others_are_added(tmp_path, files):
    other = describe_network(ModelConfig(), 8, VARIABLES, None, OUTPUTS)
    write_origin(make_origin([tmp_path / "c.jpg"], other), tmp_path, OUTPUTS, keep=True)
    for network in (NETWORK, other):
        assert find_done(files, tmp_path, OUTPUTS, make_origin(files, network)) == []


def test_a_further_input_counts_as_the_image(tmp_path, files):
    depth, new = tmp_path / "depth.png", tmp_path / "new.png"
    for file, time in ((depth, 0), (new, 9)):
        file.write_bytes(b"content")
        os.utime(file, (time, time))
    origin = Origin(NETWORK, list_sources({files[0]: [files[0], depth], files[1]: [files[1], depth]}))
    write_origin(origin, tmp_path, OUTPUTS, keep=True)
    for name in ("a.png", "a_overlay.png", "b.png", "b_overlay.png"):
        (tmp_path / name).write_bytes(b"content")
        os.utime(tmp_path / name, (8, 8))
    assert find_done(files, tmp_path, OUTPUTS, origin) == files
    os.utime(depth, (9, 9))
    changed = Origin(NETWORK, list_sources({files[0]: [files[0], depth], files[1]: [files[1], depth]}))
    assert find_done(files, tmp_path, OUTPUTS, changed) == []
    other = Origin(NETWORK, list_sources({files[0]: [files[0], new], files[1]: [files[1], depth]}))
    assert find_done(files, tmp_path, OUTPUTS, other) == []


def test_files_that_are_no_results_are_not_replaced(tmp_path, files):
    truth = tmp_path / "labels"
    truth.mkdir()
    (truth / "b.png").write_bytes(b"truth")
    with pytest.raises(InputError, match=r"labels/b\.png is there already, and is no result of fcn-jax predict"):
        write_origin(make_origin(files), truth, OUTPUTS, keep=False)
    assert [file.name for file in truth.iterdir()] == ["b.png"]
    write_origin(make_origin(files[:1]), truth, OUTPUTS, keep=False)  # its results would have other names
    with pytest.raises(InputError, match="is there already"):
        write_origin(make_origin(files), truth, OUTPUTS, keep=True)
    assert (truth / "b.png").read_bytes() == b"truth"


def test_summaries_and_a_description_of_others_are_not_replaced(tmp_path, files):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "counts.csv").write_text("my own")
    with pytest.raises(InputError, match=r"mine/counts\.csv is there already, and is no result"):
        write_origin(make_origin(files), mine, replace(OUTPUTS, counts=True), keep=False)
    (mine / MADE_BY).write_text('{"scores": [1, 2]}')
    with pytest.raises(InputError, match=r"mine/predict\.json is there already, and is no result"):
        write_origin(make_origin(files), mine, OUTPUTS, keep=False)
    assert sorted(file.read_text() for file in mine.iterdir()) == ["my own", '{"scores": [1, 2]}']


def test_kinds_of_results_that_were_not_made_before_replace_nothing(tmp_path, files):
    more = replace(OUTPUTS, probabilities=True, counts=True)
    for name in ("a.npz", "counts.csv"):
        (tmp_path / name).write_bytes(b"my own")
        with pytest.raises(InputError, match=rf"{name} is there already, and is no result of fcn-jax predict"):
            write_origin(make_origin(files), tmp_path, more, keep=False)
        (tmp_path / name).unlink()
    write_origin(make_origin(files), tmp_path, more, keep=False)
    (tmp_path / "a.npz").write_bytes(b"a result")
    write_origin(make_origin(files), tmp_path, OUTPUTS, keep=False)
    write_origin(make_origin(files), tmp_path, more, keep=False)


@pytest.mark.parametrize("missing", ["images", "kinds"])
def test_results_of_an_older_version_are_made_anew(tmp_path, files, missing):
    stored = json.loads((tmp_path / MADE_BY).read_text())
    del stored[missing]
    (tmp_path / MADE_BY).write_text(json.dumps(stored))
    os.utime(tmp_path / MADE_BY, (2, 2))
    assert find_done(files, tmp_path, OUTPUTS, make_origin(files)) == []
    write_origin(make_origin(files), tmp_path, OUTPUTS, keep=False)
    assert (tmp_path / "b.png").exists()
