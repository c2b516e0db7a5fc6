"""Temporary files in memory are charged to the cgroup, and to no process."""

from __future__ import annotations

import os
from pathlib import Path

from tests.truth.app import app
from tests.truth.case import Case

CASES = (Case("files on a tmpfs", "export", {"export": 4}, kinds=("mapping",), has_line=False),)


@app.task
def export(number: int) -> int:
    """Leaves a file of 32 KiB."""
    path = Path(os.environ["TRUTH_TMPFS"]) / f"{os.getpid()}-{number}"
    return path.write_bytes(bytes(32 << 10))
