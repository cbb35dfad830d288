"""The measurements of all benchmarks, one per line, in `benchmarks/history.csv`.

The columns are the fields of `Measurement`. `results.py` makes the tables of RESULTS.md from them.
"""

import argparse
import csv
import datetime
import io
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import machine
from markdown_table import times

FILE = Path(__file__).parent / "history.csv"
TIMES = ("s", "ms")


@dataclass(frozen=True)
class Measurement:
    """What one run of a benchmark found for one task.

    Attributes:
        date: day of the run, UTC, "2026-11-25".
        commit: short hash of the code, with "-dirty" behind it where files differed from the commit.
        machine: processor and cores, or the accelerator.
        environment: settings of the process that change its speed, such as "huge pages"; may be empty.
        load: the machine's load average before the run; None where it is not known.
        versions: versions of JAX and PyTorch.
        benchmark: name of the script, or "whole_program".
        quick: whether the run was a short form, which the tables leave out.
        task: what is measured.
        setting: the case: network, sizes, dtype.
        ours: median over the rounds, in `unit`; None where only the ratio is known.
        unit: unit of `ours` and `peer_value`.
        peer: name of what ours is compared with; may be empty.
        peer_value: median of the peer.
        ratio: median over the rounds. For times it is the peer's over ours, for all other units ours over the peer's.
        ratio_low: smallest ratio of a round.
        ratio_high: largest ratio of a round.
        ratio_q1: lower quartile of the ratios of the rounds; None in rows that were measured otherwise than by turns.
        ratio_q3: their upper quartile.
        rounds: how often ours and the peer's were measured by turns; None where it is not known.
        command: the command that makes such a row.
        note: conditions that no other column has.
    """

    date: str
    commit: str
    machine: str
    environment: str
    load: float | None
    versions: str
    benchmark: str
    quick: bool
    task: str
    setting: str
    ours: float | None
    unit: str
    peer: str
    peer_value: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    ratio_q1: float | None
    ratio_q3: float | None
    rounds: int | None
    command: str
    note: str


COLUMNS = tuple(field.name for field in fields(Measurement))
QUARTILES = ("ratio_q1", "ratio_q3")
EARLIER = tuple(name for name in COLUMNS if name not in QUARTILES)  # of files from before the quartiles
NUMBERS = ("load", "ours", "peer_value", "ratio", "ratio_low", "ratio_high", *QUARTILES)


class Recorder:
    """Appends the measurements of one run of a benchmark to the history."""

    def __init__(self, benchmark: str, quick: bool, file: Path, platform: str | None = None):
        """Describe the run.

        Args:
            benchmark: name of the script without its suffix.
            quick: whether it is the short form.
            file: the history.
            platform: what the figures hold for, if it is not this machine.

        Raises:
            ValueError: the file is there and has other columns than rows are appended with.
        """
        if file.exists() and _read_header(file) != COLUMNS:
            raise ValueError(
                f"{file} has the columns of an earlier version, and rows of this one do not fit; give another file by "
                "--history."
            )
        self.file = file
        self.quick = quick
        self.run = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "commit": machine.describe_commit(),
            "machine": platform or machine.describe_machine(),
            "environment": machine.describe_environment(),
            "load": round(os.getloadavg()[0], 2),
            "versions": machine.describe_versions(),
            "benchmark": benchmark,
            "quick": quick,
            "command": machine.describe_command(),
        }

    def describe(self) -> str:
        """Return a line on the machine, the versions and the load at the start."""
        environment = f", {self.run['environment']}" if self.run["environment"] else ""
        return f"{self.run['machine']}{environment}, {self.run['versions']}, load at the start {self.run['load']:.1f}"

    def add(
        self,
        task: str,
        setting: str,
        unit: str,
        ours: Sequence[float],
        peer: str = "",
        theirs: Sequence[float] = (),
        note: str = "",
    ) -> Measurement:
        """Append a measurement.

        Args:
            task: what is measured.
            setting: the case.
            unit: unit of the values.
            ours: our value in each round.
            peer: what ours is compared with.
            theirs: the peer's value in the same rounds (turns.py).
            note: conditions that no other column has.

        Returns:
            The measurement that was appended.
        """
        found = ratios(ours, theirs, unit)
        quartiles = statistics.quantiles(found, n=4, method="inclusive") if len(found) > 1 else found * 3
        measurement = Measurement(
            **self.run,
            task=task,
            setting=setting,
            ours=_rounded(statistics.median(ours)),
            unit=unit,
            peer=peer if found else "",
            peer_value=_rounded(statistics.median(theirs)) if found else None,
            ratio=_rounded(statistics.median(found)) if found else None,
            ratio_low=_rounded(min(found)) if found else None,
            ratio_high=_rounded(max(found)) if found else None,
            ratio_q1=_rounded(quartiles[0]) if quartiles else None,
            ratio_q3=_rounded(quartiles[2]) if quartiles else None,
            rounds=len(ours),
            note=note,
        )
        append(self.file, measurement)
        return measurement


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option `--history` to a benchmark's command line."""
    parser.add_argument("--history", type=Path, default=FILE, metavar="FILE", help="CSV file to append the rows to")


def ratios(ours: Sequence[float], theirs: Sequence[float], unit: str) -> list[float]:
    """Compute the ratio of each round: the peer's over ours for times, otherwise ours over the peer's."""
    if not theirs:
        return []
    pairs = zip(theirs, ours, strict=True) if unit in TIMES else zip(ours, theirs, strict=True)
    return [above / below for above, below in pairs]


def describe_ratio(measurement: Measurement) -> str:
    """Show the median of the ratios and, where they are known and differ, their quartiles: "1.05 [0.99, 1.12]"."""
    quartiles = measurement.ratio_q1, measurement.ratio_q3
    if measurement.ratio is None:
        return ""
    if None in quartiles or quartiles[0] == quartiles[1]:
        return times(measurement.ratio)
    return f"{times(measurement.ratio)} [{times(quartiles[0])}, {times(quartiles[1])}]"


def append(file: Path, measurement: Measurement) -> None:
    """Append a line in a single write; create the file with its header if it is missing."""
    if not file.exists():
        _create(file)
    line = _line(["" if value is None else value for value in asdict(measurement).values()])
    with open(file, "ab", buffering=0) as stream:
        before = stream.tell()
        if stream.write(line) != len(line):
            stream.truncate(before)
            raise OSError(f"{file} took a part of a line only; is the disk full?")


def read(file: Path) -> list[Measurement]:
    """Read all measurements, in the order in which they were appended.

    A file of an earlier version lacks the quartiles.

    Raises:
        ValueError: the header is neither `COLUMNS` nor `EARLIER`, or a line has more or fewer cells.
    """
    with open(file, newline="", encoding="utf-8") as stream:
        lines = csv.reader(stream)
        header = tuple(next(lines, []))
        if header not in (COLUMNS, EARLIER):
            raise ValueError(f"{file} has the columns {', '.join(header)}; they must be {', '.join(COLUMNS)}")
        return list(_parsed(file, header, lines))


def _read_header(file: Path) -> tuple[str, ...]:
    with open(file, newline="", encoding="utf-8") as stream:
        return tuple(next(csv.reader(stream), []))


def _parsed(file: Path, columns: Sequence[str], lines: Iterator[list[str]]) -> Iterator[Measurement]:
    for number, cells in enumerate(lines, 2):
        if len(cells) != len(columns):
            raise ValueError(f"row {number} of {file} has {len(cells)} cells; there are {len(columns)} columns")
        row = dict.fromkeys(QUARTILES, "") | dict(zip(columns, cells, strict=True))
        numbers = {name: float(row[name]) if row[name] else None for name in NUMBERS}
        rounds = int(row["rounds"]) if row["rounds"] else None
        yield Measurement(**(row | numbers | {"quick": row["quick"] == "True", "rounds": rounds}))


def _create(file: Path) -> None:
    """Create the file with its header, unless another process creates it at the same time."""
    handle, temporary = tempfile.mkstemp(dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(_line(COLUMNS))
        os.chmod(temporary, 0o644)
        os.link(temporary, file)
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)


def _line(cells: Sequence[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
