"""Runs the command in this process, and keeps what it printed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from otel_celery_memory.captures.format import dump_capture
from otel_celery_memory.captures.model import Capture
from otel_celery_memory.cli import main


@dataclass(frozen=True)
class Printed:
    """How a run of the command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Command:
    """The command ``otel-celery-memory``, in a directory for its files."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self._capsys = capsys

    def file(self, name: str, content: Capture | bytes) -> str:
        """The path of a new file."""
        path = self.directory / name
        path.write_bytes(content if isinstance(content, bytes) else dump_capture(content))
        return str(path)

    def __call__(self, *arguments: str) -> Printed:
        try:
            code = main(arguments)
        except SystemExit as error:
            code = int(error.code or 0)
        printed = self._capsys.readouterr()
        return Printed(code, printed.out, printed.err)
