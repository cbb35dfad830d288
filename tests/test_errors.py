"""The texts of errors."""

from fcn_jax.errors import InputError, suggest_nearest


def give():
    pass


def test_addresses_of_objects_are_left_out():
    for text, shown in (
        ("a.png (what is <_io.BytesIO object at 0x7f7d37b58310>): save it", "a.png (what is <_io.BytesIO>): save it"),
        (f"a.npy ({object()} and {memoryview(b'')}, {give})", "a.npy (<object> and <memory>, <function give>)"),
        ("<tifffile.TiffTag 0 @94>, at 0x12, 30x20 pixels", "<tifffile.TiffTag 0 @94>, at 0x12, 30x20 pixels"),
    ):
        assert str(InputError(text)) == shown


def test_the_nearest_name_is_suggested():
    assert suggest_nearest("fcn8", ["fcn32s", "fcn8s"]) == "; did you mean 'fcn8s'?"
    assert suggest_nearest("xyz", ["fcn32s", "fcn8s"]) == ""
