"""Records are plain immutable values."""

from __future__ import annotations

import pytest

from otel_celery_memory.ipc.records import (
    MAIN_SLOT,
    NO_SPAN,
    ExitReason,
    Record,
    printable,
    slot_name,
)
from tests.unit.examples import EXAMPLES


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_no_field_of_a_record_can_be_changed(record: Record) -> None:
    with pytest.raises(AttributeError):
        record.pid = 1  # type: ignore[misc]


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_every_record_names_its_process_first(record: Record) -> None:
    assert record._fields[0] == "pid"


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
        "exited",
        "crashed",
    ]


def test_what_is_printed_of_a_message_s_id_is_one_line() -> None:
    assert printable("a-1 ä\n[ERROR] \x1b[31m\u2028") == "a-1 ä?[ERROR] ?[31m?"


def test_no_span_is_as_long_as_a_span() -> None:
    assert NO_SPAN == b"\0" * (16 + 8 + 1)
