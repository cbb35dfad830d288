"""Labels of the numbers and colours of masks, against loops over the pixels."""

import numpy as np
import pytest

from fcn_jax.data.label_map import LabelMap, describe_label_map, find_values, parse_label_map
from fcn_jax.errors import InputError

NAMES = ("sky", "sea", "sand")
NUMBERS = np.arange(256, dtype=np.uint8).reshape(16, 16)


def name_classes(count):
    return tuple(f"class{label}" for label in range(count))


def look_up(entries, mask, classes=3, void=(), colours=()):
    return parse_label_map(entries, void, name_classes(classes), colours).look_up(mask, "a.png", classes)


def test_a_number_is_its_own_label():
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    assert look_up((), mask) is mask


@pytest.mark.parametrize(
    ("entries", "meaning"),
    [
        (("255=1",), {0: 0, 255: 1}),
        (("0=void", "255=0"), {0: 255, 255: 0}),
        (("0=void", "1-150=0"), {0: 255, **{number: number - 1 for number in range(1, 151)}, 255: 255}),
        (("50-100=void", "128=2"), {0: 0, 1: 1, 50: 255, 77: 255, 100: 255, 128: 2}),
    ],
)
def test_numbers(entries, meaning):
    mask = np.random.default_rng(0).choice(np.array(list(meaning), np.uint8), (5, 7))
    expected = [[meaning[int(number)] for number in row] for row in mask]
    assert look_up(entries, mask, classes=150).tolist() == expected


def test_classes_by_name():
    """Names that look alike are the same; what is a number or void is none."""
    names = ("ground", "Fl\u00e4che", "void", "0", "a=b")
    entries = ("7=Fla\u0308che", "8=ground", "9=void", "10=0", "11=a=b", "#0000ff=Fl\u00e4che")
    assert parse_label_map(entries, (), names) == LabelMap(
        (9,), ((7, 1), (8, 0), (10, 0), (11, 4)), (((0, 0, 255), 1),)
    )


def test_what_a_map_lists_is_described():
    label_map = parse_label_map(("0=void", "11-12=1", "13=sky", "#800000=sand"), (9,), NAMES)
    expected = "0 is void, 9 is void, 11 to 12 are sea to sand, 13 is sky, #800000 is sand"
    assert describe_label_map(label_map, NAMES) == expected


def test_void_flags_and_void_entries_are_the_same():
    mask = np.array([[0, 7, 9]], np.uint8)
    assert look_up((), mask, void=(7, 9)).tolist() == look_up(("7=void", "9=void"), mask).tolist() == [[0, 255, 255]]


def test_colours():
    table = ((0, 0, 0), (128, 0, 0), (128, 64, 128))
    places = np.random.default_rng(0).integers(0, 4, (600, 5))
    mask = np.array([*table, (1, 2, 3)], np.uint8)[places]
    labels = look_up(("#010203=void",), mask, colours=table)
    assert labels.dtype == np.uint8
    assert labels.tolist() == np.where(places == 3, 255, places).tolist()
    assert look_up(("#000000=2", "#010203=0"), mask, colours=table).tolist() == np.array([2, 1, 2, 0])[places].tolist()


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("255:1", "'255:1'; an entry is NUMBER=CLASS"),
        ("-1=void", "'-1=void'; an entry is"),
        ("#12345=1", "'#12345=1'; an entry is"),
        ("1=tree", "'1=tree', and no class has the name 'tree'; the classes are sky, sea, sand"),
        ("1=sandy", "'1=sandy', and no class has the name 'sandy'; did you mean 'sand'"),
        ("1=", "'1='; an entry is"),
        ("1-3=sky", "'1-3=sky'; a range leads to successive classes, so give the number .* as 1=sky"),
        ("9-3=0", "'9-3=0'; numbers go from 0 to 255, the smaller one first"),
        ("256=0", "'256=0'; numbers go from 0 to 255"),
        ("7=3", r"'7=3', which leads to class 3; the classes are 0\.\.2"),
        ("1-4=0", "which leads to class 3"),
    ],
)
def test_entries_that_are_wrong(entry, says):
    with pytest.raises(InputError, match=says):
        parse_label_map((entry,), (), NAMES)


def test_an_entry_for_the_same_value_twice():
    for entries in (("1=0", "0-2=void"), ("#0A0000=1", "#0a0000=2")):
        with pytest.raises(
            InputError, match=f"'{entries[1]}', and the same value is in an entry before or in --data.void"
        ):
            parse_label_map(entries, (), NAMES)
    with pytest.raises(InputError, match=r"'11=0', and the same value is in .* --data.void"):
        parse_label_map(("11=0",), (11,), NAMES)


def test_numbers_without_a_label():
    with pytest.raises(
        InputError, match=r"^label 3 in a.png is outside 0\.\.2 and is not 255; .*: 0=void 1-3=0 if the classes"
    ):
        look_up((), np.array([[1, 2, 3]], np.uint8))
    with pytest.raises(InputError, match=r"^labels 3, 4, 5, 6, 7 and 247 more in a.png are outside 0\.\.2"):
        look_up((), NUMBERS)


def test_colours_without_a_label():
    mask = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(InputError, match=r"has colours, and there is no table.*'#000000=0'"):
        look_up((), mask)
    mask[0, 0] = 1, 2, 3
    with pytest.raises(InputError, match=r"has a colour without a class: #010203 \(in 1 pixels\); give --data.map"):
        look_up(("#000000=0",), mask)
    mask[1:3, :, 0] = np.arange(1, 9).reshape(2, 4)
    with pytest.raises(
        InputError, match=r"has 9 colours without a class: (#\S+ \(in 1 pixels\)(, )?){5} and 4 more; so many"
    ):
        look_up(("#000000=0",), mask)


@pytest.mark.parametrize(
    ("numbers", "table", "largest", "says"),
    [
        # A black and white mask whose white is a class, in 8 bits and in one.
        ([0, 255], [(0, 0, 0), (255, 255, 255)], 255, "255 is void as a number and class 1 as the colour #ffffff"),
        ([0, 1], [(255, 255, 255), (0, 0, 0)], 1, "0 is class 0 as a number and class 1 as the colour #000000"),
        ([0, 1], [(0, 0, 0), (255, 255, 255)], 1, None),
        # Greys among other colours, as of a picture that a program has turned to grey because all its colours are.
        ([0], [(128, 128, 128), (0, 0, 0), (9, 9, 8)], 255, "0 is class 0 as a number and class 1 as the colour"),
        ([128], [(9, 9, 8), (128, 128, 128)], 255, "128 is no class as a number and class 1 as the colour #808080"),
        # Numbers: not all of them are greys of the table.
        ([0, 1, 255], [(128, 128, 128), (0, 0, 0)], 255, None),
        ([0, 2, 255], [(0, 0, 0), (128, 0, 0), (0, 128, 0)], 255, None),
        ([255], [(0, 0, 0), (128, 0, 0)], 255, None),
    ],
)
def test_a_grey_mask_beside_a_table_of_colours(numbers, table, largest, says):
    mask = np.array([numbers], np.uint8)
    label_map = parse_label_map((), (), name_classes(len(table)), table)
    if says is None:
        return label_map.require_one_meaning(mask, "a.png", len(table), largest)
    remedy = f"--data.map, as {says.split()[0]}=1"
    with pytest.raises(InputError, match=f"^mask a.png is grey.*: {says}.*{remedy}"):
        label_map.require_one_meaning(mask, "a.png", len(table), largest)
    # What the user says of numbers decides.
    given = parse_label_map([f"{number}=void" for number in numbers], (), name_classes(len(table)), table)
    return given.require_one_meaning(mask, "a.png", len(table), largest)


def test_equal_maps_are_equal():
    assert parse_label_map(("255=1",), (7,), NAMES) == LabelMap((7,), ((255, 1),))


@pytest.mark.parametrize(
    ("entries", "void", "expected"),
    [
        ((), (), [0, 1, 2]),
        (("1-3=0",), (), [1, 2, 3]),
        (("255=1", "0=void", "7=0"), (), [7, 255, 2]),
        (("5=2",), (9,), [0, 1, 5]),
    ],
)
def test_each_class_has_the_value_that_became_it(entries, void, expected):
    label_map = parse_label_map(entries, void, NAMES)
    values = find_values(label_map, 3)
    assert values.tolist() == expected
    mask = values[None]
    np.testing.assert_array_equal(label_map.look_up(mask, "a.png", 3), [[0, 1, 2]])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (("5=1", "6=1"), r"5, 6 of the run's masks became class 1, so it has no value of its own; leave out --source"),
        (("2=1",), r"no number of the run's masks became class 2"),
        (("#800000=1",), r"masks of the run's data have colours.*leave out --source-values"),
    ],
)
def test_classes_without_a_value_of_their_own_are_refused(entries, message):
    with pytest.raises(InputError, match=message):
        find_values(parse_label_map(entries, (), NAMES), 3)


def test_numbers_that_no_grey_mask_holds_are_refused():
    assert find_values(LabelMap(numbers=((255, 0), (0, 1))), 2).tolist() == [255, 0]
    with pytest.raises(InputError, match=r"256 of the run's masks became class 0, .* up to 255; leave out --source"):
        find_values(LabelMap(numbers=((256, 0), (0, 1))), 2)


def test_a_class_of_many_numbers_names_the_first():
    """As the background of PASCAL-Context, which is 400 of its 459 labels."""
    with pytest.raises(InputError, match=r"^5, 6, 7, 8, 9 and 3 more of the run's masks became class 1"):
        find_values(LabelMap(numbers=tuple((number, 1) for number in range(5, 13))), 2)
