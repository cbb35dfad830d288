import pytest
from drawn import mask, picture, save

from fcn_jax.data.sources.listing import list_files, pair_files, read_list
from fcn_jax.errors import InputError


def names(files):
    return [(example.name, example.image.name, example.mask.name) for example in files]


def test_pairs_by_stem_in_order(tmp_path):
    for stem, suffix in (("b", "jpg"), ("a", "PNG")):
        save(picture(), tmp_path / f"images/{stem}.{suffix}")
        save(mask(), tmp_path / f"labels/{stem}.png")
    assert names(pair_files(tmp_path / "images", tmp_path / "labels")) == [
        ("a", "a.PNG", "a.png"),
        ("b", "b.jpg", "b.png"),
    ]


def test_a_missing_partner_gets_a_name(tmp_path):
    save(picture(), tmp_path / "images/a.bmp")
    save(mask(), tmp_path / "labels/b.png")
    assert names(pair_files(tmp_path / "images", tmp_path / "labels")) == [
        ("a", "a.bmp", "a.png"),
        ("b", "b.bmp", "b.png"),
    ]


def test_files_that_are_no_pictures_are_counted_or_are_the_partner_of_one(tmp_path, capsys):
    for stem in "ab":
        save(picture(), tmp_path / f"images/{stem}.jpg")
        save(mask(), tmp_path / f"labels/{stem}.png")
    save(mask(), tmp_path / "labels/c.png")
    for name in ("images/c.heic", "images/d.heic", "images/deep/e.HEIC", "labels/a.json", "labels/Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert names(pair_files(tmp_path / "images", tmp_path / "labels")) == [
        ("a", "a.jpg", "a.png"),
        ("b", "b.jpg", "b.png"),
        ("c", "c.heic", "c.png"),
    ]
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {tmp_path}/images: left out are 2 files of kinds that cannot be read: .heic (2)",
        f"warning: {tmp_path}/labels: left out are 1 file of kinds that cannot be read: .json (1)",
    ]


def test_every_pair_of_a_stem_is_listed(tmp_path):
    for suffix in ("jpg", "png"):
        save(picture(), tmp_path / f"images/a.{suffix}")
    save(mask(), tmp_path / "labels/a.png")
    assert [image for _, image, _ in names(pair_files(tmp_path / "images", tmp_path / "labels"))] == ["a.jpg", "a.png"]


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"  # which look alike; macOS writes the second


def test_names_that_differ_in_their_unicode_form_are_a_pair(tmp_path):
    for folder, stem in (("images", f"{DECOMPOSED}/{COMPOSED}"), ("labels", f"{COMPOSED}/{DECOMPOSED}")):
        save(picture() if folder == "images" else mask(), tmp_path / folder / f"{stem}.png")
    (example,) = pair_files(tmp_path / "images", tmp_path / "labels")
    assert example.name == f"{COMPOSED}/{COMPOSED}"
    if not (tmp_path / "images" / COMPOSED).exists():  # as on systems that keep the form
        assert example.image == tmp_path / "images" / DECOMPOSED / f"{COMPOSED}.png"
        assert example.mask == tmp_path / "labels" / COMPOSED / f"{DECOMPOSED}.png"


def test_names_of_one_folder_that_look_alike_are_refused(tmp_path):
    for name in (f"{COMPOSED}.png", f"{DECOMPOSED}.jpg"):
        save(picture(), tmp_path / "images" / name)
    if len(list((tmp_path / "images").iterdir())) == 1:
        pytest.skip("this file system takes both names for one")
    with pytest.raises(InputError) as refused:
        pair_files(tmp_path / "images", tmp_path / "labels")
    assert str(refused.value).startswith(r"'cafe\u0301.jpg' and 'caf\xe9.png' in ")
    assert "differ in their Unicode form only" in str(refused.value)


def test_other_files_are_skipped_and_broken_links_are_not(tmp_path):
    save(mask(), tmp_path / "labels/a.png")
    (tmp_path / "images/folder.png").mkdir(parents=True)
    for name in ("Thumbs.db", ".DS_Store", "notes.txt", "._a.png"):
        (tmp_path / "images" / name).write_text("x")
    (tmp_path / "images/a.png").symlink_to(tmp_path / "gone.png")
    assert names(pair_files(tmp_path / "images", tmp_path / "labels")) == [("a", "a.png", "a.png")]


def test_words_of_lines(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("\ufeff2007_1 1\n\n  2007_2  -1 x\n", encoding="utf-8")
    assert read_list(file) == [["2007_1", "1"], ["2007_2", "-1", "x"]]


def test_a_list_that_cannot_be_read(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"2007_\xff\n")
    (tmp_path / "wide.txt").write_bytes("2007_000032\n".encode("utf-16-le"))
    for name in ("list.txt", "none.txt", "wide.txt"):
        with pytest.raises(InputError, match=rf"{name} cannot be read"):
            read_list(tmp_path / name)


def test_a_name_that_is_not_utf8(tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "images").mkdir()
    try:
        (tmp_path / "images" / "\udcff.png").write_bytes(b"")
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(InputError, match=r"'\\udcff\.png' in .*images is a name that is not UTF-8; rename the file"):
        pair_files(tmp_path / "images", tmp_path / "masks")


def test_files_behind_links_are_listed_and_circles_end(tmp_path):
    save(picture(), tmp_path / "other/b.png")
    save(picture(), tmp_path / "images/a.png")
    save(picture(), tmp_path / "images/.hidden/c.png")
    (tmp_path / "images" / "more").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "images")
    (tmp_path / "images" / "gone.png").symlink_to("nothing")
    found = [file.relative_to(tmp_path / "images").as_posix() for file in list_files(tmp_path / "images")]
    assert found == ["a.png", "gone.png", "more/b.png"]
    assert list_files(tmp_path / "none") == []


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def refuse(place):
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\); change its permissions"):
        list_files(tmp_path)
