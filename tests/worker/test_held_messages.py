"""The messages that a main process holds, as Celery itself counts them."""

from __future__ import annotations

import pytest

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import CONTROLLED, Start

BODY_BYTES = 500
IN_POOLS = [
    ("prefork", 4_000),
    ("solo", 400),
    ("threads", 400),
    ("gevent", 400),
    ("eventlet", 400),
]


def messages(receiver: Receiver, metric: str = "celery.worker.messages") -> dict[str, float]:
    """The newest values by state."""
    return {
        point.attributes["celery.worker.message.state"]: point.value
        for point in receiver.received.latest(metric)
    }


@pytest.mark.parametrize(("pool", "count"), IN_POOLS)
def test_messages_that_wait_for_their_time_are_counted_in_every_pool(
    start: Start, receiver: Receiver, pool: str, count: int
) -> None:
    arguments = [f"--pool={pool}", "--concurrency=2"]
    with start(arguments=arguments, environ=CONTROLLED) as worker:
        for _ in range(count):
            worker.send("take_note", "x" * BODY_BYTES, countdown=3_600)
        wait_until(
            f"{count} are scheduled",
            lambda: messages(receiver).get("scheduled") == count,
            60,
        )
        inspect = worker.client.control.inspect(destination=[worker.node], timeout=20)
        assert len(inspect.scheduled()[worker.node]) == count
        size_bytes = messages(receiver, "celery.worker.messages.size")["scheduled"]
        said = f"messages in main: {count:,} wait for their time (bodies: "
        wait_until("it is said", lambda: said in worker.command("memory").get("ok", ""), 20)
        worker.stop()
    # The arguments, and what Celery sends with them.
    assert BODY_BYTES < size_bytes / count < BODY_BYTES + 200


def test_messages_that_run_wait_or_are_revoked_are_counted(
    start: Start, receiver: Receiver
) -> None:
    arguments = ["--concurrency=2", "--prefetch-multiplier=4"]
    with start(arguments=arguments, environ=CONTROLLED) as worker:
        sent = [worker.send("sleep", 600) for _ in range(6)]
        # One that main has not got yet when it is revoked is thrown away as it comes.
        wait_until(
            "main holds them all",
            lambda: messages(receiver).items() >= {"active": 2, "reserved": 4}.items(),
            20,
        )
        revoked = [result.id for result in sent[2:]]
        # A broadcast to a busy worker may be lost: it is asked until it answers.
        wait_until(
            "an answer to the revocation",
            lambda: worker.client.control.revoke(
                revoked, destination=[worker.node], reply=True, timeout=3
            ),
            30,
        )
        wait_until(
            "all states are counted",
            lambda: (
                messages(receiver) == {"active": 2, "reserved": 4, "scheduled": 0, "revoked": 4}
            ),
            20,
        )
        worker.client.control.revoke([result.id for result in sent[:2]], terminate=True)
        wait_until(
            "all have ended",
            lambda: (
                messages(receiver) == {"active": 0, "reserved": 0, "scheduled": 0, "revoked": 6}
            ),
            20,
        )
        worker.stop()
