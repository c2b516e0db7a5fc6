"""Records are plain immutable values."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from otel_celery_memory.ipc.records import MAIN_SLOT, NO_SPAN, ExitReason, Record, slot_name
from otel_celery_memory.probes.procfs import ProcessReading
from tests.unit.examples import EXAMPLES


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_no_field_of_a_record_can_be_changed(record: Record) -> None:
    with pytest.raises(AttributeError):
        record.pid = 1  # type: ignore[misc]


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_every_record_names_its_process_first(record: Record) -> None:
    assert record._fields[0] == "pid"


def test_a_reading_cannot_be_changed_and_knows_only_what_was_read() -> None:
    reading = ProcessReading(rss_bytes=5)
    assert reading == ProcessReading(5, None, None, None, None, None, None, None)
    with pytest.raises(FrozenInstanceError):
        reading.rss_bytes = 6  # type: ignore[misc]


def test_slots_are_called_main_and_by_their_number() -> None:
    assert [slot_name(slot) for slot in (MAIN_SLOT, 0, 1, 17)] == ["main", "0", "1", "17"]


def test_an_exit_reason_is_the_text_that_is_sent() -> None:
    assert [reason.value for reason in ExitReason] == [
        "max_tasks",
        "max_memory",
        "shutdown",
        "autoscale",
        "time_limit",
        "terminated",
        "oom_kill",
        "killed",
        "crashed",
    ]


def test_no_span_is_as_long_as_a_span() -> None:
    assert NO_SPAN == b"\0" * (16 + 8 + 1)
