"""From a lost process to the trace of its task, in a real worker that knows nothing of traces."""

from __future__ import annotations

import signal

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import Start, losses

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}


def test_a_lost_child_is_reported_in_the_sampled_trace_of_its_task_s_message(
    start: Start, receiver: Receiver
) -> None:
    with start(arguments=["--concurrency=1"]) as worker:
        for sent, headers in enumerate((SAMPLED, UNSAMPLED, {})):
            worker.send("die", signal.SIGKILL, headers=headers)
            wait_until("the loss is reported", lambda: len(losses(receiver.received)) > sent, 20)  # noqa: B023
        # Celery strikes it off before the child has ended.
        worker.send("sleep", 30, headers=SAMPLED, time_limit=3)
        wait_until("the last loss is reported", lambda: len(losses(receiver.received)) == 4, 20)
        worker.stop()
    reported = [
        (event.attributes["celery.worker.exit.reason"], event.trace_id, event.span_id)
        for event in losses(receiver.received)
    ]
    assert reported == [
        ("killed", TRACE, PARENT),
        ("killed", "", ""),
        ("killed", "", ""),
        ("time_limit", TRACE, PARENT),
    ]
