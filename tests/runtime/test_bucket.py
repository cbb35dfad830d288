"""The names of folders in buckets, and what is refused."""

import importlib
import sys
from pathlib import Path

import pytest

from fcn_jax.errors import InputError
from fcn_jax.runtime.bucket import explain_refusal, find_url, make_absolute, open_bucket


@pytest.mark.parametrize(
    ("words", "url"),
    [
        ("s3://bucket/a folder/run", "s3://bucket/a folder/run"),
        ("gs://bucket/run/", "gs://bucket/run"),
        (Path("s3://bucket/run"), "s3://bucket/run"),
        (Path("s3://bucket/run") / "fcn32s", "s3://bucket/run/fcn32s"),
        (Path("s3://bucket"), "s3://bucket"),
        ("runs/voc", None),
        ("/runs/voc", None),
        ("C:/runs/voc", None),
        ("runs/s3:/voc", None),
        ("s3:", None),
        ("runs: first", None),
    ],
)
def test_find_url(words, url):
    assert find_url(words) == url


def test_make_absolute_leaves_urls_alone(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert find_url(make_absolute(Path("s3://bucket/run"))) == "s3://bucket/run"
    assert make_absolute(Path("runs/voc")) == tmp_path / "runs/voc"
    assert make_absolute(Path("~/voc")) == Path("/home/someone/voc")


def test_an_unknown_store_is_refused():
    with pytest.raises(InputError, match=r"^http://host/run is neither a folder here nor in a bucket; give .*s3://"):
        open_bucket("http://host/run")


@pytest.mark.parametrize(("url", "package"), [("s3://bucket/run", "s3fs"), ("gs://bucket/run", "gcsfs")])
def test_a_missing_package_is_named_with_the_extra(monkeypatch, url, package):
    monkeypatch.setattr(importlib.import_module("fsspec.registry"), "_registry", {})
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        InputError, match=rf'^{url} needs another package \(.*{package}.*pip install "fcn-jax\[bucket\]"$'
    ):
        open_bucket(url)


def test_errors_of_a_store_are_explained():
    text = r"^s3://b/run cannot be used \(no such bucket\); check that the bucket exists"
    with pytest.raises(InputError, match=text), explain_refusal("s3://b/run"):
        raise PermissionError("no such bucket\nand more lines")
    with pytest.raises(InputError, match=r"^it is told already$"), explain_refusal("s3://b/run"):
        raise InputError("it is told already")
