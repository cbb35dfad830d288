"""PyTorch, for tests that compare with it."""

from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    return pytest.importorskip("torch")
