"""Tables of the history: RESULTS.md is what the command makes, and its medians and ranges are right."""

import dataclasses
import statistics

import history
import history_tables
import pytest
import results
from history_tables import Column, Headline, Table

EXAMPLE = history.Measurement(
    date="2026-01-01", commit="aaaaaaa", machine="M", environment="", load=0.1, versions="jax 1",
    benchmark="train_step", quick=False, task="step", setting="net", ours=10.0, unit="images/s", peer="PyTorch",
    peer_value=8.0, ratio=1.25, ratio_low=1.25, ratio_high=1.25, ratio_q1=None, ratio_q3=None, rounds=1,
    command="python b.py", note="",
)  # fmt: skip
TABLE = Table(
    "train_step",
    ("setting",),
    ("network",),
    (
        Column("ours", history_tables.ours(), "step"),
        Column("peer", history_tables.peer_value, "step"),
        Column("ratio", history_tables.ratio, "step"),
        Column("memory", history_tables.ours(), "memory"),
        Column("runs", history_tables.runs, "step"),
    ),
)


def vary(**changes) -> history.Measurement:
    return dataclasses.replace(EXAMPLE, **changes)


def rows_of(text: str) -> list[list[str]]:
    """Cells of the tables' rows, without headings."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    cells = [line.strip("| ").split(" | ") for line in lines]
    return [row for row in cells if row[0] not in ("network", "task")]


def test_results_are_made_from_the_history():
    written = results.RESULTS.read_text(encoding="utf-8")
    made = history_tables.write_tables(written, results.make_all(history.read(history.FILE)))
    assert made == written, "run `python benchmarks/results.py`"


def test_every_headline_and_every_table_has_rows():
    measurements = history.read(history.FILE)
    measured = {m.benchmark for m in measurements}
    for headline in results.SUMMARY:
        assert rows_of(history_tables.make_summary([headline], measurements)), headline
    for name, table in results.TABLES.items():
        if table.benchmark in measured:  # a new benchmark has a place before it has figures
            assert rows_of(history_tables.make_table(table, measurements)), name


def test_medians_and_ranges_of_the_runs():
    values = [(10.0, 8.0, 1.2, 1.1, 1.3), (14.0, 7.0, 2.0, 0.7, 2.2), (11.0, 9.0, 1.5, 1.4, 4.5)]
    names = ("ours", "peer_value", "ratio", "ratio_low", "ratio_high")
    rows = [vary(**dict(zip(names, run, strict=True))) for run in values]
    ours, theirs, ratios, lows, highs = zip(*values, strict=True)
    expected = [
        f"{statistics.median(ours):g}",
        f"{statistics.median(theirs):g}",
        f"{statistics.median(ratios):.2f} ({min(lows):.2f} to {max(highs):.2f})",
        "3",
    ]
    assert rows_of(history_tables.make_table(TABLE, rows)) == [["net", *expected]]
    summary = history_tables.make_summary([Headline("train_step", "step", "net", "PyTorch")], rows)
    assert rows_of(summary) == [
        ["step, net", "11 images/s", "PyTorch, 8 images/s", expected[2], "3", "`python b.py`", "aaaaaaa", "M"]
    ]


def test_a_headline_takes_every_setting_that_fits_its_pattern():
    rows = [vary(setting=setting) for setting in ("84 files", "12 files", "a net", "84 files")]
    summary = history_tables.make_summary([Headline("train_step", "step", "* files", "PyTorch")], rows)
    assert [(row[0], row[4]) for row in rows_of(summary)] == [("step, 84 files", "2"), ("step, 12 files", "1")]


def test_of_runs_by_turns_the_quartiles_are_shown():
    one = vary(ratio=1.1, ratio_low=0.5, ratio_high=3.0, ratio_q1=1.0, ratio_q3=1.3)
    assert rows_of(history_tables.make_table(TABLE, [one]))[0][3] == "1.10 [1.00, 1.30]"
    several = [one, vary(ratio=1.4, ratio_q1=1.35, ratio_q3=1.45), vary(ratio=1.2, ratio_q1=0.9, ratio_q3=1.25)]
    assert rows_of(history_tables.make_table(TABLE, several))[0][3:] == ["1.20 [0.90, 1.45]", "3"]


def test_runs_by_turns_replace_the_others_of_their_task_and_machine():
    other = [vary(), vary(setting="another"), vary(task="memory", peer="", ratio=None, ours=3.0), vary(machine="N")]
    former = vary(task="first pass")
    by_turns = vary(ratio=2.0, ratio_q1=1.9, ratio_q3=2.1)
    text = history_tables.make_table(TABLE, [*other, by_turns])
    assert rows_of(text) == [["net", "10", "8", "2.00 [1.90, 2.10]", "3", "1"], ["net", "10", "8", "1.25", "1"]]
    assert len(rows_of(history_tables.make_table(TABLE, other))) == 3
    assert former in history_tables.last_runs([former, by_turns])


def test_only_the_last_full_runs_count():
    rows = [vary(ours=float(index), commit=f"c{index}") for index in range(1, 9)]
    rows.append(vary(ours=1000.0, quick=True, commit="quick"))
    text = history_tables.make_table(TABLE, rows)
    # 4 to 8: the last five, whose median is 6; the short form is newer and left out.
    assert rows_of(text) == [["net", "6", "8", "1.25", "5"]]
    assert "commit c8:" in text


def test_machines_have_tables_of_their_own():
    rows = [vary(), vary(machine="GPU", ours=100.0), vary(environment="huge pages", ours=20.0)]
    text = history_tables.make_table(TABLE, rows)
    assert [row[1] for row in rows_of(text)] == ["10", "100", "20"]
    assert [line.split(";")[0] for line in text.splitlines() if line.endswith(":")] == ["M", "GPU", "M, huge pages"]


def test_tasks_stand_in_one_row_and_empty_columns_are_left_out():
    memory = vary(task="memory", ours=1.5, unit="GB", peer="", ratio=None)
    both = history_tables.make_table(TABLE, [vary(), memory])
    assert rows_of(both) == [["net", "10", "8", "1.25", "1.5", "1"]]
    assert "memory" in both
    assert "memory" not in history_tables.make_table(TABLE, [vary()])


def test_a_run_known_by_its_ratio_alone_counts():
    rows = [vary(ratio=1.0, ratio_low=None, ratio_high=None, ours=None, peer_value=None), vary()]
    assert rows_of(history_tables.make_table(TABLE, rows)) == [["net", "10", "8", "1.12 (1.00 to 1.25)", "2"]]


def test_text_outside_the_places_stays():
    text = "# A\n\n<!-- table: one -->\nold\n<!-- end -->\n\nprose\n"
    expected = "# A\n\n<!-- table: one -->\n| new |\n<!-- end -->\n\nprose\n"
    assert history_tables.write_tables(text, {"one": "| new |"}) == expected
    assert history_tables.write_tables(expected, {"one": "| new |"}) == expected


@pytest.mark.parametrize("tables", [{}, {"one": "", "two": ""}, {"two": ""}])
def test_places_and_tables_must_agree(tables):
    with pytest.raises(ValueError, match="places for one"):
        history_tables.write_tables("<!-- table: one -->\n<!-- end -->\n", tables)


def test_a_row_appended_by_a_benchmark_appears(tmp_path, monkeypatch):
    import machine
    import train_step

    found = {"ours step": [2.0, 2.0], "peer step": [5.0, 6.0], "ours forward": [1.0, 1.0], "peer forward": [3.0, 3.0]}
    found |= {"jax.jit": [10.0, 3.0], "jit_options": [2.5, 2.5], "ours memory": [3e9], "peer memory": [2e9]}
    monkeypatch.setattr(machine, "describe_machine", lambda: "M")
    file = tmp_path / "history.csv"
    case = {"network": "resnet34", "side": 224, "batch": 8, "dtype": "float32"}
    train_step.record(history.Recorder("train_step", False, file), case, found, 4e9)
    text = history_tables.make_table(results.TABLES["train_step"], history.read(file))
    # 8 images in 2 s against 5 and 6 s; the plain steps against the same; 4 GFLOP in 2 s; 3 GB against 2 GB.
    cells = rows_of(text)[-1]
    assert cells[:4] == ["FCN-8s resnet34, 8 x 224², float32", "4", "1.47", "2.75 [2.62, 2.88]"]
    assert cells[4:] == ["3.00", "1.25 [0.88, 1.62]", "2.20 [2.10, 2.30]", "2", "1.50", "1"]


def test_runtimes_of_an_exported_network_have_a_row_each(tmp_path, monkeypatch):
    import exported
    import machine

    monkeypatch.setattr(machine, "describe_machine", lambda: "M")
    file = tmp_path / "history.csv"
    speeds = {"fcn_jax, float32": [2.0, 4.0], "onnxruntime, int8": [5.0, 6.0]}
    scores = {"fcn_jax, float32": 0.61234, "onnxruntime, int8": 0.6}
    exported.record(history.Recorder("exported", False, file), "net, 2 images", speeds, scores)
    text = history_tables.make_table(results.TABLES["exported"], history.read(file))
    shown = "2.00 [1.75, 2.25]"  # of the ratios 5 / 2 and 6 / 4 of the rounds
    first, second = (line for line in text.splitlines() if "; net, 2 images" in line)
    assert first == "| fcn_jax, float32; net, 2 images | 3 |  | 61.23 | 1 |"
    assert second == f"| onnxruntime, int8; net, 2 images | 5.5 | {shown} | 60 | 1 |"
