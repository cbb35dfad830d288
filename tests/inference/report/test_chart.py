"""Line charts: their points lead back to the numbers."""

import re

import pytest

from fcn_jax.inference.report.chart import HEIGHT, MOST_POINTS, WIDTH, choose_step, draw_chart


def read_back(chart, line) -> list[tuple[float, float]]:
    """The numbers of a line, by the ticks of the chart."""
    first, last = chart.y_ticks[0], chart.y_ticks[-1]
    left, right = chart.x_ticks[0], chart.x_ticks[-1]
    scale = (float(last.text) - float(first.text)) / (last.place - first.place)
    across = float(right.text.replace(",", "")) / (right.place - left.place)
    pairs = re.findall(r"([\d.-]+) ([\d.-]+)", line.path)
    return [(across * (float(x) - left.place), float(first.text) + scale * (float(y) - first.place)) for x, y in pairs]


def test_points_lie_where_the_ticks_say():
    loss = [(10.0, 2.5), (1500.0, 0.7), (3000.0, 0.4)]
    chart = draw_chart("Loss", [("train", loss), ("none", []), ("val", [(3000.0, 0.5)])])
    assert [line.name for line in chart.lines] == ["train", "val"]
    for (x, y), (step, value) in zip(read_back(chart, chart.lines[0]), loss, strict=True):
        assert x == pytest.approx(step, abs=3000 / WIDTH)
        assert y == pytest.approx(value, abs=3 / HEIGHT)
    assert all(0 <= tick.place <= WIDTH for tick in chart.x_ticks)
    assert all(0 <= tick.place <= HEIGHT for tick in chart.y_ticks)
    assert float(chart.y_ticks[0].text) == 0
    assert float(chart.y_ticks[-1].text) >= 2.5
    assert "train: 2.5 at step 10, 0.4 at step 3000" in chart.description


@pytest.mark.parametrize("values", [[0.0, 0.0], [5.0], [-1.0, -3.0], [1e-9, 2e-9], [3e7, 1.0]])
def test_any_numbers_fit_into_the_box(values):
    chart = draw_chart("x", [("x", [(float(i), value) for i, value in enumerate(values)])])
    for x, y in re.findall(r"([\d.-]+) ([\d.-]+)", chart.lines[0].path):
        assert 0 <= float(x) <= WIDTH
        assert 0 <= float(y) <= HEIGHT
    assert 2 <= len(chart.y_ticks) <= 12


def test_without_points_there_is_no_chart():
    assert draw_chart("x", [("x", [])]) is None


def test_long_lines_are_thinned_and_keep_their_end():
    points = [(float(step), step % 7.0) for step in range(25_000)]
    chart = draw_chart("x", [("x", points)])
    assert chart.lines[0].path.count("L") <= MOST_POINTS
    assert chart.lines[0].last[0] == WIDTH


@pytest.mark.parametrize("length", [0.003, 1.0, 1.7, 42.0, 999.0, 1e6])
def test_there_are_about_five_ticks(length):
    step = choose_step(length)
    assert 3 <= length / step <= 9
    assert f"{step:e}"[0] in "125"


@pytest.mark.parametrize("last", [1, 2, 3, 5])
def test_the_steps_of_a_short_run_have_one_tick_each(last):
    chart = draw_chart("loss", [("train", [(float(step), 1.0) for step in range(last + 1)])])
    labels = [tick.text for tick in chart.x_ticks]
    assert labels == list(map(str, range(last + 1)))
