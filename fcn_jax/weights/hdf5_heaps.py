"""A check of HDF5 files against an endless loop of the HDF5 library, which Python cannot interrupt.

Texts are kept in heaps. The library walks through the objects of a heap, and stays for ever at free space of zero bytes
(HDF5 2.0 and before). The layout is that of section III.E of the HDF5 file format specification.
"""

import mmap
import struct
from pathlib import Path

from fcn_jax.errors import InputError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
HEAP = b"GCOL\1\0\0\0"  # signature, version, reserved bytes
HEADER = struct.Struct("<HHIQ")  # of an object: its number (0 for free space), references, reserved bytes, size
EIGHT_BYTES = {0: (13, 14), 1: (13, 14), 2: (9, 10), 3: (9, 10)}  # places of the sizes of numbers, by version


def require_ending_heaps(file: Path) -> None:
    """Check that the library comes to the end of every heap of a file, if it is one of HDF5.

    Raises:
        InputError: a heap has free space of zero bytes, or the numbers of the file do not have 8 bytes.
    """
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:8] != SIGNATURE:
            return
        sizes = [content[place] for place in EIGHT_BYTES.get(content[8], ())] if len(content) > 14 else []
        if sizes != [8, 8]:
            raise InputError(f"{file} is damaged: its numbers do not have 8 bytes; download it again")
        start = content.find(HEAP)
        while start >= 0:
            _walk(content, start, file)
            start = content.find(HEAP, start + 1)


def _walk(content: mmap.mmap, start: int, file: Path) -> None:
    (size,) = struct.unpack("<Q", content[start + 8 : start + 16].ljust(8, b"\0"))
    place, end = start + 16, min(start + size, len(content))
    while place + HEADER.size <= end:
        number, _, _, length = HEADER.unpack(content[place : place + HEADER.size])
        if number == length == 0:
            raise InputError(f"{file} is damaged: byte {place} begins free space of no size; download it again")
        place += HEADER.size + (length + 7) // 8 * 8 if number else length
