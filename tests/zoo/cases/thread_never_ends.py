"""A thread that never ends keeps something for each job in its thread-locals."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from tests.truth.app import app
from tests.truth.case import Case

_local = threading.local()
_threads: list[ThreadPoolExecutor] = []
CASES = (Case("thread-locals of a thread", "enqueue", {"enqueue": 12}),)


def _work(number: int) -> int:
    if not hasattr(_local, "jobs"):
        _local.jobs = []
    _local.jobs.append(str(number).rjust(6_000))  # the line
    return len(_local.jobs)


@app.task
def enqueue(number: int) -> int:
    """Works in the one thread of its process."""
    if not _threads:
        _threads.append(ThreadPoolExecutor(1))
    return _threads[0].submit(_work, number).result()
