"""A user who has a number only: no name, no home directory and no right to write the files of others."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import draw_folder_data, read_metrics

UID = 12345


@pytest.fixture
def user(place, tmp_path_factory):
    """A function that runs a command as that user, in a folder of the user's own."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("to run as another user needs root and setpriv")
    folder = tmp_path_factory.mktemp("user")
    for above in (folder, *folder.parents[:3]):
        above.chmod(above.stat().st_mode | 0o055)
    os.chown(folder, UID, UID)
    # The Python of the tests may lie where only root can read.
    rights = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    become = ("setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups", *rights)
    environment = {
        name: value for name, value in place.environment.items() if name not in ("HOME", "XDG_CACHE_HOME", "USER")
    } | {"TMPDIR": str(folder)}

    def run(*words: str | Path, code: int = 0) -> str:
        done = subprocess.run(
            [*become, sys.executable, "-m", "fcn_jax", *map(str, words)],
            cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    run.folder = folder
    return run


def test_data_is_prepared_among_the_temporary_files(user):
    draw_folder_data(user.folder / "data")
    assert "folder train: 8 images" in user("data", "prepare", "folder", "--dir", "data")
    assert (user.folder / f"fcn_jax-{UID}" / "folder").is_dir()


def test_files_of_others_are_named(place, user, undisturbed):
    run, _ = undisturbed
    words = place.train_words(run)
    for folder in (run, *(path for path in run.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    output = user(*words, "--data.cache", user.folder / "cache", code=2)
    assert f"{run} cannot be written (Permission denied)" in output
    output = user("weights", "import", run, "--out", run / "w.safetensors", code=2)
    assert "w.safetensors cannot be written" in output


@pytest.mark.slow
def test_a_whole_training(user):
    draw_folder_data(user.folder / "data")
    flags = "--model.backbone resnet18 --augment.crop 32 --batch-size 2 --steps 2 --eval-every 2 --data.val-split tiny"
    user("train", "fcn8s", "--data.name", "folder", "--data.dir", "data", *flags.split(), "--run-dir", "r")
    assert read_metrics(user.folder / "r")[-1]["step"] == 2
    assert "mean_iu" in user("eval", "r", "--split", "tiny")
