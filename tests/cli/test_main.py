"""`fcn-jax` itself: its help, its exit codes, and its answers to bad input."""

import gc
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fcn_jax.cli import COMMANDS, main, predict
from fcn_jax.errors import Diverged, InputError, OutOfMemory
from fcn_jax.presets import PRESETS


@pytest.fixture(autouse=True)
def keep_garbage_collection():
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)


def fail(capsys, *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        main(words)
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_names_every_command_and_preset(capsys, words):
    main(words)
    output = capsys.readouterr().out
    commands = (
        "train",
        "eval",
        "predict",
        "demo",
        "report",
        "export",
        "weights describe",
        "publish",
        "weights import",
        "doctor",
        "completion",
        "data list",
        "data prepare",
        "data check",
    )
    assert {command.split()[0] for command in commands} == set(COMMANDS)
    for command in commands:
        assert f"  fcn-jax {command} " in output
    listed = output.split("PRESET is one of\n")[1].split("\n\n")[0]
    assert [name.strip() for name in listed.split(",")] == list(PRESETS)
    assert max(map(len, output.splitlines())) <= 110


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from fcn_jax.cli import main; main(['--help']); "
        "heavy = {'jax', 'flax', 'numpy', 'PIL', 'tyro', 'tensorflow_datasets'}; "
        "print(sorted(heavy & set(sys.modules)), len(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, count = result.stdout.splitlines()[-1].rsplit(" ", 1)
    assert heavy == "[]"
    assert int(count) < 250  # 94 with Python 3.11; jax alone has more than 600


@pytest.mark.parametrize("words", [["data"], ["data", "--help"], ["data", "-h"]])
def test_help_of_data_commands(capsys, words):
    main(words)
    output = capsys.readouterr().out
    assert [line.split()[:3] for line in output.splitlines()[:3]] == [
        ["fcn-jax", "data", command] for command in ("list", "prepare", "check")
    ]
    assert "fcn-jax data COMMAND --help" in output


@pytest.mark.parametrize("words", [["weights"], ["weights", "--help"], ["weights", "-h"]])
def test_help_of_weights_commands(capsys, words):
    main(words)
    output = capsys.readouterr().out
    assert output.split()[:4] == ["fcn-jax", "weights", "describe", "FILE"]
    assert "data" not in output


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ("eval", "RUN --split --json --picture --step --batch-size --data.name --data.dir --data.cache --data.void"),
        ("weights describe", "FILE"),
        ("publish", "RUN --out --step"),
        ("demo", "RUN --host --port --step --tile"),
        ("predict", "RUN IMAGE... --split --data.dir --out --step --scales --submission --competition --alpha"),
        ("report", "RUN... --out --count --split --step --batch-size --tile --data.name --data.dir --data.cache"),
        ("weights import", "FILE --out --classes"),
        ("data prepare", "NAME --dir --cache --classes --void"),
        ("data check", "NAME --dir --cache --classes --void --out --json"),
    ],
)
def test_help_of_a_command_has_its_flags(capsys, words, flags):
    with pytest.raises(SystemExit) as end:
        main([*words.split(), "--help"])
    assert end.value.code == 0
    output = capsys.readouterr().out
    assert f"usage: fcn-jax {words} " in output
    for flag in flags.split():
        assert re.search(rf"^[│ ] {re.escape(flag)}[ \n]", output, re.MULTILINE), flag


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("bad flag"), 2, "fcn-jax: bad flag\n"),
        (Diverged("loss is nan"), 1, "fcn-jax: loss is nan\n"),
        (OutOfMemory("take less"), 1, "fcn-jax: take less\n"),
        (KeyboardInterrupt(), 130, "fcn-jax: stopped\n"),
    ],
)
def test_exit_codes(capsys, monkeypatch, error, code, message):
    def run(words: list[str]) -> None:
        assert words == ["a", "b"]
        raise error

    monkeypatch.setattr(predict, "run", run)
    assert fail(capsys, "predict", "a", "b") == (code, message)


def test_other_errors_are_not_hidden(monkeypatch):
    def run(words: list[str]) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(predict, "run", run)
    with pytest.raises(ZeroDivisionError):
        main(["predict"])


# What is wrong with these is found before anything is compiled, so they need no process of their own.
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("tran fcn8s", "did you mean 'train'?"),
        ("train fcn8", "did you mean 'fcn8s'?"),
        ("train fcn8s --data.name voc2021", "did you mean 'voc2012'?"),
        ("train fcn8s --steps -2", "fcn-jax: steps is -2"),
        ("train fcn8s --model.fc-kernel 2", "fcn-jax: model.fc-kernel is 2; it must be odd"),
        ("train fcn8s --run-dir ftp://host/run", "ftp://host/run is neither a folder here nor in a bucket"),
        ("train fcn8s-pretrained --model.init-from x", "starts from one of them: give None for the other"),
        ("eval nowhere", "is not a run directory"),
        ("eval nowhere --json /proc/x.json", "/proc/x.json cannot be written"),
        ("eval nowhere --json missing/scores.json", "missing/scores.json cannot be written (No such file"),
        ("eval nowhere --picture folder", "folder cannot be written (it is a folder)"),
        ("predict nowhere", "no images are named"),
        ("predict nowhere x.jpg", "x.jpg matches no file"),
        ("predict nowhere --split test", "nowhere is not a run directory"),
        ("predict nowhere a.jpg --data.name camvid", "--data is for the split of a data set, and none is named"),
        ("predict nowhere a.jpg --submission v.tgz", "--submission is for the split of a data set, and none is named"),
        ("predict nowhere a.jpg --split test", "both a.jpg and --split test are given; give images or a split"),
        ("predict nowhere --split test --competition comp5", "is for a submission; give --submission FILE, too"),
        ("predict nowhere --split test --submission v.tgz --source-values", "leave --source-values out"),
        ("predict nowhere --split test --submission no/v.tgz", "no/v.tgz cannot be written (No such file"),
        ("demo nowhere --port 70000", "port is 70000; it must be between 1 and 65535"),
        ("predict nowhere x.jpg --scales 1 0", "scales are (1.0, 0.0); give at least one factor, each above 0"),
        ("report", "no run is named; give one run directory or more"),
        ("report nowhere", "nowhere is not a run directory"),
        ("report nowhere --count 0", "count is 0; it must be at least 1"),
        ("report s3://bucket/run", "a report of s3://bucket/run needs a place: give --out FILE"),
        ("train eval runs/a", "'eval' is not a preset but another command; call "),
        ("data chek shapes", "data command 'chek' is unknown, there are list, prepare, check; did you mean 'check'?"),
        ("data check --out folder shapes", "folder cannot be written (it is a folder)"),
        ("data check --json folder shapes", "folder cannot be written (it is a folder)"),
        ("data check --out a.jpg shapes", "out is a.jpg; give it the ending .html for a sheet of images, or .png"),
        ("weights imprt w", "weights command 'imprt' is unknown, there are describe, import; did you mean 'import'?"),
        ("weights import w.pth --out no/w", "no/w cannot be written (No such file"),
    ],
)
def test_bad_input_gets_a_clear_answer(capsys, monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "folder").mkdir()
    code, errors = fail(capsys, *words.split())
    assert code == 2
    assert errors.startswith("fcn-jax: ")
    assert message in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train fcn8s --data.name folder --data.dir=~/none", f"{Path.home()}/none does not exist"),
        ("train fcn8s --data.name camvid", "--data.dir"),
        ("train fcn8s --model.weights w.pth", "w.pth cannot be read (No such file or directory)"),
    ],
)
def test_bad_data_and_weights_get_a_clear_answer(place, words, message):
    """`Place.run` also checks that there is no stack trace."""
    output = place.run(*words.split(), code=2)
    assert message in output


@pytest.mark.parametrize("words", [["eval", "run"], ["predict", "run", "cat.jpg"], ["report", "run"]])
def test_a_batch_size_below_1_is_refused(capsys, words):
    with pytest.raises(SystemExit) as end:
        main([*words, "--batch-size", "0"])
    assert end.value.code == 2
    assert "batch-size is 0; it must be at least 1" in capsys.readouterr().err
