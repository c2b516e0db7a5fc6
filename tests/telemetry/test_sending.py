"""A background send does not block, and a request during a run starts another one."""

from __future__ import annotations

from threading import Event, current_thread

from otel_celery_memory.telemetry.pipeline import BackgroundSender
from tests.processes import wait_until


def test_send_does_not_wait_for_a_function_that_hangs() -> None:
    began, let_go = Event(), Event()

    def hang() -> None:
        began.set()
        let_go.wait(30)

    sender = BackgroundSender(hang)
    sender.send()
    assert began.wait(30)
    let_go.set()
    wait_until("it has ended", lambda: not sender._running.locked(), 30)


def test_a_request_during_a_run_starts_one_more_run() -> None:
    began, let_go = Event(), Event()
    threads: list[object] = []

    def send() -> None:
        threads.append(current_thread())
        began.set()
        let_go.wait(30)

    sender = BackgroundSender(send)
    sender.send()
    assert began.wait(30)
    for _ in range(5):
        sender.send()
    let_go.set()
    wait_until("it is served", lambda: len(threads) == 2, 30)
    assert len(set(threads)) == 1
    wait_until("it has ended", lambda: not sender._running.locked(), 30)
