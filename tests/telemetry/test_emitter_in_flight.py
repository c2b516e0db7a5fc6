"""What a task retained is counted once, whether the next one ends, or takes its process with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import (
    NO_SPAN,
    ProcessUp,
    TaskFinished,
    TaskInFlightAtExit,
    TaskStarted,
)
from otel_celery_memory.reporter.emitter import Emitter
from tests.telemetry.payload import Telemetry, in_memory
from tests.telemetry.test_emitter import emitter_on

PID = 11
START = TaskStarted(PID, 5, 1_000, 70, 0, "id-2", "app.second", "app.first")
END = TaskFinished(
    *(PID, 9, 5, 1_000, 10, 20, None, None, 70, 1, 0, NO_SPAN),
    *("id-2", "app.second", "SUCCESS", "app.first"),
)


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    made = in_memory(own_histograms=True)
    yield made
    made.meters.shutdown()


@pytest.fixture
def emitter(telemetry: Telemetry) -> Emitter:
    made = emitter_on(telemetry)
    made.apply(ProcessUp(PID, 1, 0, 1_000))
    return made


def dies(emitter: Emitter) -> None:
    emitter.state.gone(PID, 20)
    for end in emitter.state.classify_ended(20, all_now=True):
        emitter.ended(end)


def retained(telemetry: Telemetry) -> list[tuple[str, int, float]]:
    """Task, count and sum of what was retained."""
    metric = telemetry.metrics().get(c.RSS_RETAINED.name, {"points": []})
    return [
        (point["attributes"][c.TASK_NAME], point["count"], point["sum"])
        for point in metric["points"]
    ]


ONCE = [("app.first", 1, 70)]


def test_a_start_in_the_slot_alone_counts_nothing_yet(
    emitter: Emitter, telemetry: Telemetry
) -> None:
    emitter.task_in_flight(START)
    assert retained(telemetry) == []


def test_the_end_of_a_task_in_the_slot_counts_it(emitter: Emitter, telemetry: Telemetry) -> None:
    emitter.task_in_flight(START)
    emitter.apply(END)
    dies(emitter)
    assert retained(telemetry) == ONCE


def test_a_process_that_died_in_its_task_has_it_counted(
    emitter: Emitter, telemetry: Telemetry
) -> None:
    emitter.task_in_flight(START)
    emitter.task_in_flight(START)
    dies(emitter)
    assert retained(telemetry) == ONCE


def test_an_end_that_was_read_before_the_page_counts_it_alone(
    emitter: Emitter, telemetry: Telemetry
) -> None:
    emitter.apply(END)
    emitter.task_in_flight(START)
    dies(emitter)
    assert retained(telemetry) == ONCE


def test_a_start_that_was_sent_and_read_from_the_slot_counts_once(
    emitter: Emitter, telemetry: Telemetry
) -> None:
    emitter.apply(START)
    emitter.task_in_flight(START)
    dies(emitter)
    assert retained(telemetry) == ONCE


def test_a_task_that_left_the_fast_path_counts_once(emitter: Emitter, telemetry: Telemetry) -> None:
    emitter.task_in_flight(START)
    emitter.apply(START)
    dies(emitter)
    assert retained(telemetry) == ONCE


def test_a_task_in_flight_that_the_successor_passes_on_counts_once(
    emitter: Emitter, telemetry: Telemetry
) -> None:
    emitter.task_in_flight(START)
    emitter.apply(TaskInFlightAtExit(*START))
    assert [task.task_id for task in emitter.state.processes[PID].in_flight] == ["id-2"]
    dies(emitter)
    assert retained(telemetry) == ONCE
    # A late record of a process whose end is classified does not bring it back.
    emitter.apply(TaskInFlightAtExit(*START))
    assert PID not in emitter.state.processes
    assert retained(telemetry) == ONCE
