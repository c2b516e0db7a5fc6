"""Each run makes a client whose executor is never shut down: a thread stays behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from otel_celery_memory import conventions as c
from tests.truth.app import app
from tests.truth.case import Case
from tests.truth.findings import KeptByRuns

_clients: list[_Client] = []
CASES = (
    Case(
        "a thread a run",
        "ask",
        {"ask": 3},
        shows=(KeptByRuns("ask", c.THREADS_RETAINED, c.THREADS),),
        kinds=("threads",),
        holder=("_clients",),
    ),
)


class _Client:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1)  # the line

    def size(self, text: str) -> int:
        return self._threads.submit(len, text).result()  # the line


@app.task
def ask(number: int) -> int:
    """Asks in a thread."""
    _clients.append(_Client())
    return _clients[-1].size(f"host-{number}")
