"""`fcn-jax weights describe` and `fcn-jax weights import`."""

import json
import re

import pytest


@pytest.mark.slow
def test_the_weights_of_a_run_are_passed_on_and_start_another(place, undisturbed):
    folder, _ = undisturbed
    root = place.root
    (root / "names.txt").write_text("earth\nthing\n")
    output = place.run("weights", "import", folder.name, "--out", "w.safetensors", "--classes", "names.txt", "--quiet")
    assert f"{folder.name} (run, step " in output
    assert "input: InputConfig(order='rgb', mean=(123.675, 116.28, 103.53)" in output
    assert "classes: earth, thing" in output
    assert re.search(r"\d+ arrays, 11,\d+,\d+ numbers: backbone \d+, score_fr 2", output)
    assert f"written: w.safetensors, {(root / 'w.safetensors').stat().st_size / 1e6:.1f} MB" in output
    described = place.run("weights", "describe", "w.safetensors", "--quiet")
    assert "classes: earth, thing" in described
    assert described.splitlines()[1:] == output.splitlines()[1:-1]  # but for the file, which is another
    words = place.train_words("from-file", "--model.weights", "w.safetensors", "--steps", "0")
    assert "model.input.order: rgb -> bgr\n" in place.run(*words, "--model.input.order", "bgr", code=2)
    assert not (root / "from-file").exists()
    output = place.run(*words)
    assert "by class" in output
    assert "(known from before: thing; the others start at zero)" in output
    stored = json.loads((root / "from-file" / "config.json").read_text())
    assert stored["config"]["model"]["weights"] == str(root / "w.safetensors")
