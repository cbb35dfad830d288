"""What several commands do with their words."""

from pathlib import Path

from fcn_jax.cli.predict import Predict
from fcn_jax.cli.report import Report
from fcn_jax.cli.train import _name_run
from fcn_jax.cli.words import parse_flags
from fcn_jax.config import Config


def test_a_path_may_begin_with_the_users_folder(monkeypatch):
    """Shells expand it in `--out ~/x`, and not in `--out=~/x`."""
    monkeypatch.setenv("HOME", "/home/me")
    flags = parse_flags(Predict, "predict", ["~/run", "a.jpg", "--out=~/x", "--data.cache=~/c"])
    assert (flags.run, flags.out, flags.data.cache) == tuple(map(Path, ("/home/me/run", "/home/me/x", "/home/me/c")))
    assert (flags.images, flags.data.dir) == (("a.jpg",), None)
    assert parse_flags(Report, "report", ["~/a", "s3://b/c"]).runs == (Path("/home/me/a"), Path("s3://b/c"))


def test_trainings_that_start_in_the_same_second_have_folders_of_their_own():
    assert len({_name_run("fcn8s", Config()) for _ in range(8)}) > 1
