"""A reporter that was started again takes in what the one before it had read, and no more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from otel_celery_memory.ipc.codec import FrameDecoder, encode
from otel_celery_memory.ipc.journal import Journal, create_journal
from otel_celery_memory.ipc.records import Goodbye, ProcessDown, ProcessUp, Record
from otel_celery_memory.reporter.service import RecordReader
from tests.unit.examples import finished, site, started, window
from tests.unit.reporter.bench import Process, Reporter


@pytest.fixture
def memory() -> Iterator[tuple[int, int, int]]:
    """A pipe's ends, and a journal's memory."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    made = (read_fd, write_fd, create_journal())
    yield made
    for fd in made:
        os.close(fd)


def intake_on(memory: tuple[int, int, int]) -> RecordReader:
    return RecordReader(memory[0], FrameDecoder(), Journal(memory[2]))


def test_a_frame_that_was_read_in_part_is_whole_for_the_next(memory: Any) -> None:
    whole, cut = encode(finished(1, "a")), encode(finished(1, "b"))
    os.write(memory[1], whole + cut[:30])
    killed = intake_on(memory)
    assert killed.read()[1] == [finished(1, "a")]
    # Only the first one was acknowledged.
    killed.acknowledge(killed.position())
    successor = intake_on(memory)
    assert list(successor.unacknowledged()) == []
    os.write(memory[1], cut[30:])
    assert successor.read()[1] == [finished(1, "b")]
    assert (successor.position(), successor.bad_frames()) == (len(whole) + len(cut), 0)


def test_parts_of_a_capture_are_not_applied_again(memory: Any) -> None:
    records: list[Record] = [
        window(1, "app.task", capture=3),
        site(10, 1, pid=1, task="app.task", capture=3),
        window(1, "app.task"),
        started(1, "a"),
    ]
    os.write(memory[1], b"".join(encode(record) for record in records))
    intake_on(memory).read()
    assert list(intake_on(memory).unacknowledged()) == records[2:]


@pytest.fixture
def main() -> Iterator[Process]:
    process = Process()
    yield process
    process.kill()


def test_acknowledged_ends_are_not_classified_again_and_others_are(main: Process) -> None:
    acknowledged, other = Process(), Process()
    for process in (acknowledged, other):
        process.kill()
    left = [
        record
        for slot, process in enumerate((acknowledged, other))
        for record in (
            ProcessUp(process.pid, 1, slot, 1_000),
            finished(process.pid, f"id-{slot}"),
            ProcessDown(process.pid, 2, slot, 155, 1_000, None, "max_tasks", ""),
        )
    ]
    reporter = Reporter(main.pid, unacknowledged=left, acknowledged_exits=[acknowledged.pid])
    reporter.send(Goodbye(main.pid, 3))
    reporter.wait_for(Goodbye(main.pid, 3))
    reporter.close()
    assert [record for record in reporter.emitter.records if record in left] == left
    assert reporter.emitter.exits() == [
        (-1, "shutdown", None, None),
        (1, "max_tasks", None, None),
    ]
