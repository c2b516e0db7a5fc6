"""Collectors in trouble, full pipes: tasks do not notice, the worker ends in time."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass

import pytest

from demo.receiver import Receiver
from tests.processes import free_ports, wait_until
from tests.worker.harness import (
    Start,
    Worker,
    measured,
    reporters_of,
    wait_answered,
    wait_measured,
    wait_restarted,
)

STOP_S = 25.0
"""Ours takes eight at most, and billiard's own wait would be thirty."""
REPORTER_LINE = re.compile(r"/memory reporter\]")


@dataclass(frozen=True)
class Endpoint:
    """Where to send, and whether somebody has noticed by now that it does not work."""

    url: str
    is_noticed: Callable[[Worker], object]


def is_said(worker: Worker) -> object:
    """Whether the reporter has said that it cannot send."""
    return REPORTER_LINE.search(worker.log())


@contextmanager
def hanging() -> Iterator[Endpoint]:
    """One that accepts and never answers."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    held.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield Endpoint(f"http://127.0.0.1:{server.getsockname()[1]}", lambda _: held)
        server.shutdown(socket.SHUT_RDWR)
    for connection in held:
        connection.close()


@contextmanager
def refused() -> Iterator[Endpoint]:
    """An endpoint on which nothing listens."""
    (port,) = free_ports(1)
    yield Endpoint(f"http://127.0.0.1:{port}", is_said)


@contextmanager
def answering(status: int) -> Iterator[Endpoint]:
    """One that answers every request with a status."""
    with Receiver(status) as receiver:
        yield Endpoint(receiver.endpoint, is_said)


@pytest.mark.parametrize(
    "collector",
    [hanging, refused, lambda: answering(400), lambda: answering(503)],
    ids=["hanging", "refused", "400", "503"],
)
def test_a_collector_in_trouble_costs_no_task_a_bounded_stop_and_a_line_of_log(
    start: Start, collector: Callable[[], AbstractContextManager[Endpoint]]
) -> None:
    arguments = ["--concurrency=2"]
    with collector() as there, start(arguments=arguments, endpoint=there.url) as worker:
        for _ in range(20):
            worker.run("noop", timeout_s=10)
        wait_until("it is noticed", lambda: there.is_noticed(worker), 20)
        for _ in range(20):
            worker.run("noop", timeout_s=10)
        assert worker.stop() < STOP_S
        assert reporters_of(worker.pid) == []
        lines = [line for line in worker.log().splitlines() if REPORTER_LINE.search(line)]
        assert 1 <= len(lines) <= 2, lines
        assert "Traceback" not in worker.log()


def test_after_an_outage_the_cumulative_counts_are_right(start: Start, receiver: Receiver) -> None:
    with start(arguments=["--concurrency=2"]) as worker:
        receiver.status = 503
        for _ in range(20):
            worker.run("noop")
        before = receiver.received.requests
        wait_until("exports came to nothing", lambda: receiver.received.requests > before + 2, 20)
        receiver.status = 200
        for _ in range(20):
            worker.run("noop")
        worker.stop()
    assert measured(receiver.received) == {"noop": 40}


def test_a_reporter_that_hangs_is_replaced_and_no_task_is_missing(
    start: Start, receiver: Receiver
) -> None:
    # Longer than a busy machine takes to start another one.
    with start(arguments=["--concurrency=2"], environ={"TEST_HANG_S": "8"}) as worker:
        for _ in range(10):
            worker.run("noop")
        wait_measured(receiver.received, {"noop": 10})
        wait_answered(receiver.received)
        reporter = worker.reporter()
        assert reporter is not None
        os.kill(reporter, signal.SIGSTOP)
        for _ in range(10):
            worker.run("noop")  # waits in the pipe meanwhile
        wait_restarted(worker, reporter, receiver.received)
        wait_measured(receiver.received, {"noop": 20})
        worker.stop()
    assert "the reporter has hung for 8 s and is killed" in worker.log()
    assert measured(receiver.received) == {"noop": 20}


def test_a_reporter_that_cannot_keep_up_makes_frames_drop_and_be_counted(
    start: Start, receiver: Receiver
) -> None:
    environ = {"TEST_HANG_S": "600"}
    with start(arguments=["--concurrency=2"], environ=environ) as worker:
        worker.run("noop")
        reporter = worker.reporter()
        assert reporter is not None
        os.kill(reporter, signal.SIGSTOP)
        # Tasks in tasks: a message for each would cost a minute.
        for result in [worker.send("fan_out", 1_000) for _ in range(9)]:
            result.get(timeout=300)
        os.kill(reporter, signal.SIGCONT)
        worker.stop()
    dropped = {
        point.attributes["celery.memory.frame.kind"]: point.value
        for point in receiver.received.latest("celery.memory.frames.dropped")
    }
    finished = sum(measured(receiver.received).values())
    assert finished < 9_010
    assert finished + dropped["task_end"] == 9_010
    assert dropped["damaged"] == 0
