"""`fcn-jax train`: flags, and whole processes that are killed, stopped and resumed."""

import dataclasses
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from checkpoint_arrays import read_arrays
from command_line import STEPS, find_best, read_metrics

from fcn_jax.cli.train import read_flags, run
from fcn_jax.config import Config, InputConfig, RunOptions
from fcn_jax.data.sources import SOURCES
from fcn_jax.errors import InputError
from fcn_jax.presets import PRESETS
from fcn_jax.runtime.cluster import Cluster

# Flags that others rely on.
FLAGS = """
--steps --extend --batch-size --accumulate --seed --staged --stage-factors --run-dir --eval-every --checkpoint-every
--keep --log-every --eval-batch-size --workers --on-bad-example --on-divergence --stuck-after --profile --dry-run
--quiet --data.name --data.dir --data.cache --data.classes --data.label-suffix --data.void --data.map
--data.train-split --data.hold-out --data.inputs --data.val-split --data.decoded
--model.head --model.backbone --model.fc-features --model.fc-kernel --model.padding --model.skip-scales
--model.upsampling --model.dtype --model.output-stride --model.freeze-bn --model.weights --model.init-from
--model.fusion --model.init-streams --model.allow --model.input.order --model.input.mean --model.input.std
--model.input.log --model.input.channels --model.input.dtype
--augment.crop --augment.scale --augment.flip --augment.colour
--optim.learning-rate --optim.schedule --optim.power --optim.warmup-steps --optim.rate-cuts --optim.momentum
--optim.weight-decay --optim.clip-norm --optim.feature-scale --optim.reduction --optim.class-weights
--optim.label-smoothing --optim.auxiliary-weight --optim.frozen --optim.rate-factors --optim.bias-factor
--coordinator --num-processes --process-id
"""


def read_help(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        read_flags([*words, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


# Flags.


def test_help_has_every_flag_once(capsys):
    text = read_help(capsys, "fcn8s")
    shown = re.findall(r"^[│ ] (--[a-z][a-z.-]*)", text, flags=re.MULTILINE)
    assert sorted(shown) == sorted(FLAGS.split())


def test_help_describes_every_preset(capsys):
    words = " ".join(re.sub("[│•]", "", read_help(capsys)).split())
    for name, preset in PRESETS.items():
        assert f"{name} {preset}" in words


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_without_flags_is_itself(name):
    preset = PRESETS[name]
    read, config, options, *_ = read_flags([name])
    assert read == name
    model = preset.config.model
    if model.init_streams:  # so are the files of several networks
        files = tuple(Path.cwd() / file for file in model.init_streams)
        assert config == dataclasses.replace(preset.config, model=dataclasses.replace(model, init_streams=files))
    elif preset.config.model.weights not in (
        None,
        "imagenet",
    ):  # its file of weights is looked for in the working directory
        assert config.model.weights == str(Path.cwd() / preset.config.model.weights)
        assert config.augment == preset.config.augment
        assert config.optim == preset.config.optim
    else:
        assert config == preset.config
    assert options == preset.options


def test_flags_reach_the_configuration_and_the_options():
    words = """fcn8s --steps 3 --seed 7 --run-dir r --eval-every 2 --workers 1 --augment.no-flip --augment.scale 0.5 2
    --data.void 3 4 --data.map 255=1 #800000=void --data.train-split t --data.val-split v
    --optim.rate-factors score 10 upscore 0.5
    --optim.class-weights 1 2 --model.allow backbone/fc --model.skip-scales 1 0.5 --dry-run"""
    _, config, options, *_ = read_flags(words.split())
    assert (config.steps, config.seed, config.batch_size) == (3, 7, None)
    assert (config.augment.flip, config.augment.scale, config.augment.crop) == (False, (0.5, 2.0), None)
    assert config.data.map == ("255=1", "#800000=void")
    assert (config.data.void, config.data.train_split, options.data.val_split) == ((3, 4), "t", "v")
    assert config.optim.rate_factors == (("score", 10.0), ("upscore", 0.5))
    assert config.optim.class_weights == (1.0, 2.0)
    assert (config.model.allow, config.model.skip_scales) == (("backbone/fc",), (1.0, 0.5))
    assert (options.run_dir, options.eval_every, options.checkpoint_every) == (Path("r"), 2, None)
    assert (options.workers, options.dry_run) == (1, True)


def test_an_extension_needs_a_run(tmp_path):
    words = ["fcn8s", "--steps", "2", "--extend", "4", "7"]
    assert read_flags(words)[1].ends == (2, 4, 7)
    with pytest.raises(
        InputError, match=r"extend is 4 7, and there is no run .*/new to extend; give the --run-dir of a"
    ):
        run([*words, "--run-dir", str(tmp_path / "new")])
    with pytest.raises(InputError, match=r"there is no run runs/fcn8s-shapes-.* to extend"):
        run(words)
    assert not list(tmp_path.iterdir())
    (tmp_path / "config.json").touch()
    with pytest.raises(InputError, match="extend is 500 after steps 850"):  # the data set's number of steps
        run(["fcn8s", "--extend", "500", "--run-dir", str(tmp_path)])


def test_none_leaves_a_value_of_a_preset_open():
    words = "voc-resnet34 --steps None --model.weights None --eval-every None"
    _, config, options, *_ = read_flags(words.split())
    assert (config.steps, config.model.weights, options.eval_every) == (None, None, None)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], None),  # left for the weights to say, or ImageNet's
        (["--model.input.order", "bgr"], InputConfig("bgr")),
        (["--model.input.order=bgr"], InputConfig("bgr")),
        (["--model.input.std", "1", "1", "1"], InputConfig(std=(1.0, 1.0, 1.0))),
    ],
)
def test_the_input_is_set_by_its_flags_alone(words, expected):
    assert read_flags(["fcn8s", *words])[1].model.input == expected


def test_paths_are_absolute_and_those_of_home(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    words = ["fcn8s", "--data.dir", "d", "--data.cache=~/c", "--data.classes", "n.txt", "--model.weights", "../w.pth"]
    _, config, options, *_ = read_flags(words)
    data = options.data
    assert (data.dir, data.cache, data.classes) == (tmp_path / "d", tmp_path / "home/c", tmp_path / "n.txt")
    assert config.model.weights == str(tmp_path / "../w.pth")
    assert read_flags(["fcn8s", "--model.init-from", "runs/a"])[1].model.init_from == tmp_path / "runs/a"
    assert read_flags(["fcn8s", "--model.weights", "imagenet"])[1].model.weights == "imagenet"


def test_what_was_0_or_minus_1_for_left_open_is_refused():
    for flag, value in (("--steps", "-1"), ("--batch-size", "0"), ("--augment.crop", "0")):
        with pytest.raises(InputError, match=rf"{flag[2:]} is {value}"):
            read_flags(["fcn8s", flag, value])
    assert read_flags(["fcn8s"])[1:] == (PRESETS["fcn8s"].config, RunOptions(), Cluster(), False)
    assert Config().data.name in SOURCES


# Trainings.


def assert_equal_runs(left: Path, right: Path) -> None:
    """Metrics and the last checkpoint of two runs are equal bit for bit."""
    assert read_metrics(left) == read_metrics(right)
    arrays, others = read_arrays(left, STEPS), read_arrays(right, STEPS)
    assert arrays.keys() == others.keys()
    assert len(arrays) > 100
    for name, value in arrays.items():
        np.testing.assert_array_equal(value, others[name], err_msg=name)


def wait_for(process: subprocess.Popen, folder: Path, lines: int) -> None:
    """Wait until a run has written these lines of metrics and its first checkpoint."""
    deadline = time.monotonic() + 240
    file = folder / "metrics.jsonl"
    while not (file.exists() and file.read_text().count("\n") >= lines and (folder / "checkpoints" / "5").is_dir()):
        assert time.monotonic() < deadline
        if process.poll() is not None:
            assert process.returncode == 0, process.communicate()[0]
            return  # it was too fast
        time.sleep(0.005)


def list_steps(folder: Path) -> list[int]:
    """The steps of the checkpoints of a run."""
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())


def test_a_training_leaves_what_the_readme_says(undisturbed):
    folder, output = undisturbed
    stored = json.loads((folder / "config.json").read_text())
    assert stored["config"]["steps"] == STEPS
    assert stored["options"]["eval_every"] == 5
    assert stored["class_names"] == ["ground", "thing"]
    assert {"jax", "flax"} <= set(stored["versions"])
    assert [one["command"].split()[:3] for one in stored["starts"]] == [["fcn-jax", "train", "fcn8s"]]
    metrics = read_metrics(folder)
    assert [(line["step"], line["split"]) for line in metrics] == [
        *((step, "train") for step in range(1, 6)), (5, "val"),
        *((step, "train") for step in range(6, 11)), (10, "val"),
    ]  # fmt: skip
    scores = {"loss", "pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu", "per_class_iu"}
    assert scores <= set(metrics[-1])
    assert metrics[4]["loss"] < metrics[0]["loss"]
    assert list_steps(folder) == [5, 10]
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
    for words in ("parameters", f"step {STEPS}/{STEPS}", "images/s"):
        assert words in output


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_stopped_and_resumed_equals_undisturbed_bit_for_bit(place, undisturbed, how):
    folder = place.root / f"stopped-{how.name}"
    process = place.start(*place.train_words(folder.name))
    wait_for(process, folder, lines=8)
    process.send_signal(how)
    output, _ = process.communicate(timeout=120)
    last = max(list_steps(folder))
    if how == signal.SIGTERM:
        assert process.returncode == (0 if last == STEPS else 75), output
        assert "the same command goes on" in output or last == STEPS
    else:
        assert process.returncode in (-signal.SIGKILL, 0), output
    again = place.run(*place.train_words(folder.name))
    assert f"after step {last}" in again or last == STEPS
    assert_equal_runs(folder, undisturbed[0])


def test_a_finished_run_has_nothing_to_do(place, undisturbed):
    folder, _ = undisturbed
    before = [(folder / name).read_text() for name in ("metrics.jsonl", "config.json")]
    # How it is conducted may change; what is recorded is how it was trained.
    again = place.train_words(folder.name, "--workers", "1", "--log-every", "2")
    assert "nothing to do" in place.run(*again)
    assert [(folder / name).read_text() for name in ("metrics.jsonl", "config.json")] == before


def test_another_configuration_is_refused_with_the_difference(place, undisturbed):
    folder, _ = undisturbed
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    flags = "--seed 1 --optim.learning-rate 0.3 --batch-size 8 --model.upsampling fixed --steps 20"
    output = place.run(*place.train_words(folder.name, *flags.split()), code=2)
    for difference in (
        "seed: 0 -> 1",
        "optim.learning_rate: 0.05 -> 0.3",
        "batch_size: 4 -> 8",
        "model.upsampling: learned -> fixed",
        "steps: 10 -> 20",
    ):
        assert f"\n  {difference}\n" in output
    assert output.count(" -> ") == 5
    assert "another --run-dir; give its steps as --steps 10 --extend 20" in output
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before


@pytest.mark.slow
def test_weights_are_scored_without_training(place, undisturbed):
    folder, _ = undisturbed
    place.run("weights", "import", folder.name, "--out", "same.safetensors")
    words = place.train_words("scored", "--model.weights", "same.safetensors", "--steps", "0")
    assert "step 0: mean IU" in place.run(*words)
    best = find_best(folder)
    assert read_metrics(place.root / "scored") == [{**best, "step": 0}]
    assert "has all of its 0 steps; nothing to do" in place.run(*words)
    assert f"{100 * best['mean_iu']:.2f}" in place.run("eval", "scored", "--split", "tiny")


@pytest.mark.slow
def test_a_staged_training_is_killed_in_each_stage_and_ends_where_an_undisturbed_one_does(place):
    def staged(folder: str) -> tuple[str, ...]:
        return place.train_words(folder, "--model.head", "fcn16s", "--staged")

    place.run(*staged("staged"))
    for stage in ("fcn32s", "fcn16s"):
        process = place.start(*staged("killed"))
        wait_for(process, place.root / "killed" / stage, lines=7)
        process.kill()
        process.communicate()
    output = place.run(*staged("killed"))
    assert "fcn32s has all of its 10 steps" in output
    assert re.search(r"fcn16s: goes on after step (5|10) of 10", output)
    for stage in ("fcn32s", "fcn16s"):
        assert_equal_runs(place.root / "killed" / stage, place.root / "staged" / stage)


@pytest.mark.slow
def test_tensorflow_is_never_imported(place):
    """By nothing that builds a data set, trains, evaluates and writes a run, even where it is installed."""
    (place.root / "installed" / "tensorflow").mkdir(parents=True)
    (place.root / "installed" / "tensorflow" / "__init__.py").touch()
    # Where they are installed, tensorboardX imports torch and TFDS imports cv2, which is not ours to change.
    code = (
        "import sys, fcn_jax.cli, fcn_jax.training.loop, fcn_jax.inference.predict; fcn_jax.cli.main(sys.argv[1:]); "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'tensorflow'}))"
    )
    words = place.train_words("without", "--data.cache", "elsewhere")
    command = [sys.executable, "-c", code, *words]
    environment = place.environment | {"PYTHONPATH": str(place.root / "installed")}
    output = subprocess.run(command, cwd=place.root, env=environment, capture_output=True, text=True, check=False)
    assert output.returncode == 0, output.stderr
    assert read_metrics(place.root / "without")[-1]["split"] == "val"
    assert output.stdout.splitlines()[-1] == "[]"
