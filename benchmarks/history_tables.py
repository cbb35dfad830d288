"""Markdown tables of the history's measurements, and their places in a text.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. Short forms (`quick`) are left out. A table counts the
last `RUNS` runs of each task on each machine. Where a task was measured by turns (turns.py) on a machine, its earlier
comparisons there, which were measured otherwise, no longer count.
"""

import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from history import Measurement
from markdown_table import head, number, row, times

RUNS = 5
PLACE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)

Cell = Callable[[Sequence[Measurement]], str]
Shown = Callable[[float], str]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: text above the column.
        cell: makes the text of a cell from its measurements.
        task: the task whose measurements are shown; None: all tasks.
        peer: the peer whose comparisons are shown; None: any peer or none.
    """

    heading: str
    cell: Cell
    task: str | None = None
    peer: str | None = None

    def takes(self, m: Measurement) -> bool:
        """Return whether the column shows a measurement."""
        return self.task in (None, m.task) and self.peer in (None, m.peer)


@dataclass(frozen=True)
class Table:
    """A table of a benchmark; each machine has its own.

    Attributes:
        benchmark: the benchmark whose measurements are shown.
        by: columns of the history. Measurements with the same values in them share a row, which begins with the values.
        headings: headings of these columns.
        columns: the columns after them.
    """

    benchmark: str
    by: tuple[str, ...]
    headings: tuple[str, ...]
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Headline:
    """A row of the summary: a task of a benchmark, in each setting that fits the pattern `setting` ("* files")."""

    benchmark: str
    task: str
    setting: str
    peer: str = ""


def ratio(measurements: Sequence[Measurement]) -> str:
    """Show the median ratio over the runs, and how it varies.

    Of runs by turns the quartiles stand in brackets: over several runs the lowest and the highest. Of other runs the
    smallest and the largest ratio of all rounds stand in parentheses.
    """
    found = [m for m in measurements if m.ratio is not None]
    if found and all(m.ratio_q1 is not None for m in found):
        middle = statistics.median(m.ratio for m in found)
        low, high = min(m.ratio_q1 for m in found), max(m.ratio_q3 for m in found)
        return times(middle) + (f" [{times(low)}, {times(high)}]" if low != high else "")
    lows = [m.ratio if m.ratio_low is None else m.ratio_low for m in found]
    highs = [m.ratio if m.ratio_high is None else m.ratio_high for m in found]
    return _with_range([m.ratio for m in found], lows, highs, times)


def ours(digits: int = 3) -> Cell:
    """Show the median of our values."""
    return lambda measurements: _median([m.ours for m in measurements if m.ours is not None], digits)


def ours_with_range(digits: int = 3) -> Cell:
    """Show the median of our values and, where they vary, their range, with the unit."""

    def cell(measurements: Sequence[Measurement]) -> str:
        found = [m.ours for m in measurements if m.ours is not None]
        shown = _with_range(found, found, found, lambda value: number(value, digits))
        return f"{shown} {measurements[-1].unit}".strip() if found else ""

    return cell


def ours_with_unit(measurements: Sequence[Measurement]) -> str:
    """Show the median of our values with its unit."""
    shown = ours()(measurements)
    return f"{shown} {measurements[-1].unit}".strip() if shown else ""


def peer_value(measurements: Sequence[Measurement]) -> str:
    """Show the median of the peer's values."""
    return _median([m.peer_value for m in measurements if m.peer_value is not None], 3)


def peer_with_unit(measurements: Sequence[Measurement]) -> str:
    """Name the peer and show the median of its values with its unit."""
    shown = peer_value(measurements)
    return f"{measurements[-1].peer}{f', {shown} {measurements[-1].unit}' if shown else ''}" if measurements else ""


def runs(measurements: Sequence[Measurement]) -> str:
    """Count the runs."""
    return str(len(measurements)) if measurements else ""


def command(measurements: Sequence[Measurement]) -> str:
    """Show the command of the newest run."""
    return f"`{measurements[-1].command}`" if measurements else ""


def commit(measurements: Sequence[Measurement]) -> str:
    """Show the commit of the newest run."""
    return measurements[-1].commit if measurements else ""


def machine(measurements: Sequence[Measurement]) -> str:
    """Name machine and environment of the newest run."""
    last = measurements[-1]
    return last.machine + (f", {last.environment}" if last.environment else "")


def last_runs(measurements: Iterable[Measurement]) -> list[Measurement]:
    """Keep the newest `RUNS` full runs of each task, setting and peer on each machine, in their order.

    A comparison that was not measured by turns is left out where its task has one that was.
    """
    full = [m for m in measurements if not m.quick]

    def get_task(m: Measurement) -> tuple[str, ...]:
        return m.machine, m.environment, m.benchmark, m.task

    by_turns = {get_task(m) for m in full if m.ratio_q1 is not None}
    full = [m for m in full if m.ratio is None or m.ratio_q1 is not None or get_task(m) not in by_turns]
    groups = _grouped(full, lambda m: (m.machine, m.environment, m.benchmark, m.task, m.setting, m.peer))
    kept = {id(m) for found in groups.values() for m in found[-RUNS:]}
    return [m for m in full if id(m) in kept]


def make_summary(headlines: Iterable[Headline], measurements: Iterable[Measurement]) -> str:
    """Make the summary: a row for each headline, machine and setting."""
    kept = last_runs(measurements)
    lines = [head("task", "ours", "peer", "ratio", "runs", "command", "commit", "machine")]
    for line in headlines:
        of_task = [m for m in kept if (m.benchmark, m.task, m.peer) == (line.benchmark, line.task, line.peer)]
        of_task = [m for m in of_task if fnmatchcase(m.setting, line.setting)]
        cells = (
            ours_with_unit if line.peer else ours_with_range(4),
            peer_with_unit,
            ratio,
            runs,
            command,
            commit,
            machine,
        )
        for found in _grouped(of_task, lambda m: (m.machine, m.environment, m.setting)).values():
            lines.append(row(f"{line.task}, {found[0].setting}", *(cell(found) for cell in cells)))
    return "\n".join(lines)


def make_table(table: Table, measurements: Iterable[Measurement]) -> str:
    """Make a table for each machine, below a line on the machine and its newest run; empty columns are left out."""
    kept = [m for m in last_runs(measurements) if m.benchmark == table.benchmark]
    kept = [m for m in kept if any(column.takes(m) for column in table.columns)]
    parts = []
    for of_machine in _grouped(kept, lambda m: (m.machine, m.environment)).values():
        last = of_machine[-1]
        lines = [f"{machine(of_machine)}; {last.versions}; newest run {last.date}, commit {last.commit}:\n"]
        # Rows that begin alike stand together, whenever they were measured.
        begins = list(dict.fromkeys(getattr(m, table.by[0]) for m in of_machine))
        in_order = sorted(of_machine, key=lambda m: begins.index(getattr(m, table.by[0])))
        rows = _grouped(in_order, lambda m: tuple(getattr(m, name) for name in table.by))
        columns = {}
        for column in table.columns:
            cells = [column.cell([m for m in found if column.takes(m)]) for found in rows.values()]
            if any(cells):
                columns[column.heading] = cells
        lines.append(head(*table.headings, *columns))
        lines += [row(*values, *cells) for values, *cells in zip(rows, *columns.values(), strict=True)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def write_tables(text: str, tables: dict[str, str]) -> str:
    """Put each table in its place.

    Raises:
        ValueError: a place names no table, or a table has no place.
    """
    places = [name for _, name, _ in PLACE.findall(text)]
    if sorted(places) != sorted(tables):
        raise ValueError(f"places for {', '.join(sorted(places))}; each of {', '.join(sorted(tables))} must have one")
    return PLACE.sub(lambda found: f"{found[1]}{tables[found[2]]}\n{found[3]}", text)


def _grouped(measurements: Iterable[Measurement], key: Callable[[Measurement], Key]) -> dict[Key, list[Measurement]]:
    groups: dict[Key, list[Measurement]] = defaultdict(list)
    for m in measurements:
        groups[key(m)].append(m)
    return groups


def _median(values: Sequence[float], digits: int) -> str:
    return number(statistics.median(values), digits) if values else ""


def _with_range(values: Sequence[float], lows: Sequence[float], highs: Sequence[float], shown: Shown) -> str:
    if not values:
        return ""
    low, high = shown(min(lows)), shown(max(highs))
    return shown(statistics.median(values)) + (f" ({low} to {high})" if low != high else "")
