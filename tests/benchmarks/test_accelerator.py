"""accelerator.sh with a Python that only notes its calls, and those of its parts that need no accelerator."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import accelerator_check
import camvid
import history
import inference
import machine
import pytest
import train_step

import fcn_jax.layers
from fcn_jax.presets import PRESETS

SCRIPT = Path(history.__file__).with_name("accelerator.sh")
PARTS = ("train224", "train512", "inference", "layers", "camvid")
# It imports torch unless NO_TORCH is set, lists packages as Python does, and runs nothing else.
PYTHON = f"""#!/bin/bash
case $1 in
  -c) [ -z "$NO_TORCH" ]; exit ;;
  -) exec {sys.executable} "$@" ;;
esac
echo "$*" >>calls
case "$*" in
  $SLEEPS) exec sleep 60 ;;
  $FAILS) exit 3 ;;
esac
"""


@pytest.fixture
def project(tmp_path) -> Path:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "accelerator.sh").write_text(SCRIPT.read_text())
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


def run(project: Path, *words: str, **variables: str) -> tuple[int, list[str], dict[str, str]]:
    """Return the exit code, the calls of Python, and how each part ended, without its seconds."""
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(project / "python"), **variables}
    done = subprocess.run(
        ["bash", "benchmarks/accelerator.sh", *words],
        cwd=project, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    calls = project / "calls"
    ends = dict(re.findall(r"^(\w+): (.*), \d+ s$", done.stdout, re.MULTILINE)) if done.stdout else {}
    return done.returncode, calls.read_text().splitlines() if calls.exists() else [done.stderr], ends


def test_all_parts_run_in_order(project):
    (project / "data").mkdir()
    (project / "weights.h5").touch()
    code, calls, ends = run(project, "--quick", CAMVID="data", HED="weights.h5", OUT="out")
    assert code == 0
    assert ends == dict.fromkeys(("check", *PARTS), "done")
    check, *parts = calls
    assert check == "benchmarks/accelerator_check.py --quick"
    assert all(call.endswith(" --quick --history out/history.csv") for call in parts)
    assert [re.sub(r" --(quick|seconds).*", "", call).removeprefix("benchmarks/") for call in parts] == [
        "train_step.py --sides 224",
        "train_step.py --sides 512",
        "inference.py batch1",
        "layers.py",
        "camvid.py --data data --weights weights.h5",
    ]
    assert "camvid: done" in (project / "out" / "accelerator.log").read_text()


def test_what_is_missing_is_skipped(project):
    code, calls, ends = run(project, NO_TORCH="1", CAMVID="nowhere")
    assert code == 0
    skipped = [name for name in PARTS if ends[name].startswith("skipped: ")]
    assert skipped == ["train224", "train512", "inference", "camvid"]
    assert calls == ["benchmarks/accelerator_check.py", "benchmarks/layers.py"]


def test_a_part_that_fails_stops_no_other(project):
    code, _, ends = run(project, "train224", "layers", FAILS="*train_step.py*")
    assert code == 1
    assert ends == {"check": "done", "train224": "failed with 3", "layers": "done"}


def test_a_part_ends_with_its_time_and_the_next_begins(project):
    code, _, ends = run(project, "layers", "train224", LIMIT="8", SLEEPS="*layers.py*")
    assert code == 0
    assert ends == {"check": "done", "layers": "cut", "train224": "done"}


def test_a_failed_check_ends_the_run(project):
    code, calls, ends = run(project, FAILS="*check*")
    assert code == 3
    assert calls == ["benchmarks/accelerator_check.py"]
    assert not ends


def test_an_unknown_part_is_refused(project):
    code, (message, *_), _ = run(project, "train300")
    assert code == 1
    assert "there is no part train300; parts are train224, train512, inference, layers, camvid" in message


def test_packages_that_are_present_are_not_installed(project):
    (project / "wheels").mkdir()
    code, calls, _ = run(project, "layers", WHEELS="wheels")
    assert code == 0
    assert calls == ["benchmarks/accelerator_check.py", "benchmarks/layers.py"]


def test_packages_that_are_missing_come_from_the_folder(project):
    """A Python without site packages has none of them."""
    (project / "wheels").mkdir()
    python = project / "python"
    python.write_text(PYTHON.replace('"$@" ;;', '-I -S "$@" ;;'))
    _, calls, _ = run(project, "layers", WHEELS="wheels")
    assert calls[0].startswith("-m pip install -q --disable-pip-version-check --no-index --no-deps ")
    assert "--find-links wheels --target " in calls[0]
    assert calls[0].endswith(" wrapt promise")


def test_a_method_that_differs_is_named(monkeypatch):
    accelerator_check.check_methods()
    right = fcn_jax.layers.max_pool

    def wrong(x, *arguments, method):
        return right(x, *arguments, method=method) * (1.0 if method == "plain" else 1.1)

    monkeypatch.setattr(fcn_jax.layers, "max_pool", wrong)
    with pytest.raises(SystemExit, match=r"max_pool differs by 0\.1 between the methods None and plain"):
        accelerator_check.check_methods()


def test_missing_packages_are_named(monkeypatch):
    assert accelerator_check.find_missing() == []
    monkeypatch.setattr("importlib.metadata.distributions", lambda: iter(()))
    assert {"jax", "tensorflow-datasets", "tyro"} <= set(accelerator_check.find_missing())


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_camvid_takes_the_steps_that_fit_and_records_the_last_score(tmp_path, monkeypatch, share):
    full = PRESETS[camvid.PRESET].config.steps
    steps, seconds = int(share * full), int(share * camvid.ENOUGH)
    last = {"step": full // 2, "mean_iu": 0.5, "pixel_accuracy": 0.9}
    scores, asked = [last | {"step": 1, "mean_iu": 0.4}, last], []
    monkeypatch.setattr(machine, "describe_machine", lambda: "a machine")
    monkeypatch.setattr(camvid, "train", lambda *arguments: asked.append(arguments[2]) or scores)
    file = tmp_path / "history.csv"
    words = ["camvid.py", "--data", "d", "--weights", "w", "--seconds", str(seconds), "--history", str(file)]
    monkeypatch.setattr(sys, "argv", words)
    camvid.main()
    assert asked == [steps]
    rows = history.read(file)
    assert [row.task for row in rows] == ["val mean IU", "val pixel accuracy", "time, compilations included"]
    assert [row.ours for row in rows[:2]] == [0.5, 0.9]
    stopped = "" if share == 0.5 else f", stopped: the score is that of step {full // 2}"
    assert {row.setting for row in rows} == {f"CamVid, camvid-quick, {steps} steps, seed 0{stopped}"}


def test_camvid_keeps_the_scores_of_a_run_that_it_stops(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    lines = ['{"step": 10, "split": "train", "loss": 1.0}', '{"step": 10, "split": "val", "mean_iu": 0.3}']
    (tmp_path / "run" / "metrics.jsonl").write_text("\n".join(lines))
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command: popen(["sleep", "60"]))
    (score,) = camvid.train(Path("d"), Path("w"), 900, tmp_path, 1)
    assert score["mean_iu"] == 0.3


class FakeWorker:
    """A worker whose calls take given seconds, one after the other, again and again."""

    living = 0  # workers that are started and not ended

    def __init__(self, seconds: list[float]):
        self.seconds = itertools.cycle(seconds)

    def __enter__(self) -> "FakeWorker":
        FakeWorker.living += 1
        return self

    def __exit__(self, *_: object) -> None:
        FakeWorker.living -= 1

    def wait_until_ready(self) -> None:
        assert FakeWorker.living == 8  # of two networks and two dtypes, or two batches and two dtypes

    def measure(self, name: str, calls: int = 1) -> float:
        assert name in ("step", "forward", "segment")
        return next(self.seconds)

    def ask(self, name: str) -> float:
        return {"memory": 1e9, "flops": 1e9}[name]


@pytest.fixture
def gpu(monkeypatch) -> None:
    monkeypatch.setattr(machine, "describe_machine", lambda: "a GPU")
    for script in (inference, train_step):
        monkeypatch.setattr(script, "has_gpu", lambda: True)


def test_on_a_gpu_every_training_step_is_measured_in_both_dtypes(tmp_path, monkeypatch, gpu):
    monkeypatch.setattr(train_step, "start", lambda _, name, **case: FakeWorker([{"ours": 1.0, "pytorch": 2.0}[name]]))
    file = tmp_path / "history.csv"
    monkeypatch.setattr(sys, "argv", ["train_step.py", "--sides", "224", "512", "--history", str(file)])
    train_step.main()
    rows = [row for row in history.read(file) if row.task == "training step"]
    assert {row.setting for row in rows} == {
        f"FCN-8s {network}, {size}², {dtype}"
        for network in ("resnet34", "vgg16") for size in ("16 x 224", "8 x 512") for dtype in ("float32", "bfloat16")
    }  # fmt: skip
    assert [(row.ours, row.ratio, row.rounds) for row in rows] == [(16.0, 2.0, 15)] * 4 + [(8.0, 2.0, 15)] * 4


def test_on_a_gpu_all_cases_of_inference_compile_together(tmp_path, monkeypatch, gpu):
    # Two calls that warm up and 15 rounds: with a cycle of three each value has five rounds.
    seconds = {"ours": [0.1, 0.2, 0.4], "pytorch": [0.2, 0.2, 0.2]}
    monkeypatch.setattr(inference, "start", lambda _, name, **case: FakeWorker(seconds[name]))
    file = tmp_path / "history.csv"
    inference.in_memory(history.Recorder("inference", False, file), [1, 16], 15)
    rows = history.read(file)
    assert [row.setting.rpartition(", ")[2] for row in rows] == ["float32", "bfloat16"] * 2
    for row, batch in zip(rows, (1, 1, 16, 16), strict=True):
        assert (row.ours, row.ratio, row.rounds) == (5.0 * batch, 1.0, 15)
        assert (row.ratio_low, row.ratio_q1, row.ratio_q3, row.ratio_high) == (0.5, 0.5, 2.0, 2.0)


@pytest.mark.slow
def test_the_table_of_a_gpu_can_be_made(tmp_path, monkeypatch):
    """On the CPU, with PyTorch on the CPU if it is installed."""
    import layers

    monkeypatch.setattr(machine, "describe_machine", lambda: "a machine")
    monkeypatch.setattr(layers, "CASES", ((4, 2, 4),))
    monkeypatch.setattr(layers, "COPIED", 1 << 10)
    file = tmp_path / "history.csv"
    layers.gpu_table(history.Recorder("layers", True, file), 1)
    rows = history.read(file)
    for title in layers.PASSES.values():
        for dtype in ("float32", "bfloat16"):
            setting = f"4, 2, 4², batch 16, {dtype}"
            peers = {row.peer for row in rows if (row.task, row.setting) == (f"{layers.LEARNED}, {title}", setting)}
            assert {"nn.ConvTranspose", "our method matmul", "our method conv", "our method dilated"} <= peers
