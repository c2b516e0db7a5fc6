"""The command, ready to run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.running import Command


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, with a directory of its own."""
    return Command(tmp_path, capsys)
