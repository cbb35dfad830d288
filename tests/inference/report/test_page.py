"""The content of the page, as HTML."""

import html
import re
from html.parser import HTMLParser

import numpy as np
from drawn_reports import CONFUSION, HOSTILE, NAMES, draw_record, draw_report, draw_run

from fcn_jax.data.labels import palette
from fcn_jax.data.tasks import Task
from fcn_jax.inference.evaluate import TaskScore
from fcn_jax.inference.metrics import compute_metrics
from fcn_jax.inference.report.page import format_duration, format_number, format_percent, render_page


class Page(HTMLParser):
    """The text and the tables of a page, and the names of its elements."""

    def __init__(self, content: str):
        super().__init__()
        self.names, self.ids, self.links, self.tables, self._text = [], [], [], [], []
        self.skipped, self.in_cell = "", False
        self.feed(content)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self._text))

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        attributes = dict(attrs)
        assert not [name for name in attributes if name.startswith("on")]
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [value for name, value in attrs if name in ("href", "src")]
        self.skipped = tag if tag in ("style", "script") else self.skipped
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.skipped = "" if tag == self.skipped else self.skipped
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self.skipped:
            return
        self._text.append(data)
        if self.in_cell:
            self.tables[-1][-1][-1] = (self.tables[-1][-1][-1] + data).strip()

    def table(self, first_heading: str) -> list[list[str]]:
        return next(table for table in self.tables if table[0][0] == first_heading)


def test_names_from_files_are_text():
    content = render_page([draw_report()])
    page = Page(content)
    assert "script" not in page.names
    assert "<script>" not in content
    assert not {"b", "i", "run", "of"} & set(page.names)
    for text in (HOSTILE, NAMES[2], "first <run>", "<b>place</b>", "--data.dir '<i>'", "Field <of> view"):
        assert text in page.text, text


def test_the_page_needs_nothing_outside_of_it():
    page = Page(render_page([draw_report(), draw_report("second")]))
    for link in page.links:
        assert link.startswith(("#", "data:")), link[:80]
    anchors = {link[1:] for link in page.links if link.startswith("#")}
    assert anchors <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_the_scores_are_those_of_the_confusion_matrix():
    page = Page(render_page([draw_report()]))
    metrics = compute_metrics(CONFUSION)
    assert f"mean IU {100 * metrics.mean_iu:.1f} %" in page.text
    assert f"frequency weighted IU {100 * metrics.frequency_weighted_iu:.1f} %" in page.text
    assert "boundary IU 37.5 %" in page.text  # the mean of 50, 25, 75 and 0
    assert "loss 0.75 nats" in page.text
    rows = page.table("class")[1:]
    for row, name, iu, pixels in zip(rows, NAMES, metrics.per_class_iu, CONFUSION.sum(axis=1), strict=True):
        iu = "–" if np.isnan(iu) else f"{100 * iu:.1f}"
        assert (row[0], row[1], row[4]) == (name, iu, f"{pixels:,}")
    assert "1 class has no IU (–)" in page.text
    assert "10 images of shapes val, evenly spread over all 40" in page.text
    assert "names or sizes differ" in page.text


def test_the_rows_of_the_confusion_matrix_are_shares_of_the_truth():
    page = Page(render_page([draw_report()]))
    rows = page.table("")[1:]
    for row, counts in zip(rows, CONFUSION, strict=True):
        expected = [f"{100 * count / counts.sum():.0f}" for count in counts] if counts.any() else ["–"] * 5
        assert row[1:] == expected
    assert rows[3][0] == "never there(absent)"
    first = re.search(r"Largest confusions\s+(\d.*?) is predicted as (\w+)", page.text)
    assert first[1].startswith("75.0 % of a_rather_long")  # 30 of its 40 pixels
    assert first[2] == "sea"


def test_a_run_without_scores_has_what_was_logged():
    record = draw_record()
    record.val[1].update(per_class_iu=[0.5, 0.25, None, "broken", 1], per_class_accuracy=[0.5])
    page = Page(render_page([draw_report(record=record, scores=None, missing="The images are gone.")]))
    assert "The images are gone." in page.text
    assert "37.5 % mean IU" in page.text
    assert "step 30, as the training logged it" in page.text
    assert [row[1:] for row in page.table("class")[1:]] == [
        ["50.0", "–"], ["25.0", "–"], ["–", "–"], ["–", "–"], ["100.0", "–"]
    ]  # fmt: skip
    assert "img" not in page.names
    assert "Examples" not in page.text


def test_a_run_that_has_logged_nothing_says_so():
    record = draw_record(
        train=[], val=[], steps=0, command=None, machine=None, versions={}, git=None, times=None, checkpoints={}
    )
    page = Page(render_page([draw_report(record=record, scores=None)]))
    for text in ("not been evaluated yet", "not logged a number yet", "none yet", "0 of 40; the training goes on",
                 "not stored by the version", "Git unknown", "Versions unknown"):  # fmt: skip
        assert text in page.text


def test_speed_and_origin_are_named():
    page = Page(render_page([draw_report()]))
    for text in ("31 of 40", "1 h 7 min", "0.5 s, 16 images/s", "10 images in 2.0 s, 5 images/s", "12,345,678",
                 "step 15: 90.0 MB", "Preset fcn8s", "a <fast> machine", "0123abcd+", "changes that were not committed",
                 "jax 1.2.3", "abc123", "How the network sees", "It is round."):  # fmt: skip
        assert text in page.text, text
    assert 'alt="A round spot"' in render_page([draw_report()])


def test_several_runs_stand_side_by_side():
    second = draw_report("second", run=draw_run(("sky", "road"), seed=7), scores=None, record=draw_record(git="fff"))
    page = Page(render_page([draw_report(), second]))
    assert page.names.count("h1") == 1
    scores = page.table("run")
    assert [row[0] for row in scores[1:]] == ["first <run>", "second"]
    assert scores[2][1] == "37.5"
    classes = page.table("class")
    assert [row[0] for row in classes[1:]] == [*NAMES, "road"]
    assert classes[1][1] == f"{100 * compute_metrics(CONFUSION).per_class_iu[0]:.1f}"
    assert {row[0]: row[1:] for row in page.table("value")[1:]} == {"seed": ["0", "7"], "git": ["0123abcd+", "fff"]}


def test_equal_runs_differ_in_nothing():
    assert "Nothing: they have the same" in html.unescape(render_page([draw_report("a"), draw_report("b")]))


def test_a_matrix_of_many_classes_is_left_out():
    names = tuple(f"class {index}" for index in range(60))
    scores = draw_report().scores
    confusion = np.eye(60, dtype=np.int64)
    task = TaskScore(Task("", names, palette(60)), compute_metrics(confusion), confusion)
    evaluation = scores.evaluation._replace(tasks=(task,))
    scores = scores._replace(evaluation=evaluation, boundary_iu=(np.ones(60),))
    page = Page(render_page([draw_report(run=draw_run(names), scores=scores)]))
    assert "60 classes are too many" in page.text
    assert "No pixel is wrong." in page.text


def test_numbers_are_written_shortly():
    assert [format_percent(x) for x in (0.12345, 1.0, None, float("nan"))] == ["12.3", "100.0", "–", "–"]
    assert [format_number(x) for x in (0.123456, 1.0, None, float("inf"))] == ["0.123", "1", "–", "–"]
    times = [format_duration(x) for x in (0.25, 59.0, 60.0, 3599.7, 86_400.0)]
    assert times == ["0.2 s", "59.0 s", "1 min 0 s", "1 h 0 min", "24 h 0 min"]
