"""The table of data sets. Each data set has a file in this folder and an entry in `SOURCES`."""

from fcn_jax.data.sources import camvid, folder, shapes, voc, voc_layout
from fcn_jax.data.sources.source import DataSource
from fcn_jax.errors import InputError, suggest_nearest

SOURCES: dict[str, DataSource] = {
    "shapes": shapes.SOURCE,
    "voc2012": voc.SOURCE,
    "camvid": camvid.SOURCE,
    "folder": folder.SOURCE,
    "voc": voc_layout.SOURCE,
}


def get_source(name: str) -> DataSource:
    """Return a data set by its name.

    Raises:
        InputError: there is no such data set; the text names the nearest one.
    """
    if name not in SOURCES:
        nearest = suggest_nearest(name, SOURCES) or ";"
        raise InputError(
            f"there is no data set {name!r}{nearest} there are {', '.join(SOURCES)}; folder and voc are for images of "
            "your own"
        )
    return SOURCES[name]


def describe_sources() -> str:
    """Format the table of data sets: name, splits, number of classes, defaults of a training, and where to get it."""
    rows = [("name", "splits", "classes", "trained by default for", "what and where")]
    for source in SOURCES.values():
        wants = source.defaults
        defaults = f"{wants.steps} steps of {wants.batch_size} crops of {wants.crop}, rate {wants.learning_rate:g}"
        rows.append((source.name, source.splits, source.classes, defaults, source.description))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
