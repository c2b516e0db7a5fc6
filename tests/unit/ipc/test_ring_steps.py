"""Writer and reader of a ring are killed after every step: no record wrong, lost or twice."""

from __future__ import annotations

import mmap
import os
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from otel_celery_memory.ipc import ring as ring_module
from otel_celery_memory.ipc.codec import encode, records_in
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.journal import Journal, create_journal
from otel_celery_memory.ipc.records import Record, Site
from otel_celery_memory.ipc.ring import RingMemory, RingReader, RingWriter
from otel_celery_memory.reporter.service import RecordReader
from tests.unit.rings import Killed, KilledAt, at_every_step, read_ring

WRITER = ("ipc/ring.py", "ipc/codec.py")
READER = (*WRITER, "ipc/journal.py", "reporter/service.py")
NUMBER = 1
BIG = 3_400
"""Nine of them fill a small block."""


def record(number: int, size_bytes: int = 0) -> Site:
    return Site(1, 0, 0, number, 0, 0, 0, "t", "p" * (number % 3), "s" * min(size_bytes, 2_048))


def numbers(records: list[Record]) -> list[int]:
    return [each.size_bytes for each in records if isinstance(each, Site)]


@pytest.fixture
def memory() -> Iterator[RingMemory]:
    made = RingMemory.create(1_000)
    yield made
    made.close()


@dataclass
class Worker:
    """What one process after the other writes into the ring of their slot."""

    memory: RingMemory
    committed: list[int] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    next: int = 0

    def process(self) -> RingWriter:
        return RingWriter(self.memory.map_blocks(NUMBER))

    def write(self, writer: RingWriter, count: int, size_bytes: int = 0) -> None:
        for _ in range(count):
            number = self.next
            self.next += 1
            self.begun.append(number)
            if writer.write(encode(record(number, size_bytes))):
                self.committed.append(number)


def fresh(memory: RingMemory) -> mmap.mmap:
    """The ring, as new."""
    whole = memory.map_ring(NUMBER)
    whole[:] = bytes(len(whole))
    return whole


def test_a_writer_killed_at_any_step_leaves_what_it_wrote_and_its_successor_goes_on(
    memory: RingMemory,
) -> None:
    def scenario(kill: KilledAt) -> None:
        reader, worker = RingReader(fresh(memory)), Worker(memory)
        found: list[int] = []
        first = worker.process()
        worker.write(first, 14, 2_048)  # two more fill the block
        with kill:
            worker.write(first, 4, 2_048)
        if len(worker.committed) % 2:
            found += numbers(read_ring(reader)[0])
        with kill:
            second = worker.process()
            worker.write(second, 3)
        third = worker.process()
        worker.write(third, 3)
        for _ in range(3):
            found += numbers(read_ring(reader)[0])
        worker.write(third, 3)
        found += numbers(read_ring(reader)[0])
        assert found == sorted(set(found))
        assert set(worker.committed) <= set(found) <= set(worker.begun)

    assert at_every_step(WRITER, scenario) > 300


def test_a_time_limit_at_any_step_leaves_a_writer_that_goes_on(memory: RingMemory) -> None:
    def scenario(kill: KilledAt) -> None:
        reader, worker = RingReader(fresh(memory)), Worker(memory)
        writer = worker.process()
        worker.write(writer, 14, 2_048)
        with kill:
            worker.write(writer, 2, 2_048)
        # `with lock:` and `finally:` are not interrupted by signals; a stepped kill does that.
        writer._lock = threading.RLock()
        writer._opening = False
        worker.write(writer, 6, 2_048)
        found = numbers(read_ring(reader)[0]) + numbers(read_ring(reader)[0])
        worker.write(writer, 6, 2_048)
        found += numbers(read_ring(reader)[0])
        assert found == sorted(set(found))
        assert set(worker.committed) <= set(found) <= set(worker.begun)

    assert at_every_step(WRITER, scenario) > 150


@pytest.mark.parametrize("backwards", [False, True])
def test_a_frame_torn_at_any_byte_is_skipped_counted_once_and_harms_no_other(
    memory: RingMemory, *, backwards: bool
) -> None:
    frame = encode(record(7, 40))
    # What ends in zeros is complete without them.
    for cut in range(1, len(frame.rstrip(b"\0"))):
        whole = fresh(memory)
        reader, worker = RingReader(whole), Worker(memory)
        first = worker.process()
        worker.write(first, 3)
        torn = bytes(cut) + frame[cut:] if backwards else frame[:cut]
        first.append(torn.ljust(len(frame), b"\0"))
        found, damaged = read_ring(reader)
        worker.next = 10
        worker.write(worker.process(), 3)
        rounds = [read_ring(reader) for _ in range(3)]
        found += [each for records, _ in rounds for each in records]
        damaged += sum(count for _, count in rounds)
        assert numbers(found) == [0, 1, 2, 10, 11, 12]
        assert damaged == 1
        whole.close()


def test_a_start_of_a_block_torn_at_any_byte_harms_no_record(memory: RingMemory) -> None:
    for cut in range(1, 16):
        whole = fresh(memory)
        reader, worker = RingReader(whole), Worker(memory)
        first = worker.process()
        worker.write(first, 3)
        second = ring_module.blocks_of(len(whole))[1].begin
        start = ring_module._start(first._sequence + 1)
        whole[second : second + cut] = start[:cut]
        found = numbers(read_ring(reader)[0])
        successor = worker.process()
        worker.write(successor, 3)
        for _ in range(3):
            found += numbers(read_ring(reader)[0])
        worker.write(successor, 20, 2_048)
        found += numbers(read_ring(reader)[0])
        assert found == worker.committed
        assert worker.committed == worker.begun


class Reporters:
    """One reporter after the other, and what their endpoint has heard in the end."""

    def __init__(self, memory: RingMemory) -> None:
        self._memory = memory
        self._page = ControlPage()
        self._page.use_ring(NUMBER)
        self.journal_fd = create_journal()

    def start(self) -> RecordReader:
        return RecordReader(self._page.rings_used, self._memory.map_ring, Journal(self.journal_fd))

    def heard(self) -> list[Record]:
        journal = Journal(self.journal_fd)
        found = records_in(journal.unacknowledged())
        journal.close()
        return found

    def close(self) -> None:
        self._page.close()
        os.close(self.journal_fd)


def test_a_reporter_killed_at_any_step_of_its_reads_loses_nothing_and_tells_nothing_twice(
    memory: RingMemory,
) -> None:
    def scenario(kill: KilledAt) -> None:
        fresh(memory).close()
        worker, reporters = Worker(memory), Reporters(memory)
        writer = worker.process()
        worker.write(writer, 18, 2_048)  # a closed block and one that is open
        with kill:
            reporters.start().read()
        worker.write(writer, 3)
        with kill:
            reporters.start().read()
        worker.write(writer, 3)
        reporter = reporters.start()
        reporter.read()
        reporter.read()
        worker.write(writer, 20, 2_048)
        reporter.read()
        assert numbers(reporters.heard()) == worker.committed
        assert reporter.damaged() == 0
        reporters.close()

    assert at_every_step(READER, scenario) > 3_000


def test_a_reporter_killed_while_it_zeros_a_block_is_followed_by_one_that_completes_that(
    memory: RingMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete, done = RingReader._zero, 0

    def partial(reader: RingReader, block: ring_module.Block) -> None:
        at = block.begin + 16
        reader._map[at : at + done] = bytes(done)
        raise Killed

    for size in (0, 1, 2, 100, 500, 5_000, 32_752):
        done = size
        fresh(memory).close()
        worker, reporters = Worker(memory), Reporters(memory)
        writer = worker.process()
        worker.write(writer, 18, 2_048)
        monkeypatch.setattr(RingReader, "_zero", partial)
        with pytest.raises(Killed):
            reporters.start().read()
        monkeypatch.setattr(RingReader, "_zero", complete)
        worker.write(writer, 3)
        reporter = reporters.start()
        reporter.read()
        worker.write(writer, 30, 2_048)
        reporter.read()
        worker.write(writer, 3)
        reporter.read()
        assert numbers(reporters.heard()) == worker.committed
        reporters.close()


def test_whatever_is_killed_at_random_every_record_is_heard_once(memory: RingMemory) -> None:
    chance = random.Random(1)
    fresh(memory).close()
    worker, reporters = Worker(memory), Reporters(memory)
    writer, reporter = worker.process(), reporters.start()
    heard: list[int] = []
    for _ in range(150):
        with KilledAt(chance.randrange(1, 4_000), WRITER) as kill:
            worker.write(writer, chance.randrange(30), chance.choice((0, 300, 2_048)))
        if kill.came:
            writer = worker.process()
        with KilledAt(chance.randrange(1, 20_000), READER) as kill:
            reporter.read()
        if kill.came:
            reporter = reporters.start()
        heard += numbers(reporters.heard())
        reporter.acknowledge(reporter.position())
    for _ in range(3):
        reporter.read()
    heard += numbers(reporters.heard())
    assert heard == sorted(set(heard))
    assert set(worker.committed) <= set(heard) <= set(worker.begun)
    assert len(worker.committed) > 500
    reporters.close()
