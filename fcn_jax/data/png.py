"""Change PNG files chunk by chunk, without decoding their pixels."""

import io
import struct
import zlib
from collections.abc import Iterator

from PIL.PngImagePlugin import putchunk

SIGNATURE = b"\x89PNG\r\n\x1a\n"
NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # what the pixels depend on


def strip_palette(data: bytes) -> bytes:
    """Turn a whole PNG of 8-bit indices into one of grey values; the stored pixels are the same."""
    kept = io.BytesIO()
    kept.write(SIGNATURE)
    for kind, body, _ in _list_chunks(data):
        if kind == b"IHDR":
            body = body[:9] + b"\0" + body[10:]  # colour type: grey
        if kind in (b"IHDR", b"IDAT", b"IEND"):
            putchunk(kept, kind, body)
    return kept.getvalue()


def drop_damaged_chunks(data: bytes) -> tuple[bytes, list[str]]:
    """Leave out the chunks that are damaged and that the pixels do not depend on, such as EXIF and text.

    Args:
        data: a file of any kind.

    Returns:
        The file without these chunks, and their names. Files that are no PNG, or are damaged elsewhere, are unchanged.
    """
    if not data.startswith(SIGNATURE):
        return data, []
    chunks = list(_list_chunks(data))
    damaged = [kind for kind, _, is_whole in chunks if not is_whole and kind not in NEEDED]
    if not damaged:
        return data, []
    kept = io.BytesIO()
    kept.write(SIGNATURE)
    for kind, body, is_whole in chunks:
        if is_whole:
            putchunk(kept, kind, body)
        elif kind in NEEDED:
            return data, []
    return kept.getvalue(), [kind.decode("latin-1") for kind in damaged]


def _list_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield kind and content of each chunk that is not cut off, and whether its checksum is right."""
    place = len(SIGNATURE)
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + length
        if end > len(data):
            return
        body = data[place + 8 : end]
        yield kind, body, zlib.crc32(body, zlib.crc32(kind)) == int.from_bytes(data[end : end + 4], "big")
        place = end + 4
