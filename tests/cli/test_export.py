"""`fcn-jax export`, and the examples in the README that it writes."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fcn_jax.weights.read import read_weights

# As on a machine without these packages: their import fails.
WITHOUT = "import sys\nsys.modules.update(dict.fromkeys({names!r}.split()))\n"


@pytest.mark.slow
def test_the_examples_of_the_readme_run_without_this_package(place, undisturbed):
    folder, _ = undisturbed
    output = place.run("export", folder.name, "--out", "exported", "--count", "1")
    assert re.search(r"model.onnx: equal on 3 images: 0 of [\d,]+ pixels have another class; mean IU 0\.\d+", output)
    exported = place.root / "exported"
    image = next((place.root / "data" / "images" / "tiny").iterdir())
    Image.open(image).convert("RGB").save(exported / "photo.jpg", quality=100, subsampling=0)
    codes = re.findall(r"`(model\.\w+)`:\n\n```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)
    names = [name for name, _ in codes]
    assert names == ["model.onnx", "model.stablehlo", "model.safetensors"]
    printed = {}
    for name, code in codes:
        missing = "fcn_jax flax" if name == "model.stablehlo" else "fcn_jax flax jax"
        words = [sys.executable, "-c", WITHOUT.format(names=missing) + code]
        process = subprocess.run(
            words, cwd=exported, env=place.environment, capture_output=True, text=True, check=False, timeout=100
        )
        assert process.returncode == 0, process.stderr
        printed[name] = process.stdout.split("\n")
    place.run("predict", folder.name, exported / "photo.jpg", "--out", "predicted")
    with Image.open(place.root / "predicted" / "photo.png") as mask:
        class_map = np.asarray(mask)
    shares = [(index, (class_map == index).mean()) for index in np.unique(class_map)]
    assert printed["model.onnx"][:-1] == [f"{('ground', 'thing')[index]} {share}" for index, share in shares]
    assert printed["model.stablehlo"][:-1] == [f"{index} {share}" for index, share in shares]
    assert "params/backbone/conv1/kernel (7, 7, 3, 64)" in printed["model.safetensors"]
    # The weights are a file to train on from.
    assert read_weights(exported / "model.safetensors").class_names == ("ground", "thing")


@pytest.mark.slow
def test_images_of_ones_own_and_mistakes(place, undisturbed):
    folder, _ = undisturbed
    image = next((place.root / "data" / "images" / "tiny").iterdir())
    words = ("export", folder.name, "--out", "of-images", "--formats", "stablehlo")
    output = place.run(*words, "--images", image)
    assert "model.stablehlo: equal on 3 images" in output
    assert "| no labels | no labels |" in (place.root / "of-images" / "README.md").read_text()
    assert "mean IU" not in output
    assert "of-images is there already; give a new folder" in place.run(*words, code=2)
    elsewhere = place.root / "elsewhere"
    shutil.copytree(folder, elsewhere)
    config = elsewhere / "config.json"
    config.write_text(config.read_text().replace(f"{place.root / 'data'}", f"{place.root / 'gone'}"))
    output = place.run("export", "elsewhere", "--out", "of-elsewhere", code=2)
    assert re.search(r"images that the run was scored on cannot be read: .*gone.*--images FILES", output)
    assert "count is 0; it must be at least 1" in place.run(*words, "--count", "0", code=2)
