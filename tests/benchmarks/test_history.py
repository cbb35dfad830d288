"""Rows of the history: what a benchmark appends, and that a line is whole or absent."""

import csv
import subprocess
import sys
from pathlib import Path

import history
import machine
import pytest

BENCHMARKS = Path(history.__file__).parent


@pytest.fixture
def recorder(tmp_path, monkeypatch) -> history.Recorder:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    arguments = ["/here/benchmarks/startup.py", "--quick", "--voc", "/data==1/VOCdevkit", "--history", "h.csv"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(machine, "describe_machine", lambda: "a machine")
    return history.Recorder("startup", True, tmp_path / "history.csv")


def test_a_measurement_becomes_a_row(recorder):
    added = recorder.add("warm start", "a, b", "s", [2.0, 5.0, 4.0], "PyTorch script", [1.0, 4.0, 6.0], 'said "so"')
    with open(recorder.file, newline="") as stream:
        row, *more = csv.DictReader(stream)
    assert not more
    # Times: the peer's over ours, in each round.
    assert float(row["ratio"]) == 0.8
    assert (float(row["ratio_low"]), float(row["ratio_high"]), row["rounds"]) == (0.5, 1.5, "3")
    # Quartiles of 0.5, 0.8 and 1.5 lie halfway to the median.
    assert (float(row["ratio_q1"]), float(row["ratio_q3"])) == (0.65, 1.15)
    assert history.describe_ratio(added) == "0.80 [0.65, 1.15]"
    assert (float(row["ours"]), float(row["peer_value"]), row["unit"]) == (4.0, 4.0, "s")
    assert (row["benchmark"], row["quick"], row["machine"], row["environment"]) == (
        "startup", "True", "a machine", "huge pages",
    )  # fmt: skip
    assert row["command"] == (
        "GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python benchmarks/startup.py --quick --voc VOCdevkit"
    )
    assert (row["task"], row["setting"], row["note"]) == ("warm start", "a, b", 'said "so"')
    assert history.read(recorder.file) == [added]


def test_of_rates_ours_is_divided_by_the_peers(recorder):
    assert recorder.add("files", "camvid", "images/s", [30.0], "PyTorch", [20.0]).ratio == 1.5


def test_ours_and_the_peers_have_the_same_rounds(recorder):
    with pytest.raises(ValueError, match="argument 2 is longer"):
        recorder.add("forward", "64", "ms", [1.0, 2.0, 9.0], "Flax", [8.0, 10.0])


def test_a_single_round_is_its_own_quartiles(recorder):
    added = recorder.add("memory", "a", "GB", [2.0], "PyTorch", [4.0])
    assert (added.ratio, added.ratio_q1, added.ratio_q3) == (0.5, 0.5, 0.5)
    assert history.describe_ratio(added) == "0.50"


def test_without_a_peer_there_is_no_ratio(recorder):
    recorder.add("cold start", "c", "s", [3.0])
    (row,) = history.read(recorder.file)
    assert (row.peer, row.peer_value, row.ratio, row.ours) == ("", None, None, 3.0)


def test_a_line_that_is_no_row_is_named(recorder):
    recorder.add("cold start", "c", "s", [3.0])
    with open(recorder.file, "a") as stream:
        stream.write("2026-11-25,half a\n")
    with pytest.raises(ValueError, match=r"row 3 of .* has 2 cells"):
        history.read(recorder.file)


def test_other_columns_are_refused(tmp_path):
    file = tmp_path / "other.csv"
    file.write_text("date,commit\n")
    with pytest.raises(ValueError, match="the columns date, commit"):
        history.read(file)


@pytest.fixture
def earlier(tmp_path) -> Path:
    """A file from before the quartiles, with two rows."""
    file = tmp_path / "earlier.csv"
    row = dict.fromkeys(history.EARLIER, "") | {"quick": "False", "ours": "2.5", "ratio": "1.1", "ratio_low": "0.9"}
    lines = [",".join(history.EARLIER), *[",".join(row.values())] * 2]
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_file_from_before_the_quartiles_is_read(earlier):
    rows = history.read(earlier)
    assert [(row.ours, row.ratio, row.ratio_low, row.ratio_q1, row.ratio_q3) for row in rows] == [
        (2.5, 1.1, 0.9, None, None)
    ] * 2
    assert history.describe_ratio(rows[0]) == "1.10"


def test_nothing_is_appended_to_a_file_from_before_the_quartiles(earlier):
    before = earlier.read_text()
    with pytest.raises(ValueError, match=r"earlier.csv has the columns of an earlier version.*--history"):
        history.Recorder("startup", True, earlier, "a machine")
    assert earlier.read_text() == before


def test_processes_that_append_at_once_lose_nothing(recorder):
    """Each of six creates the file or finds it, and writes whole lines."""
    example = recorder.add("t", "s", "s", [1.0])
    recorder.file.unlink()
    script = "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import history\n" + (
        f"row = history.{example!r}\nfor _ in range(50): history.append(Path(sys.argv[2]), row)"
    )
    command = [sys.executable, "-c", script, str(BENCHMARKS), str(recorder.file)]
    running = [subprocess.Popen(command) for _ in range(6)]
    assert [process.wait() for process in running] == [0] * 6
    assert history.read(recorder.file) == [example] * 300


def test_the_commit_is_the_one_that_is_checked_out():
    git = ["git", "-C", str(BENCHMARKS), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("no git repository is here")
    assert machine.describe_commit().removesuffix("-dirty") == done.stdout.strip()


def test_a_folder_without_git_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert machine.describe_commit() == "unknown"
