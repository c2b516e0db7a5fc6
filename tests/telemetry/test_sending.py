"""Sending at once waits for nobody, and what is asked for meanwhile is sent afterwards."""

from __future__ import annotations

from threading import Event, current_thread

from otel_celery_memory.telemetry.pipeline import BackgroundSender
from tests.processes import wait_until


def test_it_does_not_wait_for_what_hangs() -> None:
    began, let_go = Event(), Event()

    def hang() -> None:
        began.set()
        let_go.wait(30)

    sender = BackgroundSender(hang)
    sender.send()
    assert began.wait(30)
    let_go.set()
    wait_until("it has ended", lambda: not sender._running.locked(), 30)


def test_who_asks_while_it_runs_is_served_once_more_when_it_has_ended() -> None:
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
