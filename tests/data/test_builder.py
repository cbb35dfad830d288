"""Prepared data: what it holds, when it is built again, and what damage and other processes do to it."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from drawn import list_contents, mask, picture, save

from fcn_jax.data import builder as builder_module
from fcn_jax.data import dataset as datasets
from fcn_jax.data import entries
from fcn_jax.data.builder import SegmentationBuilder, open_records
from fcn_jax.data.sources import folder
from fcn_jax.data.sources.source import Drawn, Found, Request
from fcn_jax.errors import InputError


def prepare(tree, **options):
    return datasets.prepare("folder", tree, tree.parent / "cache", **options)


def make_builder(tree):
    cache = tree.parent / "cache"
    return SegmentationBuilder("folder", folder.find(Request(tree, cache)), cache)


def refuse(tree, **options):
    """The heading and the lines of the error."""
    with pytest.raises(InputError) as caught:
        prepare(tree, **options)
    assert not list((tree.parent / "cache").rglob("*.array_record*"))
    heading, *lines = str(caught.value).splitlines()
    return heading, [line.strip() for line in lines]


# What is read is what was there


def test_largest_height_and_width_of_different_images(tree):
    for split, stem, size in (("train", "e", (20, 3)), ("val", "f", (4, 30))):
        save(picture(*size), tree / f"images/{split}/{stem}.png")
        save(mask(*size), tree / f"labels/{split}/{stem}.png")
    assert prepare(tree).max_size == prepare(tree).max_size == (20, 30)


def test_records_are_the_bytes_of_image_files(tree):
    prepare(tree)
    records = {
        record["name"].decode(): record["image"]
        for record in open_records(make_builder(tree).data_dir, ("image",), "train")
    }
    assert records["a"] == (tree / "images/train/a.png").read_bytes()


def test_shards_keep_the_order(tree, monkeypatch):
    whole = list_contents(prepare(tree))
    monkeypatch.setattr(builder_module, "SHARD", 500)
    shutil.rmtree(tree.parent / "cache")
    data = prepare(tree)
    assert len(list(data.folder.glob("*train.array_record*"))) == 2
    assert list_contents(data) == whole


def draw_two(plus=0):
    """A data set of two drawn images, of the labels 0 + plus and 1 + plus."""

    def draw(i):
        return np.full((4, 5, 3), 9, np.uint8), np.full((4, 5), i + plus, np.uint8)

    return Found(("a", "b"), {"train": [Drawn(f"{i}", partial(draw, i)) for i in range(2)]})


def test_drawn_examples(tmp_path):
    builder = SegmentationBuilder("two", draw_two(), tmp_path)
    builder.build()
    example = datasets.Source(open_records(builder.data_dir, ("image",), "train"), tmp_path)[1]
    assert (example.image == 9).all()
    assert (example.label == 1).all()
    assert SegmentationBuilder("two", draw_two(), tmp_path).data_dir == builder.data_dir


def test_drawn_labels_are_checked(tmp_path):
    with pytest.raises(InputError, match=r"train: label 2 in 1 is outside 0\.\.1"):
        SegmentationBuilder("two", draw_two(plus=1), tmp_path).build()


def test_a_name_that_a_data_set_of_tfds_has(tmp_path):
    builder = SegmentationBuilder("mnist", draw_two(), tmp_path)
    builder.build()
    assert builder.info.name == "mnist"
    assert builder.data_dir.startswith(str(tmp_path / "mnist"))
    assert [record["name"] for record in open_records(builder.data_dir, ("image",), "train")] == [b"0", b"1"]
    assert SegmentationBuilder("two", draw_two(), tmp_path).info.name == "two"  # one class, a name for each data set


# Everything that is wrong is listed at once


def test_everything_wrong_is_listed_at_once(tree):
    image, label = tree / "images/train", tree / "labels/train"
    wrong = mask()
    wrong[0, 0] = 37
    save(wrong, label / "a.png")
    save(picture(), label / "b.png")
    (image / "c.png").unlink()
    (image / "e.jpg").write_bytes(b"no picture")
    (label / "e.png").write_bytes(b"")
    save(picture(7, 8), tree / "images/val/d.png")
    heading, lines = refuse(tree)
    assert heading == "6 things are wrong with the 5 examples of folder:"
    for line, start in zip(
        lines,
        [
            "train: mask c.png has no image c.png in ",
            "train: label 37 in a.png",
            "train: mask b.png has colours, and there is no table",
            "train: image e.jpg cannot be decoded",
            "train: mask e.png cannot be decoded",
            "val: mask d.png has 9x6 pixels",
        ],
        strict=True,
    ):
        assert line.startswith(start)


def test_one_thing_wrong(tree):
    (tree / "labels/val/d.png").unlink()
    heading, lines = refuse(tree)
    assert heading == "1 thing is wrong with the 4 examples of folder:"
    assert [line.partition(" in ")[0] for line in lines] == ["val: image d.png has no mask d.png"]


def test_what_is_wrong_only_once_is_reported(tree, monkeypatch):
    """A disk that fails may give the file when it is read again."""
    read_tasks, failed = builder_module.read_tasks, []

    def read(images, *rest):
        (image,) = images
        if image.stem == "a" and image not in failed:
            failed.append(image)
            raise InputError(f"image {image.name} cannot be read")
        return read_tasks(images, *rest)

    monkeypatch.setattr(builder_module, "read_tasks", read)
    heading, lines = refuse(tree)
    assert heading == "1 thing is wrong with the 4 examples of folder:"
    assert lines == ["train: image a.png cannot be read"]


def test_links_to_missing_files_are_reported(tree):
    (tree / "images/train/z.png").symlink_to(tree / "gone.png")
    (tree / "labels/train/z.png").symlink_to(tree / "gone.png")
    _, (line,) = refuse(tree)
    assert line.startswith("train: z has no image z.png in ")


def test_at_most_ten_problems_are_shown_and_a_file_has_all(tree):
    for place in range(300):
        save(picture(), tree / f"images/train/x{place:03}.png")
        save(mask(), tree / f"labels/train/x{place:03}_mask.png")
    heading, lines = refuse(tree)
    assert heading == "600 things are wrong with the 604 examples of folder:"
    assert len(lines) == 11
    assert lines[0].startswith("train: image x000.png has no mask x000.png in ")
    assert lines[0].endswith(
        " (300 images without mask, 300 masks without image): a mask has the name of its image, without the extension; "
        "these seem to have '_mask' after it, so give --data.label-suffix=_mask"
    )
    assert lines[1].startswith("train: image x001.png has no mask x001.png in ")
    assert lines[10].startswith("and 590 more; all are listed in ")
    listed = Path(lines[10].removeprefix("and 590 more; all are listed in ")).read_text().splitlines()
    assert len(listed) == 600
    assert listed[-1].startswith("train: mask x299_mask.png has no image x299_mask.png in ")


def test_problems_of_the_list_and_of_the_files_are_listed_together(tree):
    for kind in ("images", "labels"):
        (tree / kind / "test").mkdir()
    save(picture(), tree / "images/train/a.jpg")
    (tree / "labels/val/d.png").write_bytes(b"")
    _, (twice, empty, damaged) = refuse(tree)
    assert empty.startswith("test: the split has no examples")
    assert twice.startswith("train: there are 2 examples 'a'")
    assert damaged.startswith("val: mask d.png cannot be decoded")


# When it is built again


def test_built_once(tree, monkeypatch):
    first = prepare(tree)
    monkeypatch.setattr(SegmentationBuilder, "download_and_prepare", None)
    again = prepare(tree)
    assert again.folder == first.folder
    assert list_contents(again) == list_contents(first)
    assert (again.max_size, again.splits, again.class_names) == (first.max_size, first.splits, first.class_names)


def test_a_copy_with_the_same_times_is_not_built_again(tree):
    shutil.copytree(tree, tree.parent / "copy")
    assert prepare(tree.parent / "copy").folder == prepare(tree).folder


def test_every_change_is_built_again(tree, monkeypatch):
    folders = [prepare(tree).folder]

    def changed(**options):
        data = prepare(tree, **options)
        assert data.folder not in folders
        folders.append(data.folder)
        return data

    label = save(mask(), tree / "labels/train/a.png", compress_level=0)
    same = (tree / "labels/train/a.png").stat().st_size
    np.testing.assert_array_equal(changed().source("train")[0].label, label)
    label = save(mask(), tree / "labels/train/a.png", compress_level=0)  # of the same size, at another time
    assert (tree / "labels/train/a.png").stat().st_size == same
    np.testing.assert_array_equal(changed().source("train")[0].label, label)
    (tree / "images/train/b.png").rename(tree / "images/train/bb.png")
    (tree / "labels/train/b.png").rename(tree / "labels/train/bb.png")
    assert changed().source("train")[1].name == "bb"
    for kind in ("images", "labels"):
        (tree / kind / "train/c.png").rename(tree / kind / "val/c.png")
    assert changed().splits == {"train": 2, "val": 2}
    changed(void=(11,))
    (tree / "classes.txt").write_text("ground\ntree\nsea\n")
    assert changed().class_names[2] == "sea"
    monkeypatch.setattr(entries, "FORMAT", 2)
    changed()
    monkeypatch.setattr(SegmentationBuilder, "VERSION", "1.0.1")
    changed()


def test_source_is_only_read(tree):
    def state():
        return {f: (f.stat().st_mtime_ns, f.stat().st_size) for f in [tree, *tree.rglob("*")]}

    before = state()
    list(prepare(tree).source("train"))
    assert state() == before


@pytest.mark.parametrize(
    "loss",
    ["record", "cut", "swapped", "dataset_info.json", "metadata.json", "torn dataset_info.json", "torn metadata.json"],
)
def test_damaged_data_is_built_again(tree, loss):
    data = prepare(tree)
    before = list_contents(data)
    records = loss in ("record", "cut", "swapped")
    (file,) = data.folder.glob("*train.array_record*" if records else loss.split()[-1])
    if loss.startswith("torn"):
        file.write_text("")
    elif loss == "swapped":
        shutil.copy(next(data.folder.glob("*val.array_record*")), file)
    elif loss == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        file.unlink()
    again = prepare(tree)
    assert list_contents(again) == before
    assert (again.folder, again.max_size) == (data.folder, data.max_size)
    assert len(list(data.folder.glob("*array_record*"))) == 2


# Other processes, a full disk


TINY = """if True:
    import pathlib, sys
    import numpy as np
    from fcn_jax.data.builder import SegmentationBuilder, open_records
    from fcn_jax.data.sources.source import Drawn, Found

    def draw(i):
        if i == 2 and "wait" in sys.argv:
            print("drawing", flush=True)
            sys.stdin.readline()
        return np.full((4, 5, 3), i, np.uint8), np.full((4, 5), i % 2, np.uint8)

    splits = {split: [Drawn(f"{split}{i}", lambda i=i: draw(i)) for i in range(3)] for split in ("train", "val")}
    tiny = SegmentationBuilder("tiny", Found(("a", "b"), splits), pathlib.Path(sys.argv[1]))
    tiny.build()
    print(tiny.data_dir, [r["name"] for r in open_records(tiny.data_dir, ("image",), "train")], tiny.max_size)
"""


def start_tiny(cache, *arguments):
    command = [sys.executable, "-W", "error", "-c", TINY, str(cache), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_two_processes_build_once(tmp_path):
    with start_tiny(tmp_path, "wait") as first:
        assert first.stdout.readline() == "drawing\n"
        with start_tiny(tmp_path) as second:
            (folder,) = (tmp_path / "tiny").iterdir()
            assert second.stderr.readline() == f"waiting for another process that works in {folder}\n"
            out, err = first.communicate("go on\n" * 2, timeout=30)
            assert "preparing tiny: 6 of 6 images" in err
            assert second.communicate(timeout=30) == (out.splitlines(keepends=True)[-1], "")


def test_killed_build_is_never_taken_for_built(tmp_path):
    process = start_tiny(tmp_path, "wait")
    assert process.stdout.readline() == "drawing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert list(tmp_path.rglob("incomplete.*"))
    assert not list(tmp_path.rglob("1.0.0"))
    out, _ = start_tiny(tmp_path).communicate(timeout=30)
    assert out.endswith("[b'train0', b'train1', b'train2'] (4, 5)\n")
    assert not list(tmp_path.rglob("incomplete.*"))


def test_without_locks_the_first_to_finish_wins(tree, monkeypatch):
    monkeypatch.setattr(builder_module, "lock_file", lambda file: nullcontext(False))
    slow, fast = (make_builder(tree) for _ in range(2))
    list_shards = slow._shard_iterators_per_split

    def list_shards_late(dl_manager):
        fast.build()
        return list_shards(dl_manager)

    monkeypatch.setattr(slow, "_shard_iterators_per_split", list_shards_late)
    slow.build()
    assert [record["name"] for record in open_records(slow.data_dir, ("image",), "train")] == [b"a", b"b", b"c"]
    assert slow.max_size == (6, 9)
    assert not list((tree.parent / "cache").rglob("incomplete.*"))


def test_cache_that_cannot_be_written(tree):
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\).*--data\.cache"):
        datasets.prepare("folder", tree, tree / "classes.txt")


def test_no_room_for_the_records(tree):
    code = f"""if True:
        import resource
        from fcn_jax import errors
        from fcn_jax.data import dataset as datasets
        resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))
        try:
            datasets.prepare("folder", {str(tree)!r}, {str(tree.parent / "cache")!r})
        except errors.InputError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert " cannot be written (" in done.stdout
    assert "--data.cache" in done.stdout
    assert prepare(tree).splits == {"train": 3, "val": 1}


def test_no_tensorflow_no_output_of_others_and_no_temporary_files(tree, tmp_path):
    (tmp_path / "tmp").mkdir()
    code = f"""if True:
        import sys
        from fcn_jax.data import dataset as datasets
        slow = [m for m in ("tensorflow_datasets", "array_record") if m in sys.modules]
        data = datasets.prepare("folder", {str(tree)!r}, {str(tmp_path / "cache")!r})
        list(data.source("train"))
        data.source("val")[0]
        print(slow, [m for m in ("tensorflow", "cv2") if m in sys.modules])
    """
    command, variables = [sys.executable, "-W", "error", "-c", code], {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    for lines in (["preparing folder: 0 of 4 images", "preparing folder: 4 of 4 images"], []):
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
        assert done.stdout == "[] []\n"
        assert done.stderr.splitlines() == lines
        assert not list((tmp_path / "tmp").iterdir())
