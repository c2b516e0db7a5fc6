"""The command, ready to run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.running import Command


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, with a directory of its own."""
    return Command(tmp_path, capsys)


@pytest.fixture(autouse=True)
def _of_a_hundred_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the terminal of who runs the tests has."""
    monkeypatch.setenv("COLUMNS", "100")
