"""The archive of PASCAL VOC, as `data prepare voc2012 --dir ARCHIVE` unpacks it."""

import io
import random
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from faults.harness import Surface
from faults.mutations import damage

from fcn_jax.data.sources.source import Request
from fcn_jax.data.sources.voc import find

ROOT = "VOCdevkit/VOC2012"
FILES = {
    "ImageSets/Segmentation/train.txt": b"a\n",
    "ImageSets/Segmentation/val.txt": b"/JPEGImages/b.jpg /SegmentationClass/b.png\n",
    "JPEGImages/a.jpg": b"image a",
    "JPEGImages/b.jpg": b"image b",
    "SegmentationClass/a.png": b"mask a",
    "SegmentationClass/b.png": b"mask b",
}
KINDS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE,
         tarfile.REGTYPE, tarfile.GNUTYPE_SPARSE, tarfile.CONTTYPE, b"z")  # fmt: skip
PLACES = ("../../outside", "/tmp/outside", f"{ROOT}/SegmentationClass/../../../../outside", "..", "", "\0", "x" * 300,
          f"{ROOT}/SegmentationClass/a.png", f"{ROOT}/SegmentationClass", f"{ROOT}/ImageSets/Segmentation/train.txt",
          f"{ROOT}/ImageSets/Segmentation/../../../outside.txt", f"{ROOT}/SegmentationClass/\udcff.png")  # fmt: skip


def pack(kind: int, extra: Sequence[tarfile.TarInfo] = (), **options: dict[str, str]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind, **options) as tar:
        for name, data in FILES.items():
            member = tarfile.TarInfo(f"{ROOT}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in extra:
            tar.addfile(member, io.BytesIO(bytes(max(member.size, 0))))
    return file.getvalue()


def pack_hostile(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Damage an archive, or add links, devices, other folders, names that are there already, and odd headers."""
    if rng.random() < 0.5:
        return damage(data, rng, others)
    members = []
    for _ in range(rng.choice((1, 1, 2))):
        member = tarfile.TarInfo(rng.choice(PLACES))
        member.type, member.linkname = rng.choice(KINDS), rng.choice(PLACES)
        member.mode = rng.choice((0, 0o777, 0o7777, 0o644))
        member.size = rng.choice((0, 0, 5)) if member.type == tarfile.REGTYPE else 0
        name, value = rng.choice(("size", "mtime", "path", "GNU.sparse.map", "uid")), rng.choice(("-1", "nan", "1e400",
                                  "9" * 30, "x", "0,5,9", *PLACES))  # fmt: skip
        if rng.random() < 0.4 and "\0" not in value and "\udcff" not in value:
            member.pax_headers = {name: value}
        members.append(member)
    return pack(tarfile.PAX_FORMAT, members)


def prepare(file: Path) -> None:
    """Unpack the archive into a cache beside it."""
    cache = file.parent / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    find(Request(dir=file, cache=cache))


SURFACES = [
    Surface("archive of VOC", [pack(kind) for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)],
            prepare, pack_hostile, "voc.tar"),
]  # fmt: skip
