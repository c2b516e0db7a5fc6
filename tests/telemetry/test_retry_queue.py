"""Events outlive an outage: kept, tried again, sent once, bounded in number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from demo.receiver import Receiver
from otel_celery_memory import conventions as c
from otel_celery_memory.telemetry import pipeline, providers
from otel_celery_memory.telemetry.retry_queue import EVENTS_MAX, RetryQueue, lost_pids
from tests.processes import wait_until

NEVER_S = 3_600.0
SUCCESS, FAILURE = SimpleNamespace(name="SUCCESS"), SimpleNamespace(name="FAILURE")


@dataclass
class Endpoint:
    """Takes what it likes."""

    up: bool = True
    refused: tuple[str, ...] = ()
    accepted: list[str] = field(default_factory=list)
    tries: int = 0
    ended: bool = False
    raises: bool = False

    def export(self, batch: Sequence[str]) -> Any:
        self.tries += 1
        if not self.up or set(batch) & set(self.refused):
            if self.raises:
                raise ConnectionError("closed")
            return FAILURE
        self.accepted += batch
        return SUCCESS

    def shutdown(self) -> None:
        self.ended = True


def test_an_accepted_batch_is_sent_once() -> None:
    endpoint, acknowledged = Endpoint(), list[Sequence[str]]()
    events = RetryQueue(endpoint, acknowledged.append, NEVER_S)
    events.export(["a", "b"])
    events.export(["c"])
    assert (endpoint.accepted, acknowledged) == (["a", "b", "c"], [["a", "b"], ["c"]])


def test_batches_kept_during_an_outage_follow_the_next_accepted_one() -> None:
    endpoint, acknowledged = Endpoint(up=False), list[str]()
    events = RetryQueue(endpoint, acknowledged.extend, NEVER_S)
    events.export(["a"])
    events.export(["b"])
    assert acknowledged == []
    endpoint.up = True
    events.export(["c"])
    events.export(["d"])
    assert endpoint.accepted == acknowledged == ["c", "a", "b", "d"]
    events.shutdown()


@pytest.mark.parametrize("raises", [False, True])
def test_batches_kept_during_an_outage_are_retried_without_another_event(raises: bool) -> None:
    endpoint = Endpoint(up=False, raises=raises)
    events = RetryQueue(endpoint, retry_s=0.01)
    events.export(["a"])
    tries = endpoint.tries
    wait_until("it is tried again", lambda: endpoint.tries > tries, 30)
    endpoint.up = True
    wait_until("it is taken", lambda: endpoint.accepted == ["a"], 30)
    events.shutdown()
    assert endpoint.accepted == ["a"]


def test_shutdown_retries_once_more() -> None:
    endpoint = Endpoint(up=False)
    events = RetryQueue(endpoint, retry_s=NEVER_S)
    events.export(["a"])
    endpoint.up = True
    events.shutdown()
    assert (endpoint.accepted, endpoint.ended) == (["a"], True)


def test_a_batch_that_alone_is_refused_is_dropped() -> None:
    endpoint = Endpoint(refused=("bad",))
    events = RetryQueue(endpoint, retry_s=NEVER_S)
    events.export(["bad"])
    for number in range(10):
        events.export([str(number)])
    assert endpoint.accepted == [str(number) for number in range(10)]
    assert endpoint.tries == 1 + 10 + 3
    events.shutdown()


def test_beyond_the_bound_the_oldest_batches_are_dropped() -> None:
    endpoint = Endpoint(up=False)
    events = RetryQueue(endpoint, retry_s=NEVER_S)
    for number in range(EVENTS_MAX + 2):
        events.export([str(number)])
    endpoint.up = True
    events.export(["last"])
    assert endpoint.accepted == ["last", *(str(number) for number in range(2, EVENTS_MAX + 2))]
    events.shutdown()


def test_a_real_collector_gets_what_it_refused_before_and_the_lost_pid_is_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    acknowledged: list[int] = []
    # Two seconds in production.
    monkeypatch.setattr(providers, "RetryQueue", partial(RetryQueue, retry_s=0.05))
    with Receiver(400) as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        opened = pipeline.open_pipeline(
            "celery@box",
            NEVER_S,
            events_acknowledged=lambda events: acknowledged.extend(lost_pids(events)),
        )
        attributes = {c.PROCESS_PID: 11}
        opened.logger.emit(event_name=c.PROCESS_LOST.name, body="gone", attributes=attributes)
        opened.logger.emit(event_name=c.PRESSURE.name, body="soon", attributes=attributes)
        opened.send_events()
        wait_until("it was refused", lambda: receiver.received.requests, 30)
        receiver.status = 200
        wait_until("it is sent again", lambda: acknowledged, 30)
        opened.shutdown()
        assert acknowledged == [11]
        assert [event.name for event in receiver.received.events] == [
            c.PROCESS_LOST.name,
            c.PRESSURE.name,
        ]
