"""The tutorial and the notebook, run as a newcomer runs them."""

import os
import re
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROJECT = Path(__file__).parents[1]
VOC = PROJECT.parent / "shared" / "data" / "VOCdevkit" / "VOC2012"
CAT, DOG, VOID = 8, 12, 255  # labels of VOC
COLOURS = {"background": (0, 0, 0), "cat": (250, 50, 83), "dog": (51, 221, 255)}


def write_cvat_export(folder: Path, count: int) -> list[str]:
    """Write photographs of cats and dogs as CVAT exports them in the format "Segmentation mask 1.1"."""
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    names = []
    for file in sorted((VOC / "SegmentationClass").glob("*.png")):
        label = np.array(Image.open(file))
        cats, dogs = label == CAT, label == DOG
        if len(names) == count or (cats | dogs).mean() < 0.1:
            continue
        mask = np.zeros((*label.shape, 3), np.uint8)
        mask[cats], mask[dogs] = COLOURS["cat"], COLOURS["dog"]
        Image.fromarray(mask).save(folder / "SegmentationClass" / file.name)
        photograph = VOC / "JPEGImages" / f"{file.stem}.jpg"
        (folder / "JPEGImages" / photograph.name).write_bytes(photograph.read_bytes())
        names.append(file.stem)
    (folder / "ImageSets" / "Segmentation" / "default.txt").write_text("\n".join(names) + "\n")
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in COLOURS.items()]
    (folder / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", *lines]) + "\n")
    return names


@pytest.mark.slow
def test_a_newcomer_follows_the_tutorial(tmp_path):
    """In a new clone, with labelled photographs: every command but that of torchvision's weights."""
    if not VOC.is_dir():
        pytest.skip(f"{VOC} is missing: a part of PASCAL VOC 2012")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", PROJECT, clone], check=True)
    names = write_cvat_export(clone / "photos", count=20)
    blocks = re.findall(r"^```bash\n(.*?)^```", (clone / "docs" / "tutorial.md").read_text(), re.DOTALL | re.MULTILINE)
    commands = [block for block in blocks if "--model.weights imagenet" not in block]  # needs torchvision's server
    assert len(commands) == len(blocks) - 1 == 5
    ours = ("FCN_", "JAX_", "PYTHON", "VIRTUAL_ENV", "XLA_")  # what the tests set is not a newcomer's
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    env["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    before = "source .venv/bin/activate\n"
    for place, block in enumerate(commands):
        began = time.monotonic()
        script = block if place == 0 else before + block
        subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=clone, env=env, check=True, timeout=1500)
        print(f"{time.monotonic() - began:.0f} s: {block.splitlines()[0]}")

    assert sorted(file.stem for file in (clone / "segmented").glob("*.png") if "overlay" not in file.name) == names
    for file in ("first.png", "check.html", "runs/first/report.html", "runs/photos/report.html", "shipped/model.onnx"):
        assert (clone / file).stat().st_size > 10_000, file
    found = wrong = 0
    for name in names:
        predicted = np.array(Image.open(clone / "segmented" / f"{name}.png"))
        truth = np.array(Image.open(VOC / "SegmentationClass" / f"{name}.png"))
        animal = (truth == CAT) | (truth == DOG)
        found += (predicted[animal] > 0).sum() / max(animal.sum(), 1)
        wrong += (predicted[truth == 0] > 0).mean()
    print(f"{found / len(names):.0%} of the animals' pixels found, {wrong / len(names):.0%} of the background wrong")
    assert found / len(names) > 0.5 > 0.25 > wrong / len(names)


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(PROJECT / "docs" / "first_steps.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    code = f"import sys; sys.path.insert(0, {str(PROJECT)!r})"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(code))
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 2
