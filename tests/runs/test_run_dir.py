"""The run directory: what is written, and what a resume keeps or refuses."""

import dataclasses
import json
import platform
import re
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from fcn_jax.config import Config, DataOptions, ModelConfig, RunOptions
from fcn_jax.data.dataset import Dataset
from fcn_jax.data.defaults import fill_config, fill_options
from fcn_jax.data.label_map import LabelMap
from fcn_jax.data.tasks import Task
from fcn_jax.errors import InputError
from fcn_jax.runs import run_dir as module
from fcn_jax.runs.run_dir import (
    Run,
    describe_start,
    open_for_training,
    open_run,
    read_origin,
    require_last_start,
    require_shared,
)

CONFIG = fill_config(Config(steps=20))
OPTIONS = fill_options(RunOptions(data=DataOptions(dir=Path("some/where"))), CONFIG)


def dataset(*names: str, contents: str = "abc") -> Dataset:
    colours = np.arange(3 * len(names), dtype=np.uint8).reshape(-1, 3)
    return Dataset(
        "shapes", (Task("", names, colours),), {"train": 1}, (8, 8), Path("cache"), contents, lambda split: []
    )


DATASET = dataset("background", "cat", "dog")


def start(folder: Path, config: Config = CONFIG, data: Dataset = DATASET, options: RunOptions = OPTIONS) -> Run:
    """Make or open a run and leave it."""
    with open_for_training(folder, config, options, data) as run:
        return run


def test_a_new_run_directory(tmp_path):
    folder = tmp_path / "runs" / "new"
    run = start(folder)
    assert run.folder == folder
    assert run.checkpoints == folder / "checkpoints"
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "lock"]
    stored = json.loads((folder / "config.json").read_text())
    assert stored["class_names"] == ["background", "cat", "dog"]
    assert stored["options"]["data"]["dir"] == "some/where"
    assert stored["versions"].keys() == {
        "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy",
    }  # fmt: skip
    assert stored["versions"]["numpy"] == np.__version__


def test_each_start_is_noted(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/some/where/fcn_jax/__main__.py", "train", "fcn8s", "--data.map", "#8000ff=1"])
    before = int(time.time())
    start(tmp_path / "run")
    monkeypatch.setattr("sys.argv", ["/bin/own.py", "a b"])
    start(tmp_path / "run")
    origin = read_origin(tmp_path / "run")
    assert [one.command for one in origin.starts] == ["fcn-jax train fcn8s --data.map '#8000ff=1'", "own.py 'a b'"]
    assert all(before <= one.time <= time.time() + 1 for one in origin.starts)
    assert re.search(r", \d+ cores$", origin.starts[0].machine)
    assert origin.python == platform.python_version()


def test_a_training_finds_that_another_one_has_started_after_it(tmp_path):
    first, second = describe_start(), describe_start()
    with open_for_training(tmp_path / "run", CONFIG, OPTIONS, DATASET, first):
        require_last_start(tmp_path / "run", first)
    with open_for_training(tmp_path / "run", CONFIG, OPTIONS, DATASET, second):
        require_last_start(tmp_path / "run", second)
    with pytest.raises(InputError, match=r"another training has started in .*run since, on .* another --run-dir"):
        require_last_start(tmp_path / "run", first)
    (tmp_path / "run/config.json").unlink()  # as on a disk that does not answer, of which saving tells
    require_last_start(tmp_path / "run", first)


def test_a_run_stores_what_the_numbers_in_masks_mean(tmp_path):
    label_map = LabelMap((0, 65535), ((7, 0), (300, 2)), (((1, 2, 3), 1),))
    (task,) = DATASET.tasks
    data = dataclasses.replace(DATASET, tasks=(task._replace(label_map=label_map),))
    start(tmp_path / "run", data=data)
    assert open_run(tmp_path / "run").tasks[0].label_map == label_map
    file = tmp_path / "run/config.json"
    stored = json.loads(file.read_text())
    # A run of an older version is opened and resumed, and then stores it.
    del stored["label_map"]
    file.write_text(json.dumps(stored))
    assert open_run(tmp_path / "run").tasks[0].label_map is None
    start(tmp_path / "run", data=data)
    assert open_run(tmp_path / "run").tasks[0].label_map == label_map
    for damaged in ({"numbers": [[-1, 0]]}, {"numbers": [[1, 3]]}, {"void": [1 << 16]}, {"colours": [[[0, 0, 0], -1]]}):
        file.write_text(json.dumps(stored | {"label_map": damaged}))
        with pytest.raises(InputError, match=r"label map has numbers outside 0\.\.65535 or labels that are no classes"):
            open_run(tmp_path / "run")


def test_an_opened_run_says_what_was_stored(tmp_path):
    started = start(tmp_path / "run")
    opened = open_run(tmp_path / "run")
    assert opened.config == CONFIG == started.config
    assert opened.options == OPTIONS == started.options
    assert opened.class_names == DATASET.class_names
    assert opened.palette.dtype == np.uint8
    np.testing.assert_array_equal(opened.palette, DATASET.palette)


@pytest.mark.parametrize(
    ("former", "today"),
    [
        ({"backbone": "resnet50", "head": "dilated", "output_stride": 16}, {"output_stride": 32}),  # it was ignored
        ({"backbone": "googlenet_bn"}, {"padding": "reference"}),  # its poolings had no padding
        ({"backbone": "vgg16"}, {"padding": "same"}),
    ],
)
def test_a_run_of_an_older_version_keeps_its_network(tmp_path, former, today):
    start(tmp_path)
    file = tmp_path / "config.json"
    stored = json.loads(file.read_text())
    del stored["format"]
    stored["config"]["model"] |= former
    file.write_text(json.dumps(stored))
    model = open_run(tmp_path).config.model
    assert {name: getattr(model, name) for name in today} == today


def test_a_run_keeps_the_padding_it_was_started_with(tmp_path):
    model = ModelConfig(backbone="googlenet")
    start(tmp_path, config=dataclasses.replace(CONFIG, model=model))
    assert open_run(tmp_path).config.model.padding == "same"


def test_a_folder_of_stages_is_none_and_its_stages_are_named(tmp_path):
    for head in ("fcn32s", "fcn16s"):
        start(tmp_path / head)
    with pytest.raises(InputError, match=rf"{tmp_path} has the stages of a staged training; give one, as .*/fcn16s$"):
        open_run(tmp_path)


def test_an_empty_folder_may_become_a_run(tmp_path):
    assert start(tmp_path).folder == tmp_path
    assert (tmp_path / "config.json").is_file()


def test_the_same_configuration_resumes(tmp_path):
    start(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("kept")
    data = DataOptions(dir=Path("else/where"), val_split="val")
    moved = dataclasses.replace(OPTIONS, data=data, workers=1, run_dir=tmp_path)
    assert start(tmp_path, options=moved).options == moved
    assert (tmp_path / "metrics.jsonl").read_text() == "kept"
    assert open_run(tmp_path).options == moved


def test_another_configuration_is_refused_and_the_difference_shown(tmp_path):
    start(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    other = dataclasses.replace(CONFIG, seed=7, optim=dataclasses.replace(CONFIG.optim, momentum=0.5))
    with pytest.raises(InputError) as caught:
        start(tmp_path, other)
    text = str(caught.value)
    assert f"{tmp_path} holds a run with another configuration" in text
    assert "\n  optim.momentum: 0.9 -> 0.5\n" in text
    assert "\n  seed: 0 -> 7\n" in text
    assert "give the same flags, or another --run-dir" in text
    assert text.count(" -> ") == 2
    assert (tmp_path / "config.json").read_bytes() == before


def test_another_split_to_evaluate_on_is_refused(tmp_path):
    start(tmp_path)
    other = dataclasses.replace(OPTIONS, data=dataclasses.replace(OPTIONS.data, val_split="test"))
    with pytest.raises(
        InputError,
        match=r"data\.val_split: val -> test \(`fcn-jax eval .* --split test` scores that\)\n.* give the same flags",
    ):
        start(tmp_path, options=other)


def test_other_classes_are_refused(tmp_path):
    start(tmp_path)
    with pytest.raises(InputError, match="classes: background, cat, dog -> background, cow"):
        start(tmp_path, data=dataset("background", "cow"))


def test_other_images_are_refused(tmp_path):
    start(tmp_path)
    with pytest.raises(InputError, match="data: its images or labels, by name and size, are not those the run was"):
        start(tmp_path, data=dataset(*DATASET.class_names, contents="abd"))


def test_a_second_training_is_kept_out_until_the_first_is_gone(tmp_path):
    code = """
        import sys
        from pathlib import Path
        import numpy as np
        from fcn_jax.data.dataset import Dataset
        from fcn_jax.runs.run_dir import open_for_training, open_run

        folder = Path(sys.argv[1])
        run = open_run(folder)
        data = Dataset("shapes", run.tasks, {}, (8, 8), folder, run.contents, lambda split: [])
        with open_for_training(folder, run.config, run.options, data):
            print("here", flush=True)
            input()
        """
    start(tmp_path)
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "here\n"
        before = (tmp_path / "config.json").read_bytes()
        # A second one does not change what the first has written down.
        moved = dataclasses.replace(OPTIONS, workers=1)
        with pytest.raises(InputError, match=f"another process trains in {tmp_path}"):
            start(tmp_path, options=moved)
        assert (tmp_path / "config.json").read_bytes() == before
    finally:
        first.kill()
        first.communicate()
    assert start(tmp_path, options=moved).options == moved


def test_a_run_with_a_constant_rate_may_be_prolonged(tmp_path):
    constant = dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, schedule="constant"))
    start(tmp_path, constant)
    start(tmp_path, dataclasses.replace(constant, steps=40))
    assert open_run(tmp_path).config.steps == 40


def test_an_extension_is_recorded(tmp_path):
    start(tmp_path)
    start(tmp_path, dataclasses.replace(CONFIG, extend=(40,)))
    assert open_run(tmp_path).config.ends == (20, 40)
    start(tmp_path, dataclasses.replace(CONFIG, extend=(40, 50)))
    assert open_run(tmp_path).config.ends == (20, 40, 50)


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({}, "--steps 20 --extend 40"),
        ({"extend": (30,)}, "--steps 20 --extend 40"),
        ({"extend": (60,)}, "--steps 20 --extend 40 60"),
        ({"steps": 60}, "--steps 20 --extend 40 60"),
    ],
)
def test_another_number_of_steps_is_refused_with_the_flags_for_it(tmp_path, monkeypatch, changes, flags):
    monkeypatch.setattr(module, "find_latest_step", lambda folder: 21)
    start(tmp_path, dataclasses.replace(CONFIG, extend=(40,)))
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(InputError, match=f"or another --run-dir; give its steps as {flags}$"):
        start(tmp_path, dataclasses.replace(CONFIG, **changes))
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize(("taken", "extend"), [(None, ()), (20, ()), (20, (30,)), (40, (40,)), (40, (40, 60))])
def test_an_extension_that_no_step_followed_may_be_taken_back(tmp_path, monkeypatch, taken, extend):
    monkeypatch.setattr(module, "find_latest_step", lambda folder: taken)
    start(tmp_path, dataclasses.replace(CONFIG, extend=(40, 50)))
    start(tmp_path, dataclasses.replace(CONFIG, extend=extend))
    assert open_run(tmp_path).config.extend == extend


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"holds files but is not a run directory; give a new or an empty --run-dir"):
        start(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_start_that_was_killed_before_the_configuration_was_written_is_begun_anew(tmp_path):
    for name in ("lock", "config.json.tmp"):
        (tmp_path / name).write_text("{")
    start(tmp_path)
    assert open_run(tmp_path).config == CONFIG


def test_a_place_where_no_folder_can_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            InputError, match=rf"{re.escape(str(folder))} cannot be made a run directory \(.*\); give another --run-dir"
        ):
            start(folder)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_host_that_does_not_see_the_run_directory(tmp_path, monkeypatch):
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if sum(slept) > 5 and (tmp_path / "late").is_dir():  # a network disk shows the file late
            (tmp_path / "late" / "config.json").touch()

    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(InputError, match=r"run is not the folder that process 0 writes to; give a --run-dir on a disk"):
        require_shared(tmp_path / "run")
    assert 10 < sum(slept) < 60
    (tmp_path / "late").mkdir()
    require_shared(tmp_path / "late")


def test_no_run_directory(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            InputError, match=r"is not a run directory: it has no config\.json; give what `train --run-"
        ):
            open_run(folder)


def test_few_values_are_a_configuration(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(GOOD))
    assert open_run(tmp_path).config.steps == 3


GOOD = {"config": {"steps": 3}, "options": {}, "class_names": ["a"], "palette": [[0, 0, 0]], "contents": "abc"}


def damaged() -> dict[str, str]:
    good = GOOD
    return {
        "empty": "",
        "cut short": json.dumps(good)[:-20],
        "a list": "[1, 2]",
        "a number": "3",
        "no configuration": json.dumps({**good, "config": None}),
        "a text": json.dumps({**good, "config": "fcn8s"}),
        "a field missing": json.dumps({name: value for name, value in good.items() if name != "class_names"}),
        "a value of another type": json.dumps({**good, "config": {"steps": "many"}}),
        "an unknown field": json.dumps({**good, "config": {"stepz": 3}}),
        "an invalid value": json.dumps({**good, "options": {"keep": 0}}),
        "an option among what decides": json.dumps({**good, "config": {"keep": 3}}),
        "no options": json.dumps({**good, "options": None}),
        "no colour": json.dumps({**good, "palette": [[0, 0, 300]]}),
        "a ragged palette": json.dumps({**good, "palette": [[0, 0, 0], [1]]}),
        "a negative colour": json.dumps({**good, "palette": [[0, 0, -1]]}),
        "a palette of another length": json.dumps({**good, "palette": [[0, 0, 0], [1, 1, 1]]}),
        "no classes": json.dumps({**good, "class_names": [], "palette": []}),
        "a class that is no name": json.dumps({**good, "class_names": [7]}),
        "a head that does not exist": json.dumps({**good, "config": {"model": {"head": "fcn4s"}}}),
        "nested too deeply": "[" * 100_000,
        "binary": "\udcff\udcfe",
    }


@pytest.mark.parametrize("what", damaged())
def test_a_damaged_configuration_is_refused(tmp_path, what):
    content = damaged()[what].encode(errors="surrogateescape")
    (tmp_path / "config.json").write_bytes(content)
    message = r"config\.json is not the configuration of a run \(.+\); restore it or start a new run"
    with pytest.raises(InputError, match=message):
        open_run(tmp_path)
    with pytest.raises(InputError, match=message):
        start(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == content


def test_an_unknown_field_is_named(tmp_path):
    (tmp_path / "config.json").write_text(damaged()["an unknown field"])
    with pytest.raises(InputError, match=r"configuration has \['stepz'\], which Config of this version does not know"):
        open_run(tmp_path)


def test_the_commit_is_noted(tmp_path):
    start(tmp_path)
    noted = json.loads((tmp_path / "config.json").read_text())["git"]
    here = Path(module.__file__).parent
    asked = shutil.which("git") and subprocess.run(
        ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    if asked and asked.returncode == 0:
        assert noted.rstrip("+") == asked.stdout.strip()
    else:
        assert noted is None


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_of_a_project_that_has_the_package_installed_is_not_noted(tmp_path, monkeypatch):
    def git(*words):
        author = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path), *author, *words], capture_output=True, check=True)

    package = tmp_path / ".venv" / "fcn_jax"
    (package / "runs").mkdir(parents=True)
    (package / "__init__.py").touch()
    (tmp_path / ".gitignore").write_text(".venv\n")
    git("init")
    git("add", ".gitignore")
    git("commit", "-m", "Begin")
    monkeypatch.setattr(module, "__file__", str(package / "runs" / "run_dir.py"))
    start(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["git"] is None
    git("add", "-f", ".venv/fcn_jax/__init__.py")
    git("commit", "-m", "Keep a copy")
    start(tmp_path / "other")
    assert json.loads((tmp_path / "other" / "config.json").read_text())["git"] is not None


def test_without_git_no_commit_is_noted(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    start(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["git"] is None
