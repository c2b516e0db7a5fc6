"""A shutdown that is soft (Celery 5.5), then cold: tasks may end for a while, the rest is cut."""

from __future__ import annotations

import signal

import celery

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import CONTROLLED, Start, exits, losses, measured, reporters_of

SOFT = tuple(map(int, celery.__version__.split(".")[:2])) >= (5, 5)
"""Those before know no soft shutdown, and cut every task at once."""


def test_terminated_tasks_are_no_losses_however_long_another_ignores_the_shutdown(
    start: Start, receiver: Receiver
) -> None:
    environ = {**CONTROLLED, "TEST_SOFT_SHUTDOWN_S": "1.5"}
    with start(arguments=["--concurrency=3"], environ=environ) as worker:
        worker.run("noop")
        # The first ends in time, the second is cut, the third ends when it likes: the pool is
        # waited for until then, and only afterwards Celery sends its signal.
        for task, seconds in (("sleep", 1), ("sleep", 60), ("stubborn", 6)):
            worker.send(task, seconds)
        worker.wait_accepted("sleep", 2)
        worker.wait_accepted("stubborn")
        wait_until("it is stubborn", lambda: worker.in_task("stubborn"), 10)
        worker.server.process.send_signal(signal.SIGQUIT)
        worker.server.process.wait(60)
        assert reporters_of(worker.pid) == []
    assert measured(receiver.received) == {"noop": 1, "sleep": 2, "stubborn": 1}
    assert exits(receiver.received) == {"shutdown": 3}
    assert losses(receiver.received) == []
    assert ("Initiating Soft Shutdown" in worker.log()) is SOFT
