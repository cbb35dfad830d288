"""The command line as a user has it: whole processes, killed, stopped and resumed; real pictures."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

STEPS = 10
SMALL = [
    "--model.backbone",
    "resnet18",
    "--augment.crop",
    "32",
    "--batch-size",
    "4",
    "--steps",
    "10",
    "--eval-every",
    "5",
    "--checkpoint-every",
    "5",
    "--log-every",
    "1",
    "--data.val-split",
    "tiny",
]


@pytest.fixture(scope="session")
def places(tmp_path_factory):
    """Environment and folders of the processes: one device, one compilation cache, a small folder data set."""
    root = tmp_path_factory.mktemp("cli")
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "COLUMNS")}
    environment |= {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(root / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XDG_CACHE_HOME": str(root / "cache"),
        "PYTHONUNBUFFERED": "1",
    }
    generator = np.random.default_rng(0)
    data = root / "data"
    for split, count in (("train", 8), ("tiny", 3)):
        for kind in ("images", "labels"):
            (data / kind / split).mkdir(parents=True)
        for index in range(count):
            height, width = generator.integers(30, 50, 2)
            label = np.zeros((height, width), np.uint8)
            label[height // 3 :, : width // 2] = 1
            label[-2:] = 255
            image = np.where(label[..., None] == 1, 200, 60) + generator.integers(0, 50, (height, width, 3))
            Image.fromarray(image.astype(np.uint8)).save(data / "images" / split / f"{split}{index}.png")
            Image.fromarray(label).save(data / "labels" / split / f"{split}{index}.png")
    (data / "classes.txt").write_text("ground\nthing\n")
    return root, environment


def start(places, *words: str) -> subprocess.Popen:
    root, environment = places
    return subprocess.Popen(
        [sys.executable, "-m", "fcn_jax", *map(str, words)],
        cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def run(places, *words: str, code: int = 0) -> str:
    process = start(places, *words)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    return output


def train(places, folder: str, *more: str) -> tuple[str, ...]:
    data = ("--data.name", "folder", "--data.dir", str(places[0] / "data"))
    return ("train", "fcn8s", *data, *SMALL, "--run-dir", folder, *more)


def lines(folder: Path) -> list[dict]:
    """What a run computed, whatever it waited for its input."""
    written = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "input_wait"} for line in written]


def arrays(folder: Path, step: int) -> dict[str, np.ndarray]:
    """All that is in a checkpoint, read by Orbax without our code."""
    import jax
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(folder.absolute() / "checkpoints") as manager:
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        metadata = {name: manager.item_metadata(step)[name] for name in ("variables", "optimizer")}
        like = jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=device), metadata)
        arguments = {name: ocp.args.StandardRestore(tree) for name, tree in like.items()}
        tree = manager.restore(step, args=ocp.args.Composite(**arguments))
    leaves = jax.tree_util.tree_leaves_with_path({name: tree[name] for name in like})
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


@pytest.fixture(scope="session")
def undisturbed(places):
    output = run(places, *train(places, "undisturbed"))
    return places[0] / "undisturbed", output


def test_a_training_leaves_what_the_readme_says(undisturbed):
    folder, output = undisturbed
    stored = json.loads((folder / "config.json").read_text())
    assert stored["config"]["steps"] == STEPS
    assert stored["class_names"] == ["ground", "thing"]
    assert {"jax", "flax"} <= set(stored["versions"])
    assert [(line["step"], line["split"]) for line in lines(folder)] == [
        *((step, "train") for step in range(1, 6)), (5, "val"),
        *((step, "train") for step in range(6, 11)), (10, "val"),
    ]  # fmt: skip
    val = lines(folder)[-1]
    assert {"loss", "pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu", "per_class_iu"} <= set(val)
    assert lines(folder)[4]["loss"] < lines(folder)[0]["loss"]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir() if path.name.isdigit()) == ["10", "5"]
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
    assert "parameters" in output
    assert f"step {STEPS}/{STEPS}" in output
    assert "images/s" in output


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_and_resumed_equals_undisturbed_bit_for_bit(places, undisturbed, how):
    expected, _ = undisturbed
    folder = places[0] / f"stopped-{how.name}"
    process = start(places, *train(places, folder.name))
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        done = lines_so_far(folder)
        if done >= 8 and (folder / "checkpoints" / "5").is_dir():
            break
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    process.send_signal(how)
    output, _ = process.communicate(timeout=120)
    steps = [int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit()]
    if how == signal.SIGTERM:
        assert process.returncode == 0, output
        assert "the same command goes on" in output or max(steps) == STEPS
    else:
        assert process.returncode == -signal.SIGKILL

    again = run(places, *train(places, folder.name))
    assert f"after step {max(steps)}" in again or max(steps) == STEPS
    assert lines(folder) == lines(expected)
    left, right = arrays(folder, STEPS), arrays(expected, STEPS)
    assert left.keys() == right.keys()
    assert len(left) > 100
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)


def lines_so_far(folder: Path) -> int:
    file = folder / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


def test_a_finished_run_has_nothing_to_do(places, undisturbed):
    folder, _ = undisturbed
    before = (folder / "metrics.jsonl").read_text()
    assert "nothing to do" in run(places, *train(places, folder.name))
    assert (folder / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("flags", "difference"),
    [
        (("--seed", "1"), "seed: 0 -> 1"),
        (("--optim.learning-rate", "0.3"), "optim.learning_rate: 0.05 -> 0.3"),
        (("--batch-size", "8"), "batch_size: 4 -> 8"),
        (("--model.upsampling", "fixed"), "model.upsampling: learned -> fixed"),
        (("--steps", "20"), "steps: 10 -> 20"),
    ],
)
def test_another_configuration_is_refused_with_the_difference(places, undisturbed, flags, difference):
    folder, _ = undisturbed
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    output = run(places, *train(places, folder.name, *flags), code=2)
    assert difference in output
    assert "another --run-dir" in output
    assert "Traceback" not in output
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before


def test_eval_repeats_the_training_score(places, undisturbed):
    folder, _ = undisturbed
    best = max((line for line in lines(folder) if line["split"] == "val"), key=lambda line: line["mean_iu"])
    output = run(places, "eval", folder.name, "--split", "tiny", "--json", "scores.json", "--picture", "scores.png")
    with Image.open(places[0] / "scores.png") as picture, Image.open(places[0] / "data/images/tiny/tiny0.png") as first:
        width, height = first.size
        assert picture.size[0] >= 3 * width + 8
        np.testing.assert_array_equal(np.asarray(picture)[:height, :width], np.asarray(first))
    scores = json.loads((places[0] / "scores.json").read_text())
    assert scores["mean_iu"] == best["mean_iu"]
    assert scores["per_class_iu"] == best["per_class_iu"]
    assert (scores["step"], scores["split"]) == (best["step"], "tiny")
    assert f"step {best['step']} of {folder.name}" in output
    assert scores["num_examples"] == 3
    assert scores["num_pixels"] == sum(map(sum, scores["confusion"]))
    assert scores["class_names"] == ["ground", "thing"]
    assert f"{100 * best['mean_iu']:.2f}" in output
    assert "3 images of folder tiny" in output
    # The folder, classes and void labels of the run's own data mean nothing for other data.
    assert "camvid is not fetched" in run(places, "eval", folder.name, "--data.name", "camvid", code=2)


def test_eval_wants_the_classes_of_the_training(places, undisturbed):
    folder, _ = undisturbed
    other = places[0] / "other"
    shutil.copytree(places[0] / "data", other)
    (other / "classes.txt").write_text("ground\nthing\nsky\n")
    output = run(places, "eval", folder.name, "--split", "tiny", "--data.dir", other, code=2)
    assert f"{folder.name} was trained on the classes ground, thing, and folder has ground, thing, sky; score" in output
    assert "data with the same classes" in output
    assert "Traceback" not in output


def test_a_runs_weights_are_passed_on_and_start_another(places, undisturbed):
    folder, _ = undisturbed
    root = places[0]
    (root / "names.txt").write_text("earth\nthing\n")
    output = run(places, "weights", "import", folder.name, "--out", "w.safetensors", "--classes", "names.txt")
    assert f"{folder.name} (run, step " in output
    assert "input: InputConfig(order='rgb', mean=(123.675, 116.28, 103.53)" in output
    assert "classes: earth, thing" in output
    assert re.search(r"\d+ arrays, 11,\d+,\d+ numbers: backbone \d+, score_fr 2", output)
    words = train(places, "from-file", "--model.weights", "w.safetensors", "--steps", "1", "--eval-every", "1")
    assert "model.input.order: rgb -> bgr\n" in run(places, *words, "--model.input.order", "bgr", code=2)
    assert not (root / "from-file").exists()
    output = run(places, *words)
    assert "by class" in output
    assert "(known from before: thing; the others start at zero)" in output
    assert json.loads((root / "from-file" / "config.json").read_text())["config"]["model"]["weights"] == str(
        root / "w.safetensors"
    )


def test_weights_are_scored_without_training(places, undisturbed):
    folder, _ = undisturbed
    run(places, "weights", "import", folder.name, "--out", "same.safetensors")
    words = train(places, "scored", "--model.weights", "same.safetensors", "--steps", "0")
    assert "before any step: mean IU" in run(places, *words)
    best = max((line for line in lines(folder) if line["split"] == "val"), key=lambda line: line["mean_iu"])
    assert lines(places[0] / "scored") == [{**best, "step": 0}]
    assert "has all of its 0 steps; nothing to do" in run(places, *words)
    assert f"{100 * best['mean_iu']:.2f}" in run(places, "eval", "scored", "--split", "tiny")


@pytest.mark.slow
def test_a_staged_training_is_killed_in_each_stage_and_ends_where_an_undisturbed_one_does(places):
    def staged(folder: str) -> tuple[str, ...]:
        return train(places, folder, "--model.head", "fcn16s", "--staged")

    run(places, *staged("staged"))
    for stage in ("fcn32s", "fcn16s"):
        process = start(places, *staged("killed"))
        killed, deadline = places[0] / "killed" / stage, time.monotonic() + 240
        while not (lines_so_far(killed) >= 7 and (killed / "checkpoints" / "5").is_dir()):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.005)
        process.kill()
        process.communicate()
    output = run(places, *staged("killed"))
    assert "fcn32s has all of its 10 steps" in output
    assert re.search(r"fcn16s: goes on after step (5|10) of 10", output)
    for stage in ("fcn32s", "fcn16s"):
        killed, whole = (places[0] / name / stage for name in ("killed", "staged"))
        assert lines(killed) == lines(whole)
        left, right = arrays(killed, STEPS), arrays(whole, STEPS)
        assert left.keys() == right.keys()
        for name, value in left.items():
            np.testing.assert_array_equal(value, right[name], err_msg=name)


def test_predict_writes_masks_and_overlays_at_each_images_size(places, undisturbed):
    folder, _ = undisturbed
    root = places[0]
    images = sorted((root / "data" / "images" / "tiny").iterdir())
    run(places, "predict", folder.name, *images[:1], root / "data/images/tiny", "--out", "out")
    assert sorted(path.name for path in (root / "out").iterdir()) == sorted(
        name for image in images for name in (f"{image.stem}.png", f"{image.stem}_overlay.png")
    )
    for image in images:
        with Image.open(root / "out" / f"{image.stem}.png") as mask, Image.open(image) as photograph:
            assert mask.mode == "P"
            assert mask.size == photograph.size
            assert set(np.unique(np.asarray(mask))) <= {0, 1}
            assert mask.getpalette()[:6] == [0, 0, 0, 128, 0, 0]


def test_a_damaged_checkpoint_is_named(places, undisturbed):
    folder, _ = undisturbed
    damaged = places[0] / "damaged"
    shutil.copytree(folder, damaged)
    payload = max((damaged / "checkpoints" / "10").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(payload.read_bytes())
    content[len(content) // 2] ^= 1
    payload.write_bytes(content)
    output = run(places, "eval", "damaged", "--split", "tiny", "--step", "10", code=2)
    assert "is damaged" in output
    assert payload.name in output
    assert "Traceback" not in output
    assert "no checkpoint 7; there are: 5, 10" in run(places, "eval", "undisturbed", "--step", "7", code=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tran", "fcn8s"), "did you mean 'train'?"),
        (("train", "fcn8"), "did you mean 'fcn8s'?"),
        (("train", "fcn8s", "--data.name", "voc"), "did you mean 'voc2012'?"),
        (("eval", "nowhere"), "is not a run directory"),
        (("predict", "nowhere", "x.jpg"), "x.jpg matches no file"),
        (("data", "chek", "shapes"), "did you mean 'check'?"),
        (("train", "fcn8s", "--steps", "-2"), "fcn-jax: steps is -2"),
        (("train", "fcn8s", "--data.name", "folder", "--data.dir=~/none"), f"{Path.home()}/none does not exist"),
        (("train", "fcn8s", "--model.fc-kernel", "2"), "fcn-jax: model.fc-kernel is 2; it must be odd"),
        (("eval", "nowhere", "--json", "/proc/x.json"), "/proc/x.json cannot be written"),
        (("train", "fcn8s", "--data.name", "camvid"), "--data.dir"),
        (("train", "fcn8s", "--run-dir", "gs://bucket/run"), "run-dir is gs:/bucket/run, which is not a folder here"),
        (("eval", "nowhere", "--json", "missing/scores.json"), "missing/scores.json cannot be written ([Errno 2]"),
        (("eval", "nowhere", "--picture", "data"), "data cannot be written (it is a folder): give a file in a folder"),
        (("predict", "nowhere"), "no images are named"),
        (("weights", "imprt", "w"), "weights command 'imprt' is unknown, there are import; did you mean 'import'?"),
        (("weights", "import", "w.pth", "--out", "no/w"), "no/w cannot be written ([Errno 2]"),
        (("train", "fcn8s", "--model.weights", "w.pth"), "w.pth cannot be read (No such file or directory)"),
        (("train", "fcn8s-pretrained", "--model.init-from", "x"), "a network starts from one of them: give None for"),
    ],
)
def test_bad_input_gets_a_clear_answer(places, words, message):
    output = run(places, *words, code=2)
    assert message in output
    assert "Traceback" not in output


def test_help_is_there_at_once_and_names_every_command(places):
    began = time.perf_counter()
    output = run(places, "--help")
    assert time.perf_counter() - began < 5
    for command in ("train", "eval", "predict", "weights import", "data list", "data prepare", "data check"):
        assert f"fcn-jax {command}" in output
    flags = run(places, "train", "fcn8s", "--help")
    for flag in ("--run-dir", "--data.dir", "--model.backbone", "--optim.learning-rate", "--checkpoint-every"):
        assert flag in flags


def test_data_check_counts_and_draws(places):
    root = places[0]
    output = run(places, "data", "check", "folder", "--dir", root / "data", "--out", "check.png")
    masks = [np.asarray(Image.open(path)) for path in (root / "data/labels/train").iterdir()]
    thing = sum(int((mask == 1).sum()) for mask in masks)
    assert f"{thing:,}" in output
    assert "void" in output
    with Image.open(root / "check.png") as picture:
        assert picture.size[0] > 60
    assert "voc2012" in run(places, "data", "list")


def test_data_check_suspects_black_and_white_masks(places):
    root = places[0]
    white = root / "white"
    for kind in ("images", "labels"):
        (white / kind / "train").mkdir(parents=True)
    pixels = np.zeros((9, 9), np.uint8)
    pixels[3:6] = 255
    Image.fromarray(pixels).save(white / "labels/train/a.png")
    Image.fromarray(np.stack([pixels] * 3, axis=-1)).save(white / "images/train/a.png")
    (white / "classes.txt").write_text("ground\nthing\n")
    assert "black-and-white" in run(places, "data", "check", "folder", "--dir", white, "--out", "white.png")
    # Flags are named as this command has them.
    output = run(places, "data", "check", "camvid", code=2)
    assert "with --dir" in output
    assert "--data.dir" not in output


def test_tensorflow_is_never_imported(places):
    """By nothing that builds a data set, trains, evaluates and writes a run, even where it is installed."""
    root, environment = places
    (root / "installed" / "tensorflow").mkdir(parents=True)
    (root / "installed" / "tensorflow" / "__init__.py").touch()
    # Where they are installed, tensorboardX imports torch and TFDS imports cv2: that is theirs to say.
    code = (
        "import sys, fcn_jax.cli, fcn_jax.training.loop, fcn_jax.inference.predict; fcn_jax.cli.main(sys.argv[1:]); "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'tensorflow'}))"
    )
    words = (*train(places, "without"), "--steps", "2", "--data.cache", root / "elsewhere")
    command = [sys.executable, "-c", code, *map(str, words)]
    environment = environment | {"PYTHONPATH": str(root / "installed")}
    output = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert output.returncode == 0, output.stderr
    assert [line["split"] for line in lines(root / "without")][-1] == "val"
    assert output.stdout.splitlines()[-1] == "[]"
