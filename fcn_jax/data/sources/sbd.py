"""SBD, the Semantic Boundaries Dataset: the images that the reference trains on, with SBD's own masks."""

import re

from fcn_jax.data.sources import voc
from fcn_jax.data.sources.archive import Archive, fetch_unpacked
from fcn_jax.data.sources.sbd_layout import LAYOUT, find_sbd, list_sbd
from fcn_jax.data.sources.source import DataSource, Found, Outline, Request
from fcn_jax.errors import InputError

# Address and checksum are torchvision's (prototype/datasets/_builtin/sbd.py).
ARCHIVE = Archive(
    "benchmark.tgz",
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    "6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",
)
_WANTED = re.compile(r"benchmark_RELEASE/dataset/((img/[^/]+\.jpg)|(cls/[^/]+\.mat)|(train|val)\.txt)")


def find(request: Request) -> Found:
    """Find SBD's splits train and val, and seg11valid if VOC 2012 is in the same folder and its list can be made.

    The reference trains on train and scores on seg11valid (its data/pascal/README.md), which has VOC's masks. Without
    `request.dir` the archive is downloaded, and unpacked into the cache.

    Raises:
        InputError: SBD is not in the folder, or cannot be downloaded or unpacked.
    """
    dir = request.dir or fetch_unpacked("sbd", (ARCHIVE,), request, LAYOUT, _WANTED)  # noqa: A001
    sbd = find_sbd(dir)
    if sbd is None:
        raise InputError(f"{dir} does not hold SBD; give --data.dir, which is {LAYOUT}, or a folder with it")
    splits = {split: list_sbd(sbd, split) for split in ("train", "val")}
    if (root := voc.find_unpacked(dir)) and (valid := voc.list_seg11valid(root, dir)):
        splits["seg11valid"] = valid
    return Found(voc.CLASS_NAMES, splits)


SOURCE = DataSource(
    name="sbd",
    size="11,355 images (8,498 train, 2,857 val); 1.4 GB",
    licence="photographs from flickr, under flickr's terms of use",
    description="SBD's masks of VOC: --data.dir benchmark_RELEASE; seg11valid if VOC 2012 and 2011 are beside it; "
    "downloaded without --data.dir",
    defaults=voc.SOURCE.defaults,  # the same images
    find=find,
    outline=Outline((len(voc.CLASS_NAMES),), ("train", "val"), ("seg11valid",), max_size=voc.MAX_SIZE),
)
