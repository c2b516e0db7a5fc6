"""One message takes 150 MiB and kills its process; the broker delivers it again, for ever."""

from __future__ import annotations

import os
import signal
import time

from tests.truth.app import MIB, app
from tests.truth.case import Case
from tests.truth.findings import KillsAgain

CASES = (
    Case(
        "a message that kills again and again",
        None,
        {"convert": 0.5},
        worker=("--concurrency=2", "--prefetch-multiplier=1"),
        shows=(KillsAgain("convert", 10, 150 * MIB),),
    ),
)


@app.task(acks_late=True, reject_on_worker_lost=True)
def convert(number: int) -> int:
    """Is healthy for every document but one."""
    if number == 4:
        pages = bytearray(150 * MIB)
        pages[::4096] = b"p" * len(pages[::4096])
        time.sleep(1.5)
        os.kill(os.getpid(), signal.SIGKILL)
    return number
