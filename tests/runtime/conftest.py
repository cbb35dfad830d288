"""A machine made of files."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Path:
    """The folder with the system's files of a machine without an accelerator."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("TPU_NAME", raising=False)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nprocessor\t: 1\n")
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 16000000 kB\nMemFree: 1 kB\nMemAvailable: 4000000 kB\n")
    return tmp_path
