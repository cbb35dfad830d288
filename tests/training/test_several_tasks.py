"""A network with two tasks on one backbone, from the official files of SIFT Flow to the report."""

import json
import re

import caffe_peer
import numpy as np
import pytest
from drawn_scenes import NAMES, TESTED, draw_scene, write_scenes
from flax import traverse_util
from PIL import Image
from small_runs import NORMED

from fcn_jax import Segmenter
from fcn_jax.cli import data, evaluate, export, predict, publish, report
from fcn_jax.cli.train import read_flags
from fcn_jax.config import AugmentConfig, Config, DataConfig, DataOptions, ModelConfig, OptimConfig, RunOptions
from fcn_jax.data.dataset import prepare
from fcn_jax.data.sources.siftflow import SCENES
from fcn_jax.errors import InputError
from fcn_jax.models import build as module
from fcn_jax.models.backbones import BACKBONES
from fcn_jax.models.backbones.vgg import VGG
from fcn_jax.models.reference import JointFCN
from fcn_jax.runs.run_dir import open_run
from fcn_jax.training.loop import train
from fcn_jax.weights import caffe

METRICS = {"pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu", "per_class_iu", "per_class_accuracy"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with the files and a run of a few steps on both tasks, whose network has a backbone of three layers."""
    root = tmp_path_factory.mktemp("siftflow")
    write_scenes(root / "data")
    small = {**BACKBONES, "resnet18": lambda dtype: NORMED}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        patch.setattr("fcn_jax.models.build.BACKBONES", small)
        train(make_config(), make_options(root), root / "run", lambda line: None)
        yield root


def make_config(**changes) -> Config:
    settings = {
        "model": ModelConfig(backbone="resnet18", upsampling="fixed"),
        "data": DataConfig("siftflow"),
        "augment": AugmentConfig(crop=32, scale=(0.8, 1.5)),
        "optim": OptimConfig(learning_rate=0.1, warmup_steps=0),
        "steps": 12,
        "batch_size": 8,
    }
    return Config(**(settings | changes))


def make_options(root, **changes) -> RunOptions:
    places = DataOptions(dir=root / "data", cache=root / "cache", **changes)
    return RunOptions(data=places, eval_every=6, log_every=1)


def segment_all(root) -> dict[str, np.ndarray]:
    segment = Segmenter.from_run(root / "run")
    source = prepare("siftflow", root / "data", root / "cache").source("val")
    return {example.name: segment(example.image) for example in source}


def count_by_loop(root) -> list[np.ndarray]:
    """The confusion matrices of both tasks, counted pixel by pixel from the numbers that were drawn."""
    matrices = [np.zeros((33, 33), int), np.zeros((3, 3), int)]
    for name, class_map in segment_all(root).items():
        _, *masks = draw_scene(NAMES.index(name))
        for task, mask in enumerate(masks):
            for number, predicted in zip(mask.ravel().tolist(), class_map[..., task].ravel().tolist(), strict=True):
                if number > 0:
                    matrices[task][number - 1, predicted] += 1
    return matrices


def test_the_run_stores_both_tasks(root):
    stored = json.loads((root / "run/config.json").read_text())
    assert (stored["task"], len(stored["class_names"])) == ("semantic", 33)
    assert stored["other_tasks"]["geometric"]["class_names"] == ["sky", "horizontal", "vertical"]
    assert [(task.name, len(task.class_names)) for task in open_run(root / "run").tasks] == [
        ("semantic", 33),
        ("geometric", 3),
    ]


def test_the_log_has_the_metrics_of_both_tasks(root):
    lines = [json.loads(line) for line in (root / "run/metrics.jsonl").read_text().splitlines()]
    val = [line for line in lines if line["split"] == "val"]
    assert [line["step"] for line in val] == [6, 12]
    for line in val:
        assert set(line) == METRICS | {"step", "split", "loss", "geometric"}
        assert set(line["geometric"]) == METRICS
        assert (len(line["per_class_iu"]), len(line["geometric"]["per_class_iu"])) == (33, 3)
    scores = json.loads((root / "run/checkpoints/scores.json").read_text())
    assert scores == {str(line["step"]): line["mean_iu"] for line in val}


def test_eval_scores_each_task(root, capsys):
    evaluate.run([str(root / "run"), "--json", str(root / "scores.json"), "--picture", str(root / "scores.png")])
    printed = capsys.readouterr().out
    semantic, geometric = printed.split("geometric task\n")
    assert semantic.startswith("semantic task\n")
    assert ("building" in semantic, "vertical" in geometric) == (True, True)
    stored = json.loads((root / "scores.json").read_text())
    for values, confusion in zip((stored, stored["geometric"]), count_by_loop(root), strict=True):
        assert np.count_nonzero(confusion.sum(axis=0)) > 1  # several classes are predicted
        assert np.abs(np.array(values["confusion"]) - confusion).sum() <= 4  # ties
        assert values["num_pixels"] == confusion.sum()
        # score.py of the reference: the geometric accuracy of the paper is the pixel accuracy of that task.
        expected = np.trace(np.array(values["confusion"])) / confusion.sum()
        assert values["pixel_accuracy"] == pytest.approx(expected)
    assert stored["geometric"]["class_names"] == ["sky", "horizontal", "vertical"]
    assert len(stored["class_names"]) == 33
    with Image.open(root / "scores.png") as picture:
        assert picture.height > 2 * 3 * 240  # three rows of panels for each task


def test_eval_leaves_classes_out(root, capsys):
    """Cow, desert and moon are not in the official test set, and the reference leaves them out, too."""
    ignored = ["cow", "desert", "moon", "road", "geometric/sky"]
    evaluate.run([str(root / "run"), "--json", str(root / "some.json"), "--ignore", *ignored])
    assert "ignored: cow, desert, moon, road; their" in capsys.readouterr().out
    stored = json.loads((root / "some.json").read_text())
    for values, confusion, labels in zip(
        (stored, stored["geometric"]), count_by_loop(root), ([8, 10, 15, 21], [0]), strict=True
    ):
        kept = [label for label in range(len(confusion)) if label not in labels]
        assert [values["class_names"][label] for label in labels] == values["ignored"]
        assert [values["per_class_iu"][label] for label in labels] == [None] * len(labels)
        assert values["num_pixels"] == confusion[kept].sum()
        assert values["pixel_accuracy"] == pytest.approx(np.trace(confusion[kept][:, kept]) / confusion[kept].sum())
    with pytest.raises(InputError, match="there is no class 'cows'; did you mean 'cow'"):
        evaluate.run([str(root / "run"), "--ignore", "cows"])


def test_predict_writes_a_mask_of_each_task(root, capsys):
    images = root / "data/Images" / SCENES
    flags = ["--counts", "--probabilities", "--tile", "0", "--quiet"]
    predict.run(
        [str(root / "run"), *(str(images / f"{name}.jpg") for name in TESTED), "--out", str(root / "out"), *flags]
    )
    expected = segment_all(root)
    for name in TESTED:
        with (
            Image.open(root / "out" / f"{name}.png") as first,
            Image.open(root / "out" / f"{name}_geometric.png") as second,
        ):
            np.testing.assert_array_equal(np.stack([first, second], axis=-1), expected[name])
        with np.load(root / "out" / f"{name}_geometric.npz") as shares:
            np.testing.assert_allclose(shares["probabilities"].astype(float).sum(axis=-1), 1, atol=2e-3)
            assert (shares["probabilities"].argmax(axis=-1) == expected[name][..., 1]).mean() > 0.99
        assert (root / "out" / f"{name}_geometric_overlay.png").exists()
    header, *rows = (root / "out/counts_geometric.csv").read_text().splitlines()
    assert header == "image,sky,horizontal,vertical"
    assert len(rows) == len(TESTED)
    assert capsys.readouterr().out == ""


def test_masks_with_the_numbers_of_the_official_files(root):
    """They begin at 1 in both tasks; 0 and -1 are void (siftflow_layers.py)."""
    words = [str(root / "run"), "--split", "val", "--out", str(root / "numbers"), "--tile", "0", "--quiet"]
    predict.run([*words, "--source-values", "--counts"])
    for name, class_map in segment_all(root).items():
        for task, suffix in enumerate(("", "_geometric")):
            with Image.open(root / "numbers" / f"{name}{suffix}.png") as mask:
                assert mask.mode == "L"
                np.testing.assert_array_equal(np.asarray(mask), class_map[..., task] + 1)
    _, first, *_ = (root / "numbers/counts_geometric.csv").read_text().splitlines()
    counts = np.bincount(segment_all(root)[TESTED[0]][..., 1].ravel(), minlength=3)
    assert first == ",".join(map(str, [f"{TESTED[0]}.jpg", *counts]))


def test_views_are_averaged_in_each_task(root):
    image = draw_scene(8)[0]
    segment = Segmenter.from_run(root / "run", tta=True)
    class_map, shares = segment(image), segment.probabilities(image)
    assert (class_map.shape, shares.shape) == ((*image.shape[:2], 2), (*image.shape[:2], 36))
    for task, part in enumerate((shares[..., :33], shares[..., 33:])):
        assert (part.argmax(axis=-1) == class_map[..., task]).mean() > 0.99
        np.testing.assert_allclose(part.astype(float).sum(axis=-1), 1, atol=5e-3)


def test_two_images_with_one_name_for_their_masks(root, tmp_path):
    for name in ("a", "a_geometric"):
        Image.fromarray(draw_scene(0)[0]).save(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match=r"would both be written as a_geometric\.png"):
        predict.run([str(root / "run"), str(tmp_path), "--out", str(tmp_path / "out")])


def test_the_report_shows_the_classes_of_each_task(root, capsys):
    report.run([str(root / "run"), "--out", str(root / "report.html"), "--no-explain"])
    page = (root / "report.html").read_text()
    for text in ("Semantic task", "Geometric task", "Confusion matrix of the geometric task", "horizontal", "building"):
        assert text in page
    assert "mean IU" in capsys.readouterr().out


@pytest.mark.slow
def test_data_of_one_of_the_tasks(root, capsys):
    """A run on one task is scored on data with more; one on both is not scored on data with less."""
    place = ["--data.dir", str(root / "data"), "--split", "val"]
    config = make_config(data=DataConfig("siftflow-geometric"), steps=0)
    train(config, make_options(root), root / "alone", lambda line: None)
    evaluate.run([str(root / "alone"), *place, "--data.name", "siftflow", "--json", str(root / "alone.json")])
    both = np.array(json.loads((root / "alone.json").read_text())["confusion"])
    evaluate.run([str(root / "alone"), *place, "--json", str(root / "alone.json")])
    np.testing.assert_array_equal(json.loads((root / "alone.json").read_text())["confusion"], both)
    capsys.readouterr()
    with pytest.raises(
        InputError, match=r"was trained on the classes semantic: awning, .*; geometric: sky, .* has sky"
    ):
        evaluate.run([str(root / "run"), *place, "--data.name", "siftflow-geometric"])


@pytest.mark.slow
def test_published_weights_are_scored_in_both_tasks(root, monkeypatch):
    """A file with the two heads of siftflow-fcn8s, whose scores are those of `JointFCN`; OpenCV computes the same."""
    net = caffe_peer.siftflow(small=True, stride=8)
    file = root / "siftflow-fcn8s-heavy.caffemodel"
    file.write_bytes(caffe_peer.caffemodel(net, net.random_weights()))
    monkeypatch.setitem(module.BACKBONES, "vgg16", lambda dtype: VGG((1,) * 5, dtype=dtype))
    model = ModelConfig(backbone="vgg16", fc_features=16, padding="reference", weights=str(file))
    evaluation = train(make_config(model=model, steps=0), make_options(root), root / "published", lambda line: None)
    assert [score.task.name for score in evaluation.tasks] == ["semantic", "geometric"]
    image = prepare("siftflow", root / "data", root / "cache").source("val")[0].image
    weights = caffe.read(file)
    joint = JointFCN(36, VGG((1,) * 5, 16, padding="reference"), tasks=(33, 3))
    pixels = image[None, :, :, ::-1].astype(np.float32) - np.array([114.578, 115.294, 108.353], np.float32)
    scores = joint.apply(traverse_util.unflatten_dict(weights.arrays, sep="/"), pixels)
    class_map = Segmenter.from_run(root / "published")(image)
    for task, expected in enumerate(scores):
        assert expected[0].shape[:2] == class_map.shape[:2]
        assert (np.asarray(expected[0]).argmax(axis=-1) != class_map[..., task]).mean() < 1e-3  # ties


def test_data_check_shows_each_task(root, capsys):
    words = ["check", "siftflow", "--dir", str(root / "data"), "--cache", str(root / "cache")]
    data.run([*words, "--out", str(root / "check.html"), "--json", str(root / "check.json")])
    printed = capsys.readouterr().out
    assert printed.count("\n  semantic task\n") == printed.count("\n  geometric task\n") == 2
    assert re.search(r"\n  semantic: 30 of 33 classes awning, .*: in no image\n", printed)
    page = (root / "check.html").read_text()
    assert ("Semantic task" in page, "Geometric task" in page) == (True, True)
    stored = json.loads((root / "check.json").read_text())
    (flag,) = [line for line in printed.splitlines() if "--optim.class-weights" in line]
    _, config, *_ = read_flags(["siftflow-fcn8s", *flag.split()])
    weights = [*stored["class_weights"]["weights"], *stored["geometric"]["class_weights"]["weights"]]
    assert config.optim.class_weights == pytest.approx(weights, rel=5e-3)
    data.run([*words, "--out", str(root / "check.png")])
    with Image.open(root / "check.png") as picture:
        assert picture.width == 3 * 56  # the image, and it under the labels of both tasks


def test_class_weights_are_those_of_all_tasks(root):
    with pytest.raises(InputError, match=r"has 33 values for 36 classes; give one for each of awning, .*geometric/sky"):
        train(make_config(optim=OptimConfig(class_weights=(1.0,) * 33)), make_options(root), root / "weighted")
    assert not (root / "weighted").exists()


@pytest.mark.slow
def test_exported_programs_give_the_classes_of_each_task(root, capsys, monkeypatch):
    out, image = root / "exported", draw_scene(9)[0]
    export.run([str(root / "run"), "--out", str(out), "--count", "2", "--probabilities"])
    same = r"\d of [\d,]+ pixels have another class; mean IU 0"
    line = rf"model.onnx: equal on 4 images: semantic: {same}.*; geometric: {same}"
    assert re.search(line, capsys.readouterr().out)
    stored = json.loads((out / "parity.json").read_text())
    scored = {
        name: (values["mean_iu"], values["geometric"]["mean_iu"]) for name, values in stored.items() if name != "step"
    }
    assert len(scored) == 2
    for ious in scored.values():
        assert 0 < ious[0] < ious[1] < 1
    card = (out / "README.md").read_text()
    for text in (
        "with 33 and 3 classes, exported",
        "- `class_map_geometric`: uint8[batch, height, width], the index of each pixel's class in the geometric task.",
        "- `probabilities_geometric`: float32[batch, height, width, 3], with a sum of 1 in each pixel",
        "### Geometric task\n\n| index | name | colour |\n| --- | --- | --- |\n| 0 | sky | `#000000` |",
        "| on val | semantic, % | geometric, % |\n| --- | --- | --- |\n| mean_iu | ",
        "| `model.onnx`, the geometric task | 4 |",
    ):
        assert text in card
    # The examples of the card.
    monkeypatch.chdir(out)
    Image.fromarray(image).save("photo.jpg", quality=100, subsampling=0)
    with Image.open("photo.jpg") as photograph:
        class_map = Segmenter.from_run(root / "run")(np.asarray(photograph))
    expected = [
        (index, name, (class_map[..., task] == index).mean())
        for task, (_, names, *_) in enumerate(open_run(root / "run").tasks)
        for index, name in enumerate(names)
        if (class_map[..., task] == index).any()
    ]
    printed = []
    for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        exec(code, {})
        printed.append(capsys.readouterr().out.splitlines())
    assert printed[0] == [f"{name} {share}" for _, name, share in expected]
    assert printed[1] == [f"{index} {share}" for index, _, share in expected]
    assert len(expected) > 3


def test_a_published_card_has_the_scores_of_each_task(root):
    publish.run([str(root / "run"), "--out", str(root / "published")])
    metrics = json.loads((root / "published/metrics.json").read_text())
    lines = [json.loads(line) for line in (root / "run/metrics.jsonl").read_text().splitlines()]
    (scored,) = [line for line in lines if (line["step"], line["split"]) == (metrics["step"], "val")]
    assert metrics["geometric"]["mean_iu"] == scored["geometric"]["mean_iu"]
    assert list(metrics["geometric"]["per_class_iu"]) == ["sky", "horizontal", "vertical"]
    row = f"| mean_iu | {100 * scored['mean_iu']:.2f} | {100 * scored['geometric']['mean_iu']:.2f} |"
    assert row in (root / "published/README.md").read_text()


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ({"../up": {"class_names": ["a"], "palette": [[0, 0, 0]]}}, r"it has the task '\.\./up', and names of tasks"),
        ({"geometric": {"class_names": ["a", "b"], "palette": [[0, 0, 0]]}}, "it has 2 class names and 1 colours"),
        (["geometric"], "has no attribute 'items'"),
    ],
)
def test_tasks_that_a_damaged_run_stores(root, tmp_path, other, problem):
    stored = json.loads((root / "run/config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(stored | {"other_tasks": other}))
    with pytest.raises(InputError, match=problem):
        open_run(tmp_path)
