"""The tests that `./launch.sh test -m smoke` runs: less than a minute, for every change, something of every wing."""

import pytest

# Whole files, or single tests by FILE::NAME, which stands for all parameters of a test. The `slow` ones are left out.
SMOKE = (
    "test_config.py",
    "test_contracts.py",
    "test_launch.py",
    "inference/test_metrics.py",
)


def is_smoke(item: pytest.Item) -> bool:
    file, *names = item.nodeid.removeprefix("tests/").split("::")
    name = names[-1].split("[")[0]
    return item.get_closest_marker("slow") is None and (file in SMOKE or f"{file}::{name}" in SMOKE)
