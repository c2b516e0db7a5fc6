"""A soft time limit comes before the clean-up of some runs: the programs that they started stay."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.truth.app import MIB, app
from tests.truth.case import Case
from tests.truth.findings import LeavesProcesses

_HELD_BYTES = 40 * MIB
_PROGRAM = (
    f"import time; held = bytearray({_HELD_BYTES}); "
    "held[::4096] = b'x' * len(held[::4096]); time.sleep(90)"
)
CASES = (
    Case(
        "processes left by a time limit",
        None,
        {"photograph": 0.3},
        shows=(LeavesProcesses("photograph", _HELD_BYTES),),
        fills=("photograph",),
    ),
)


@app.task(soft_time_limit=2)
def photograph(number: int) -> int:
    """Starts a browser, and ends it unless it is late."""
    browser = subprocess.Popen([sys.executable, "-S", "-c", _PROGRAM])
    time.sleep(4 if number % 2 else 0.5)
    browser.kill()
    browser.wait()
    return number
