import numpy as np
import pytest

from fcn_jax.data.labels import palette


def test_palette_by_its_definition():
    def bit(number, k):
        return number >> k & 1

    def colour(number):
        red = green = blue = 0
        for j in range(8):
            red |= bit(number, 0) << (7 - j)
            green |= bit(number, 1) << (7 - j)
            blue |= bit(number, 2) << (7 - j)
            number >>= 3
        return red, green, blue

    assert palette(256).tolist() == [list(colour(i)) for i in range(256)]
    assert palette(256).dtype == np.uint8
    np.testing.assert_array_equal(palette(5), palette(256)[:5])
    assert palette(0).shape == (0, 3)


@pytest.mark.parametrize("number", [-1, 257])
def test_palette_has_at_most_256_colours(number):
    with pytest.raises(ValueError, match=f"num_classes is {number}"):
        palette(number)
