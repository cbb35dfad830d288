"""Files of class names and colours, in the forms that tools write."""

import pytest

from fcn_jax.data.sources.class_file import read_classes
from fcn_jax.errors import InputError


def read(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text, encoding="utf-8")
    return read_classes(tmp_path / "classes.txt")


def test_names(tmp_path):
    assert read(tmp_path, "\ufeffearth\r\ntree top\r\nsea\r\n\r\n") == (("earth", "tree top", "sea"), None)


def test_label_map_of_cvat(tmp_path):
    text = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0:head,tail:\ndog:0,128,0::walk\n"
    assert read(tmp_path, text) == (("background", "cat", "dog"), ((0, 0, 0), (128, 0, 0), (0, 128, 0)))


def test_table_of_colours(tmp_path):
    assert read(tmp_path, "name, r, g, b\nroad, 128, 64, 128\nsky,0,0,255\n") == (
        ("road", "sky"),
        ((128, 64, 128), (0, 0, 255)),
    )


def test_class_names_of_labelme(tmp_path):
    assert read(tmp_path, "__ignore__\n_background_\naeroplane\n").names == ("_background_", "aeroplane")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has 0 class names"),
        ("__ignore__\n", "has 0 class names"),
        ("\n".join(f"c{i}" for i in range(256)), "has 256 class names"),
        ("a\n\nb\n", "line 2 of .* is ''"),
        ("a\nb\na\n", "line 3 of .* is 'a'"),
        ("caf\u00e9\ncafe\u0301\n", "line 2 of .* is 'caf\u00e9'"),
        ("name,r,g,b\na,1,2,3\na,4,5,6", "line 3 of .* is 'a'"),
        ("a,1,2,3\nb,1,2,3", r"line 2 of .* has the colour \(1, 2, 3\)"),
        ("a,1,2,256", r"line 1 of .* has the colour \(1, 2, 256\)"),
        ("a,1,2,3\nb,123456789,2,3", r"line 2 of .* has the colour \(123456789, 2, 3\)"),
        (f"a,{'1' * 5000},2,3\na,{'1' * 5000},2,3", "line 2 of .* blank or used before"),
        ("a\nb:1,2,3::", "line 2 of .* has a colour, and other lines have none"),
    ],
)
def test_files_that_are_wrong(tmp_path, text, says):
    with pytest.raises(InputError, match=says):
        read(tmp_path, text)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read from .*/none.txt \(.*No such file"):
        read_classes(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"for\xeat\n")
    with pytest.raises(InputError, match=r"cannot be read from .*/latin.txt \(.*codec"):
        read_classes(tmp_path / "latin.txt")
