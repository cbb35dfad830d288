"""The image files of a split, with labels or without, for what needs no labels."""

from pathlib import Path

from fcn_jax.data.sources.source import Files, Found, Outlined
from fcn_jax.errors import InputError


def list_images(name: str, found: Found, split: str) -> list[Path]:
    """List the image files of a split in its order, each once.

    Args:
        name: the name of the data set, for messages.
        found: its examples, and its images without labels.
        split: the split.

    Raises:
        InputError: there is no such split, its images are not files of their own, or some of them are not there.
    """
    if split in found.unlabelled:
        images = list(found.unlabelled[split])
    elif split in found.splits:
        examples = [example for example in found.splits[split] if isinstance(example, Files | Outlined)]
        images = [example.image for example in examples]
        if len(images) < len(found.splits[split]):
            raise InputError(
                f"the images of {name} are no files of their own, so its split {split!r} cannot be segmented; name "
                "image files instead of a split"
            )
    else:
        known = ", ".join((*found.splits, *found.unlabelled))
        raise InputError(f"{name} has no split {split!r} here; it has {known}: give one of them, or another --data.dir")
    missing = [image for image in images if not image.is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(images)} images of {name} {split} are not there, the first is {missing[0]}; "
            "unpack the archive with them into the same folder, or give another --data.dir"
        )
    return list(dict.fromkeys(images))
