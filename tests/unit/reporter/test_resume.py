"""A reporter that was started again takes in what the one before it had read, and no more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from otel_celery_memory.ipc.journal import Journal
from otel_celery_memory.ipc.records import Goodbye, ProcessDown, ProcessUp, Record
from otel_celery_memory.reporter.service import RecordReader
from otel_celery_memory.worker.record_writer import RecordWriter
from tests.unit.examples import finished, site, started, window
from tests.unit.forks import in_a_fork
from tests.unit.reporter.bench import Process, Reporter


@pytest.fixture
def writer() -> Iterator[RecordWriter]:
    made = RecordWriter()
    yield made
    made.close()


def reader_of(writer: RecordWriter) -> RecordReader:
    *_, journal = writer.descriptors()
    return RecordReader(writer.page.rings_used, writer.rings.map_ring, Journal(journal))


def test_what_was_not_acknowledged_is_applied_again_and_what_follows_is_read_once(
    writer: RecordWriter,
) -> None:
    writer.send(finished(1, "a"))
    killed = reader_of(writer)
    assert killed.read() == [finished(1, "a")]
    killed.acknowledge(killed.position())
    writer.send(finished(1, "b"))
    assert killed.read() == [finished(1, "b")]
    writer.send(finished(1, "c"))
    successor = reader_of(writer)
    assert list(successor.unacknowledged()) == [finished(1, "b")]
    assert successor.read() == [finished(1, "c")]
    assert successor.damaged() == 0


def test_the_main_process_s_records_come_after_those_of_its_children(writer: RecordWriter) -> None:
    down = ProcessDown(2, 2, 0, 155, 1_000, None, "max_tasks", "")

    def child() -> None:
        writer.attach(0)
        writer.send(down)

    in_a_fork(child)
    writer.send(Goodbye(1, 3))
    assert reader_of(writer).read() == [down, Goodbye(1, 3)]


def test_parts_of_a_capture_are_not_applied_again(writer: RecordWriter) -> None:
    records: list[Record] = [
        window(1, "app.task", capture=3),
        site(10, 1, pid=1, task="app.task", capture=3),
        window(1, "app.task"),
        started(1, "a"),
    ]
    for record in records:
        writer.send(record)
    reader_of(writer).read()
    assert list(reader_of(writer).unacknowledged()) == records[2:]


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
