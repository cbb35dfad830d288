"""Find which results of an interrupted prediction can be kept.

The folder of results has `predict.json`, which says what they are made by: the network, what changes the files, and the
files of each image with their sizes and times. A result is kept if it is of the same files, and newer than
`predict.json`. So another network or another flag makes all anew.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fcn_jax.errors import InputError
from fcn_jax.inference.outputs import Outputs
from fcn_jax.inference.tta import Views
from fcn_jax.runtime.files import replace_atomically
from fcn_jax.runtime.json_values import parse_json, to_json

MADE_BY = "predict.json"


class Origin(NamedTuple):
    """What results are made by.

    Attributes:
        network: the network and what changes the files, as JSON values (`describe_network`).
        images: for the stem of each image its files (`list_sources`); None: not known.
        kinds: names of all results that were made in the folder so far, with * for the stem. Only files of such names
            are replaced. It is read from the folder, and empty in an origin to be written.
    """

    network: dict[str, Any]
    images: Mapping[str, Sequence[Any]] | None
    kinds: Sequence[str] = ()


def describe_network(model: Any, step: int, variables: Any, views: Views | None, outputs: Outputs) -> dict[str, Any]:
    """Describe the network and what changes the files, as JSON values.

    Args:
        model: the run's `ModelConfig`.
        step: the checkpoint.
        variables: parameters and batch statistics, which are described by their SHA-256 checksum.
        views: the views of each image.
        outputs: what is written for each image.
    """
    checksum = hashlib.sha256()
    for array in jax.tree.leaves(variables):
        checksum.update(np.ravel(array).data)
    looks = {
        "palette": outputs.palette.tolist(),
        "class_names": list(outputs.class_names),
        "values": None if outputs.values is None else outputs.values.tolist(),
        "alpha": outputs.alpha,
        "legend": outputs.legend,
        "probabilities": outputs.probabilities,
    }
    if outputs.others:
        looks["others"] = to_json((outputs.others, outputs.other_values))
    return {
        "step": step,
        "variables": checksum.hexdigest(),
        "views": to_json(views),
        "outputs": looks,
        "model": to_json(model),
    }


def list_sources(files: Mapping[Path, Sequence[Path]]) -> dict[str, list[list[str | int]]]:
    """Return for the stem of each image its files: its own, and those of further inputs.

    Each has its full name, its size in bytes and its time in nanoseconds, or its name alone if it is gone.
    """
    return {file.stem: [_describe_file(source) for source in sources] for file, sources in files.items()}


def _describe_file(file: Path) -> list[str | int]:
    try:
        stat = file.stat()
    except OSError:  # it is reported when it is read
        return [str(file.resolve())]
    return [str(file.resolve()), stat.st_size, stat.st_mtime_ns]


def write_origin(origin: Origin, out: Path, outputs: Outputs, keep: bool) -> None:
    """Write what the results in a folder are made by, before they are made.

    Args:
        origin: what they are made by; its images are known.
        out: the folder.
        outputs: what is written for each image.
        keep: whether results there that are of this origin, those of other images too, may be kept. If not, or if they
            are of another, all become older than the origin, and so are made anew. Results that another image of the
            same stem has left are removed in any case.

    Raises:
        InputError: a result would overwrite a file that is no result.
    """
    before, images = _read_origin(out), origin.images or {}
    if before.network and "variables" not in before.network:
        raise _refuse(out / MADE_BY)
    kinds = [*outputs.name_files("*"), *outputs.name_summaries()]
    if before.images is not None:
        for name in _list_names_of_others(before, images, outputs):
            if (out / name).exists():
                raise _refuse(out / name)
    known = before.images or {}
    for stem in [stem for stem, sources in images.items() if known.get(stem, sources) != sources]:
        for name in outputs.name_files(stem):
            (out / name).unlink(missing_ok=True)
    began = (out / MADE_BY).stat() if keep and _is_same_network(before, origin) else None
    with replace_atomically(out / MADE_BY) as temporary:
        stored = {**origin.network, "images": {**known, **images}, "kinds": sorted({*before.kinds, *kinds})}
        temporary.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
        if began:
            os.utime(temporary, ns=(began.st_atime_ns, began.st_mtime_ns))


def find_done(files: Sequence[Path], out: Path, outputs: Outputs, origin: Origin) -> list[Path]:
    """Find the images whose results in a folder are complete, and of this origin."""
    before, images = _read_origin(out), origin.images or {}
    if not _is_same_network(before, origin):
        return []
    known, began = before.images or {}, (out / MADE_BY).stat().st_mtime_ns

    def is_done(file: Path) -> bool:
        if known.get(file.stem) != images[file.stem]:
            return False
        try:
            results = [(out / name).stat() for name in outputs.name_files(file.stem)]
        except OSError:
            return False
        # A crash of the machine may leave files empty.
        return all(result.st_size and result.st_mtime_ns > began for result in results)

    return [file for file in files if is_done(file)]


def _is_same_network(before: Origin, origin: Origin) -> bool:
    return before.images is not None and before.network == json.loads(json.dumps(origin.network))


def _read_origin(out: Path) -> Origin:
    """Read what the results in a folder are made by. Without the file no image is known; if it is damaged, none is."""
    try:
        stored = parse_json((out / MADE_BY).read_text(encoding="utf-8"))
        images, kinds = stored.pop("images", None), stored.pop("kinds", None)
        if not isinstance(images, dict) or not isinstance(kinds, list):  # older versions lack one or both
            return Origin(stored, None)
        return Origin(stored, images, kinds)
    except FileNotFoundError:
        return Origin({}, {})
    except (OSError, ValueError, AttributeError, TypeError):
        return Origin({}, None)


def _list_names_of_others(before: Origin, images: Iterable[str], outputs: Outputs) -> Iterator[str]:
    """Yield the names of coming results that no result had before. A file that has such a name is not ours."""
    known = before.images or {}
    for stem in images:
        for kind, name in zip(outputs.name_files("*"), outputs.name_files(stem), strict=True):
            if stem not in known or kind not in before.kinds:
                yield name
    yield from (name for name in outputs.name_summaries() if name not in before.kinds)


def _refuse(file: Path) -> InputError:
    return InputError(
        f"{file} is there already, and is no result of fcn-jax predict; give another --out, or move it away"
    )
