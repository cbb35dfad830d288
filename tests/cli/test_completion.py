"""`fcn-jax completion`, in real shells."""

import shutil
import subprocess

import pytest

from fcn_jax.cli import COMMANDS, main
from fcn_jax.presets import PRESETS

COMPLETE = """
source {script}
COMP_WORDS=({words}) COMP_CWORD={place}
_fcn_jax_or_files
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    file = tmp_path_factory.mktemp("completion") / "fcn-jax.bash"
    with pytest.MonkeyPatch.context() as patch, file.open("w") as out:
        patch.setattr("sys.stdout", out)
        main(["completion", "bash"])
    return file


def complete(script, *words: str) -> list[str]:
    quoted = " ".join(f"'{word}'" for word in words)
    code = COMPLETE.format(script=script, words=quoted, place=len(words) - 1)
    return subprocess.run(["bash", "-euc", code], capture_output=True, text=True, check=True).stdout.split()


def test_bash_completes_commands_presets_flags_and_choices(script):
    assert {word for word in complete(script, "fcn-jax", "") if word[0] != "-"} == set(COMMANDS)
    assert complete(script, "fcn-jax", "ev") == ["eval"]
    assert set(complete(script, "fcn-jax", "train", "camvid-")) == {name for name in PRESETS if "camvid-" in name}
    assert complete(script, "fcn-jax", "train", "fcn8s", "--optim.power") == ["--optim.power"]
    assert complete(script, "fcn-jax", "train", "fcn8s", "--model.head", "fcn") == ["fcn32s", "fcn16s", "fcn8s"]
    assert complete(script, "fcn-jax", "weights", "im") == ["import"]
    assert complete(script, "fcn-jax", "data", "check", "--map", "") == []


def test_bash_is_left_to_complete_files(script):
    assert complete(script, "fcn-jax", "predict", "runs/") == []
    shown = subprocess.run(
        ["bash", "-euc", f"source {script}; complete -p fcn-jax"], capture_output=True, text=True, check=True
    ).stdout
    assert "-o default" in shown


def test_the_script_for_zsh_is_correct(capsys):
    main(["completion", "zsh"])
    text = capsys.readouterr().out
    assert text.startswith("#compdef fcn-jax")
    if shutil.which("zsh"):
        assert not subprocess.run(["zsh", "-n"], input=text, capture_output=True, text=True, check=True).stderr
