"""Oxford-IIIT Pet, cats and dogs of 37 breeds: the pet and the background (Parkhi et al., CVPR 2012).

TensorFlow Datasets has a builder of this name. It downloads the files itself, and needs TensorFlow to decode twelve of
the images anew. So the official files are read here.
"""

import re

from fcn_jax.data.label_map import LabelMap
from fcn_jax.data.sources.archive import Archive, fetch_unpacked
from fcn_jax.data.sources.listing import read_list
from fcn_jax.data.sources.source import DataSource, Defaults, Files, Found, Outline, Request
from fcn_jax.errors import InputError

LAYOUT = (
    "a folder with images/*.jpg, annotations/trimaps/*.png and annotations/{trainval,test}.txt; get images.tar.gz and "
    "annotations.tar.gz from www.robots.ox.ac.uk/~vgg/data/pets and unpack both into one folder"
)
LISTS = {"train": "trainval", "test": "test"}
# annotations/README: 1 is the foreground, 2 the background, and 3 a border that is not classified.
LABEL_MAP = LabelMap(void=(3,), numbers=((2, 0), (1, 1)))

_SERVER = "https://thor.robots.ox.ac.uk/~vgg/data/pets"
ARCHIVES = (
    Archive(
        "oxford_iiit_pet-annotations.tar.gz",
        f"{_SERVER}/annotations.tar.gz",
        "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
        19_173_078,
    ),
    Archive(
        "oxford_iiit_pet-images.tar.gz",
        f"{_SERVER}/images.tar.gz",
        "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
        791_918_971,
    ),
)
_WANTED = re.compile(r"(\./)?(images/[^/.]+\.jpg|annotations/(trimaps/[^/.]+\.png|(trainval|test)\.txt))")


def find(request: Request) -> Found:
    """Find the official splits trainval, as train, and test, if their lists exist. Examples are in the lists' order.

    Without `request.dir` the archives are downloaded, and unpacked into the cache.

    Raises:
        InputError: the folder has none of the lists, or the archives cannot be downloaded or unpacked.
    """
    dir = request.dir or fetch_unpacked("oxford_iiit_pet", ARCHIVES, request, LAYOUT, _WANTED)  # noqa: A001
    notes = dir / "annotations"
    # A line has a name and the numbers of class, species and breed.
    splits = {
        split: [
            Files(name, dir / "images" / f"{name}.jpg", notes / "trimaps" / f"{name}.png")
            for name, *_ in read_list(notes / f"{list_}.txt")
        ]
        for split, list_ in LISTS.items()
        if (notes / f"{list_}.txt").is_file()
    }
    if not splits:
        raise InputError(f"{dir} does not hold Oxford-IIIT Pet; give --data.dir, which is {LAYOUT}")
    return Found(("background", "pet"), splits, LABEL_MAP)


SOURCE = DataSource(
    name="oxford_iiit_pet",
    size="7,349 images (3,680 train, 3,669 test); 0.8 GB",
    licence="CC BY-SA 4.0, by its authors",
    description="Oxford-IIIT Pet, pet and background: --data.dir with images and annotations; downloaded without it",
    # 3680 images: 11 epochs.
    defaults=Defaults(crop=224, scale=(0.5, 2.0), steps=5_000, batch_size=8, learning_rate=0.05, eval_every=500),
    find=find,
    outline=Outline((2,), ("train", "test")),
)
