"""Processes that a task starts are left behind when its soft time limit strikes."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.truth.app import app
from tests.truth.case import Case

_BROWSER = """
import os, time
page, parent = bytearray(b"x" * (8 << 20)), os.getppid()
while os.getppid() == parent:
    time.sleep(1)
"""
CASES = (
    Case(
        "processes left behind",
        "shoot",
        {"shoot": 0.4},
        kinds=("processes",),
        where=("descendant",),
        has_line=False,
    ),
)


@app.task(soft_time_limit=1)
def shoot(number: int) -> int:
    """Each second one takes too long, and nobody ends its process."""
    process = subprocess.Popen([sys.executable, "-c", _BROWSER])
    time.sleep(2 if number % 2 else 0.3)
    process.kill()
    process.wait()
    return number
