"""What we allocate while we measure is no task's leak: a task that keeps nothing has no site."""

from __future__ import annotations

import pytest

import otel_celery_memory
from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import Start
from tests.worker.test_budget import sites


@pytest.mark.parametrize("tracing", ["budget", "always"])
def test_no_line_of_ours_nor_of_the_library_that_we_call_is_reported(
    start: Start, receiver: Receiver, tracing: str
) -> None:
    environ = {
        "OTEL_CELERY_MEMORY_TRACING": tracing,
        "OTEL_CELERY_MEMORY_OVERHEAD_BUDGET": "0.5",
        "OTEL_CELERY_MEMORY_SITES_INTERVAL": "1",
        "OTEL_CELERY_MEMORY_SITES_TOP": "100",
    }

    def traced_often() -> bool:
        for result in [worker.send("noop") for _ in range(20)]:
            result.get(timeout=300)
        # So many in a row that a window which begins with one has more of them.
        for _ in range(6):
            worker.run("churn_and_keep", 1024)
        reported = sites(receiver)
        return any("app.py" in e.attributes["celery.memory.site.name"] for e in reported)

    with start(environ=environ, arguments=["--concurrency=1"]) as worker:
        wait_until("the task's own lines are reported", traced_often, 180)
        for _ in range(3):
            traced_often()
        worker.stop()
    package = otel_celery_memory.__path__[0]
    reported = {str(event.attributes["code.file.path"]) for event in sites(receiver)}
    # Constructors of our data classes are compiled from text, without a file of their own.
    ours = {path for path in reported if path.startswith((package, "<string>"))}
    assert ours | {path for path in reported if path.endswith("/contextlib.py")} == set()
