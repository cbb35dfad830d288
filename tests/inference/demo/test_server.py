"""The socket of a demo, and the description of its run."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fcn_jax.config import DataConfig, DataOptions
from fcn_jax.errors import InputError
from fcn_jax.inference.demo.page import _require_uploaded
from fcn_jax.inference.demo.server import format_url, is_loopback, open_socket
from fcn_jax.inference.demo.subject import describe_run, write_examples
from fcn_jax.runs.run_dir import open_run


@pytest.mark.parametrize(
    ("host", "loopback", "url"),
    [("127.0.0.1", True, "http://127.0.0.1:{}/"), ("localhost", True, None), ("0.0.0.0", False, "http://0.0.0.0:{}/")],
)
def test_a_free_port_is_opened(host, loopback, url):
    with open_socket(host, 0) as opened:
        port = opened.getsockname()[1]
        assert is_loopback(opened) is loopback
        assert url is None or format_url(opened) == url.format(port)
        with socket.create_connection(("127.0.0.1", port)):
            pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_the_address_of_version_6_is_in_brackets():
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    try:
        with open_socket("::1", 0) as opened:
            assert format_url(opened) == f"http://[::1]:{opened.getsockname()[1]}/"
            assert is_loopback(opened)
    except InputError:
        pytest.skip("this machine has no loopback of IPv6")


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 65536, "port is 65536; it must be between 1 and 65535"),
        ("127.0.0.1", -1, "port is -1"),
        ("no-such-host.invalid", 0, r"port 0 of no-such-host\.invalid cannot be opened"),
        ("a" * 300, 0, "cannot be opened"),
    ],
)
def test_bad_places(host, port, message):
    with pytest.raises(InputError, match=message), open_socket(host, port):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_photographs_are_removed_by_a_signal(tmp_path, number):
    code = """
import signal, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
from fcn_jax.inference.demo.server import work_offline
with work_offline() as folder:
    (folder / "photo.png").touch()
    print("in", flush=True)
    time.sleep(60)
"""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in\n"
        assert list(tmp_path.glob("*/photo.png"))
        process.send_signal(number)
        assert process.wait(30) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_said():
    with open_socket("127.0.0.1", 0) as opened:
        port = opened.getsockname()[1]
        with pytest.raises(
            InputError, match=rf"port {port} of 127\.0\.0\.1 cannot be opened \(.*\); give another --port"
        ):
            open_socket("127.0.0.1", port).__enter__()


def test_a_run_is_described_with_its_score(run_dir, tmp_path):
    shutil.copy(run_dir / "config.json", tmp_path)
    lines = [{"step": 1, "split": "train", "loss": 1.0}, {"step": 1, "split": "val", "mean_iu": 0.12345}]
    lines.append({"step": 2, "split": "val", "mean_iu": None})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = open_run(tmp_path)
    assert describe_run(run, 1, []).description == "3 classes, step 1, mean IU 12.3 % on val."
    assert describe_run(run, 2, []).description == "3 classes, step 2, not scored."
    assert describe_run(run, 3, []).title == "fcn8s on resnet18, trained on folder"


def test_examples_are_images_of_val(run_dir, tmp_path):
    run = open_run(run_dir)
    (file,) = write_examples(run, tmp_path / "examples", 6)
    with Image.open(file) as written, Image.open(run_dir.parent / "data" / "images" / "val" / "one.png") as image:
        np.testing.assert_array_equal(np.asarray(written), np.asarray(image))


@pytest.mark.parametrize(
    ("name", "dir", "message"), [("voc2012", None, "voc2012 was downloaded"), ("folder", "gone", "does not exist")]
)
def test_examples_need_data_that_are_there(run_dir, tmp_path, name, dir, message):  # noqa: A002
    run = open_run(run_dir)
    options = DataOptions(dir=dir and tmp_path / dir, cache=tmp_path)
    run = run._replace(
        config=run.config.__class__(**{**vars(run.config), "data": DataConfig(name)}),
        options=run.options.__class__(**{**vars(run.options), "data": options}),
    )
    with pytest.raises(InputError, match=message):
        write_examples(run, tmp_path / "examples", 6)
    assert list(tmp_path.iterdir()) == []


def test_only_photographs_in_the_folder_of_the_visitors_are_read(tmp_path):
    (tmp_path / "visitors").mkdir()
    (tmp_path / "visitors" / "link.png").symlink_to(tmp_path / "private.png")
    uploaded = tmp_path / "visitors" / "a.png"
    assert _require_uploaded(uploaded, tmp_path / "visitors") == uploaded
    for name in ("private.png", "visitors/../private.png", "visitors/link.png"):
        with pytest.raises(InputError, match="this photograph was not given to this page"):
            _require_uploaded(tmp_path / name, tmp_path / "visitors")
