"""What differs between the configurations of runs."""

from collections.abc import Sequence
from typing import Any

from fcn_jax.inference.report.record import Record
from fcn_jax.runs.run_dir import Run
from fcn_jax.runtime.json_values import flatten, to_json


def compare_runs(runs: Sequence[tuple[Run, Record]]) -> dict[str, list[str]]:
    """Return the values that are not the same in all runs, one for each run, by their names.

    They are those of the configuration, the hash of the data, the commit of the code and the versions of packages.
    """
    columns = [_describe(run, record) for run, record in runs]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = {name: [_format(column.get(name)) for column in columns] for name in names}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def _describe(run: Run, record: Record) -> dict[str, Any]:
    """Describe a run by names and values."""
    origin = {"contents of the data": run.contents, "git": record.git}
    return {**flatten(to_json(run.config)), **origin, **record.versions}


def _format(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_format, value)) or "none"
    return "none" if value is None else str(value)
