"""What a full pipe drops is counted: for whom, of what kind, and exactly."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.ipc.codec import FrameDecoder, encode
from otel_celery_memory.ipc.control_page import SLOTS, DropCounts
from otel_celery_memory.ipc.records import TaskFinished
from otel_celery_memory.worker.pipe import PipeWriter
from tests.unit.examples import finished, started

START, END = started(), finished()
CELL = struct.Struct("<QQ")
FIRST_CELL = 8 * 8 + SLOTS * 10 * 8
"""After the commands and the balances."""


@pytest.fixture
def pipe() -> Iterator[PipeWriter]:
    """One that is full to the last byte, and has counted nothing yet."""
    made = PipeWriter()
    size_bytes = fcntl.fcntl(made.write_fd, fcntl.F_SETPIPE_SZ, 4096)
    assert os.write(made.write_fd, bytes(size_bytes)) == size_bytes
    yield made
    made.close()


def test_the_ends_of_tasks_are_counted_apart_however_they_are_sent(pipe: PipeWriter) -> None:
    pipe.send(END)
    pipe.send_frame(encode(END))
    pipe.send(finished(pid=2**63))
    for other in (START, started(pid=2**63)):
        pipe.send(other)
    assert pipe.page.drop_counters.counts() == DropCounts(task_ends=3, others=2, damaged=0)


def test_what_arrives_and_what_is_counted_are_all_that_was_sent(pipe: PipeWriter) -> None:
    os.read(pipe.read_fd, 4096)
    for _ in range(100):
        pipe.send(START)
        pipe.send(END)
    arrived = FrameDecoder().feed(os.read(pipe.read_fd, 4096))
    ends = sum(isinstance(record, TaskFinished) for record in arrived)
    dropped = pipe.page.drop_counters.counts()
    assert (ends + dropped.task_ends, len(arrived) - ends + dropped.others) == (100, 100)
    assert dropped.task_ends > 0


def test_what_is_dropped_is_counted_for_the_slot_that_dropped_it(pipe: PipeWriter) -> None:
    pipe.send(END)
    pipe.slot = 4
    pipe.send(END)
    pipe.send(START)
    cells = os.pread(pipe.page.fd, 6 * CELL.size, FIRST_CELL)
    assert [*CELL.iter_unpack(cells)] == [(1, 0), (0, 0), (0, 0), (0, 0), (0, 0), (1, 1)]


def test_a_time_limit_that_strikes_while_a_frame_is_dropped_is_the_task_s(
    pipe: PipeWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strike(*_: object, **__: object) -> None:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(pipe.page.drop_counters, "count", strike)
    with pytest.raises(SoftTimeLimitExceeded):
        pipe.send(END)


def test_a_page_that_is_closed_counts_nothing_and_is_no_error(pipe: PipeWriter) -> None:
    pipe.page.close()
    pipe.send(END)
    with pytest.raises(ValueError, match="closed"):
        pipe.page.drop_counters.counts()
