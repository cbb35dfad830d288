"""Which files are opened as images, and what is said of others."""

import io

import numpy as np
import pytest
from drawn import picture
from PIL import Image

from fcn_jax.data.bands import read_bands
from fcn_jax.data.pictures import open_picture
from fcn_jax.data.sources.folder import BANDS
from fcn_jax.errors import InputError
from fcn_jax.inference.read_image import read_image


def encode(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture(20, 30)).save(stream, kind)
    return stream.getvalue()


NPY = io.BytesIO()
np.save(NPY, np.zeros((4, 5, 3), np.uint8))
CONTENTS = {
    "empty": b"",
    "page": b"<!DOCTYPE html><title>404</title>",
    "zeros": bytes(5000),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
    "npy": NPY.getvalue().replace(b"(4, 5, 3)", b"(4, f(3))"),
    **{f"half of a {kind}": encode(kind)[: len(encode(kind)) // 2] for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP")},
    **{f"start of a {kind}": encode(kind)[:6] for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000")},
}
READERS = {
    "image to predict": read_image,
    "image": lambda file: open_picture(file, "image"),
    "mask": lambda file: open_picture(file, "mask"),
    "bands": lambda file: read_bands(file, BANDS),
}


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", CONTENTS)
def test_an_error_names_the_file_and_no_object(tmp_path, content, reader):
    for suffix in (".png", ".npy", ".tif"):
        file = tmp_path / f"a{suffix}"
        file.write_bytes(CONTENTS[content])
        with pytest.raises(InputError) as caught:
            READERS[reader](file)
        text = str(caught.value)
        assert file.name in text
        assert "0x" not in text
        assert "BytesIO" not in text
