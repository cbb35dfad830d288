"""Trainings into a bucket of a real S3 server on this machine (moto), against trainings into a folder."""

import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import both_end_well, end_all, free_address, start, start_all
from small_trainings import read, steps, words, write_data

from fcn_jax.runs.mirror import copy_for_reading

MISSING = [name for name in ("moto", "s3fs", "flask") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} missing: pip install s3fs 'moto[server]'"),
]
LONG = ("--steps", 160, "--eval-every", 40)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    both_end_well([start(words(data, run, *LONG), 2)], 300)
    return run


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of a server of its own, which this process and those it starts know by their environment."""
    import boto3

    address = free_address()
    host, port = address.split(":")
    command = "import moto.server, sys; moto.server.main(sys.argv[1:])"
    server = subprocess.Popen(
        [sys.executable, "-c", command, "-H", host, "-p", port], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{address}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "any")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for _ in range(300):
            try:
                boto3.client("s3").create_bucket(Bucket="bucket")
                break
            except Exception:  # the server has not started yet
                assert server.poll() is None
                time.sleep(0.2)
        yield "s3://bucket"
    server.terminate()
    server.wait()


def wait_for(file: Path, text: str) -> None:
    for _ in range(1200):
        if file.exists() and text in file.read_text():
            return
        time.sleep(0.1)
    pytest.fail(f"{text} is not in {file} after two minutes")


def assert_same(url: str, run: Path) -> None:
    """Every number is equal, but the loss of val: each process adds up that of its images, and then the sums."""
    with copy_for_reading(Path(url)) as folder:
        got, expected = read(folder), read(run)
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            loss = {"loss": pytest.approx(other["loss"], rel=1e-6)} if other["split"] == "val" else {}
            assert one == other | loss
        scores = json.loads((folder / "checkpoints/scores.json").read_text())
        assert sorted(map(int, scores)) == steps(run)


def test_one_that_is_killed_again_and_again_ends_as_one_in_a_folder(data, bucket, alone):
    url = f"{bucket}/runs/killed"
    work = data / "cache/runs/s3/bucket/runs/killed/process-0/run/metrics.jsonl"
    for step in (50, 90, 130):
        process = start(words(data, url, *LONG), 2)
        wait_for(work, f'"step": {step},')
        process.kill()
        process.communicate()
        time.sleep(1)
    both_end_well([start(words(data, url, *LONG), 2)], 300)
    assert_same(url, alone)


def test_two_with_folders_of_their_own_stop_and_go_on(data, bucket, alone):
    url = f"{bucket}/two"
    work = data / "cache/runs/s3/bucket/two/process-0/run/metrics.jsonl"
    processes = start_all(2, words(data, url, *LONG))
    wait_for(work, '"step": 60,')
    processes[1].send_signal(signal.SIGTERM)
    for status, output in end_all(processes, 200):
        assert status == 75, output
    both_end_well(start_all(2, words(data, url, *LONG)), 200)
    assert_same(url, alone)
