"""How a process ended, as /proc tells it until somebody reaps it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from otel_celery_memory.probes.procfs import read_exit_code


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise SystemExit(3)", 3),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.abort()", -6),
        ("", None),
    ],
)
def test_how_a_process_ended_can_be_read_until_it_is_reaped(
    code: str, expected: int | None
) -> None:
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert read_exit_code(process.pid) == expected
        process.wait()
        assert read_exit_code(process.pid) is None


def test_of_a_process_that_runs_no_end_is_read(tmp_path: Path) -> None:
    assert read_exit_code(os.getpid()) is None
    stat = tmp_path / "41" / "stat"
    stat.parent.mkdir()
    for text in ("", "41 (a) Z) S " + "1 " * 60, "41 (Z) Z 1 2 3", "41 (Z) Z " + "x " * 60):
        stat.write_text(text)
        assert read_exit_code(41, tmp_path) is None
    stat.write_text("41 (Z) S) Z " + "0 " * 48 + "139 ")
    assert read_exit_code(41, tmp_path) == -11
