"""Geometry of a line chart: paths and ticks in a box of fixed size, which the page's template draws as SVG."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from fcn_jax.inference.report.record import Points

WIDTH, HEIGHT = 640, 260  # of the plotted area, in the units of the SVG
TICKS = 5  # about so many on an axis
MOST_POINTS = 1000  # of a line; of more every second, third, ... is drawn


class Tick(NamedTuple):
    """A mark on an axis: its place in the units of the SVG, and its text."""

    place: float
    text: str


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
        name: text of the legend.
        path: the attribute `d` of an SVG path.
        last: the last point, in the units of the SVG.
        style: number of the colour and the dash, from 0 on.
    """

    name: str
    path: str
    last: tuple[float, float]
    style: int


class Chart(NamedTuple):
    """A line chart over the steps of a training.

    Attributes:
        title: what it shows.
        description: the same in a sentence with first and last values, for those who do not see it.
        lines: one for each series that has points.
        x_ticks: marks on the axis of the steps.
        y_ticks: marks on the axis of the values.
    """

    title: str
    description: str
    lines: Sequence[Line]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    width: int = WIDTH
    height: int = HEIGHT


def draw_chart(title: str, series: Sequence[tuple[str, Points]]) -> Chart | None:
    """Draw a chart of named series of (step, value); None if no series has a point.

    The axis of the values begins at 0.
    """
    series = [(name, points) for name, points in series if points]
    if not series:
        return None
    xs, ys = zip(*(point for _, points in series for point in points), strict=True)
    right, top = max(*xs, 1.0), max(ys)
    low = min(*ys, 0.0)
    x_step, y_step = max(choose_step(right), 1.0), choose_step(top - low or 1.0)  # steps are whole numbers
    bottom = y_step * math.floor(low / y_step)
    top = y_step * max(math.ceil(top / y_step), 1)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        return round(WIDTH * point[0] / right, 1), round(HEIGHT * (top - point[1]) / (top - bottom), 1)

    lines = []
    for style, (name, points) in enumerate(series):
        places = list(map(place, _thin(points)))
        lines.append(Line(name, "M" + " L".join(f"{x:g} {y:g}" for x, y in places), places[-1], style))
    facts = [
        f"{name}: {points[0][1]:.3g} at step {points[0][0]:.0f}, {points[-1][1]:.3g} at step {points[-1][0]:.0f}"
        for name, points in series
    ]
    return Chart(
        title=title,
        description=f"{title} over steps. {'; '.join(facts)}.",
        lines=lines,
        x_ticks=[Tick(place((x, 0.0))[0], f"{x:,.0f}") for x in _list_ticks(0.0, right, x_step)],
        y_ticks=[Tick(place((0.0, y))[1], f"{y:.6g}") for y in _list_ticks(bottom, top, y_step)],
    )


def choose_step(length: float) -> float:
    """Return the distance of ticks on an axis, 1, 2 or 5 times a power of ten, so that there are about `TICKS`."""
    rough = length / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return power * min((1, 2, 5, 10), key=lambda factor: abs(factor * power - rough))


def _list_ticks(first: float, last: float, step: float) -> list[float]:
    return [first + index * step for index in range(math.floor((last - first) / step + 1e-6) + 1)]


def _thin(points: Points) -> Points:
    every = -(-len(points) // MOST_POINTS)
    return [*points[:-1:every], points[-1]]
