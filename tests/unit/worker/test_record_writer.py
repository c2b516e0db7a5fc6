"""Records go into the ring of the process, or are dropped and counted: exactly, and at once."""

from __future__ import annotations

import os
import random
import struct
import sys
import threading
from collections.abc import Iterator
from functools import partial

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.ipc import ring as ring_module
from otel_celery_memory.ipc.codec import encode
from otel_celery_memory.ipc.commands import COMMANDS_BYTES
from otel_celery_memory.ipc.control_page import SLOTS, ControlPage, DropCounts
from otel_celery_memory.ipc.records import Goodbye, Record, Site, TaskFinished
from otel_celery_memory.ipc.ring import RING_BYTES_MIN, SLOT_RINGS, RingReader, ring_bytes
from otel_celery_memory.worker.record_writer import RecordWriter
from tests.unit.examples import EXAMPLES, finished, started
from tests.unit.forks import in_a_fork
from tests.unit.rings import Rings, read_ring

BIG = Site(1, 0, 0, 2, 3, 4, 0, "t" * 500, "p" * 1_000, "s" * 1_700)
START, END = started(), finished()
CELL = struct.Struct("<QQ")
FIRST_CELL = COMMANDS_BYTES + SLOTS * (9 + 2) * 8
"""After the commands and the balances."""


@pytest.fixture
def writer() -> Iterator[RecordWriter]:
    """One with rings of the least size."""
    made = RecordWriter(1_000)
    yield made
    made.close()


@pytest.fixture
def rings(writer: RecordWriter) -> Iterator[Rings]:
    made = Rings(writer)
    yield made
    made.close()


def fill(writer: RecordWriter) -> int:
    """Sends until something is dropped, here of the kind that is not counted apart; how many."""
    for taken in range(10_000):
        if not writer.send(BIG):
            return taken
    raise AssertionError("the ring has no end")


def test_records_come_out_in_the_order_in_which_they_were_sent(
    writer: RecordWriter, rings: Rings
) -> None:
    assert all(writer.send(record) for record in EXAMPLES)
    assert rings.read() == list(EXAMPLES)
    assert writer.page.drop_counters.counts().total == 0


def test_the_rings_of_a_pool_share_four_mebibytes_and_none_has_less_than_64_kib() -> None:
    assert [ring_bytes(children) >> 10 for children in (0, 1, 3, 8, 16, 63, 500)] == [
        *(1024, 1024, 1024, 256, 128, 64, 64)
    ]


def test_a_full_ring_drops_the_frame_counts_it_and_goes_on_once_it_was_read(
    writer: RecordWriter, rings: Rings
) -> None:
    taken = fill(writer)
    assert taken * len(encode(BIG)) > RING_BYTES_MIN - 2 * 4096
    for _ in range(9):
        writer.send(BIG)
    assert writer.page.drop_counters.counts().total == 10
    assert rings.read() == [BIG] * taken
    assert writer.send(END)
    assert rings.read() == [END]


def test_the_ends_of_tasks_are_counted_apart_however_they_are_sent(writer: RecordWriter) -> None:
    fill(writer)
    before = writer.page.drop_counters.counts()
    for _ in range(100):
        writer.send(START)  # until small frames do not fit either
    others = writer.page.drop_counters.counts().others
    writer.send(END)
    writer.send_frame(encode(END))
    writer.send(finished(pid=2**63))
    assert before.task_ends == 0
    assert writer.page.drop_counters.counts() == DropCounts(3, others, 0)


def test_what_arrives_and_what_is_counted_are_all_that_was_sent(
    writer: RecordWriter, rings: Rings
) -> None:
    for _ in range(1_000):
        writer.send(START)
        writer.send(END)
    arrived = rings.read()
    ends = sum(isinstance(record, TaskFinished) for record in arrived)
    dropped = writer.page.drop_counters.counts()
    assert (ends + dropped.task_ends, len(arrived) - ends + dropped.others) == (1_000, 1_000)
    assert dropped.task_ends > 0


def test_what_is_dropped_is_counted_for_the_slot_that_dropped_it(writer: RecordWriter) -> None:
    writer.send(finished(pid=2**63))
    writer.attach(4)
    writer.send(finished(pid=2**63))
    writer.send(started(pid=2**63))
    cells = os.pread(writer.page.fd, 6 * CELL.size, FIRST_CELL)
    assert [*CELL.iter_unpack(cells)] == [(1, 0), (0, 0), (0, 0), (0, 0), (0, 0), (1, 1)]


def test_a_time_limit_that_strikes_while_a_frame_is_dropped_is_the_task_s(
    writer: RecordWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strike(*_: object, **__: object) -> None:
        raise SoftTimeLimitExceeded

    fill(writer)
    monkeypatch.setattr(writer.page.drop_counters, "count", strike)
    with pytest.raises(SoftTimeLimitExceeded):
        writer.send(BIG)


def test_nothing_is_sent_or_counted_after_the_end_and_an_end_may_come_twice() -> None:
    writer = RecordWriter()
    writer.close()
    writer.close()
    assert not writer.send(Goodbye(1, 2))


def test_where_there_is_no_page_there_is_no_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> ControlPage:
        raise OSError("no room")

    monkeypatch.setattr(ControlPage, "create", refuse)
    with pytest.raises(OSError, match="no room"):
        RecordWriter()


def test_where_memory_without_a_name_is_refused_a_temporary_file_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError("seccomp")

    monkeypatch.setattr(os, "memfd_create", refuse)
    writer = RecordWriter()
    rings = Rings(writer)
    assert writer.send(END)
    assert rings.read() == [END]
    rings.close()
    writer.close()


def test_threads_of_one_process_do_not_tear_or_lose_each_other_s_frames(
    writer: RecordWriter, rings: Rings
) -> None:
    threads, count = 8, 2_000
    found: list[Record] = []
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def send(thread: int) -> None:
        for number in range(count):
            writer.send(Site(thread, 0, 0, number, 0, 0, 0, "t" * (number % 300), "p", ""))

    try:
        at_work = [threading.Thread(target=send, args=(each,)) for each in range(threads)]
        for thread in at_work:
            thread.start()
        while any(thread.is_alive() for thread in at_work):
            found += rings.read()
        for thread in at_work:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    found += rings.read()
    assert len(found) + writer.page.drop_counters.counts().total == threads * count
    for thread_number in range(threads):
        sites = [each for each in found if isinstance(each, Site)]
        sent = [each.size_bytes for each in sites if each.pid == thread_number]
        assert sent == sorted(set(sent))


def test_a_signal_handler_that_sends_in_the_midst_of_a_send_loses_nothing_uncounted(
    writer: RecordWriter, rings: Rings
) -> None:
    found: list[Record] = []
    nested = 0

    def handler(frame: object, event: str, arg: object) -> None:
        nonlocal nested
        if event == "c_return" and "ring.py" in str(getattr(frame, "f_code", "")):
            sys.setprofile(None)
            writer.send(END)
            nested += 1

    for _ in range(200):
        sys.setprofile(handler)
        try:
            writer.send(BIG)
        finally:
            sys.setprofile(None)
        if writer.page.drop_counters.counts().others:
            break
        found += rings.read()
    found += rings.read()
    dropped = writer.page.drop_counters.counts()
    ends = sum(record == END for record in found)
    assert nested > 5
    assert ends + dropped.task_ends == nested


def test_a_fork_of_a_process_writes_into_a_ring_of_its_own(
    writer: RecordWriter, rings: Rings
) -> None:
    writer.send(Goodbye(1, 1))
    in_a_fork(lambda: [writer.send(Goodbye(2, number)) for number in range(3)])
    writer.send(Goodbye(1, 2))
    in_a_fork(lambda: writer.send(Goodbye(3, 3)))
    assert rings.read() == [
        *(Goodbye(1, 1), Goodbye(1, 2)),
        *(Goodbye(2, 0), Goodbye(2, 1), Goodbye(2, 2), Goodbye(3, 3)),
    ]
    assert writer.page.rings_used() == [0, SLOT_RINGS]


def test_a_fork_that_sends_nothing_takes_no_ring(writer: RecordWriter) -> None:
    in_a_fork(lambda: None)
    assert writer.page.rings_used() == [0]


def test_forks_beyond_the_rings_for_guests_count_what_they_drop(
    writer: RecordWriter, rings: Rings
) -> None:
    for number in range(len(writer.page.guests())):
        writer.page.set_guest(number, os.getpid())  # each lives
    in_a_fork(lambda: writer.send(END))
    assert rings.read() == []
    assert writer.page.drop_counters.counts().task_ends == 1


def test_a_child_beyond_the_slots_has_a_ring_too(writer: RecordWriter, rings: Rings) -> None:
    def child() -> None:
        writer.attach(600)
        assert writer.send(END)

    in_a_fork(child)
    assert rings.read() == [END]


def test_a_successor_in_the_slot_goes_on_behind_its_predecessor(
    writer: RecordWriter, rings: Rings
) -> None:
    def child(number: int) -> None:
        writer.attach(0)
        for time_ns in range(number):
            assert writer.send(Goodbye(number, time_ns))

    for number in range(30):
        in_a_fork(partial(child, number))
    assert rings.read() == [Goodbye(number, at) for number in range(30) for at in range(number)]


def test_descriptors_that_a_task_closed_and_reused_are_left_alone() -> None:
    writer = RecordWriter()
    null = os.open(os.devnull, os.O_RDWR)
    ours = [int(fd) for fd in os.listdir("/proc/self/fd") if _is_memory(int(fd))]  # noqa: PTH208
    for fd in ours:
        os.dup2(null, fd)
    for record in EXAMPLES:
        assert writer.send(record)
    writer.close()
    assert {os.readlink(f"/proc/self/fd/{fd}") for fd in ours} == {os.devnull}  # noqa: PTH115
    for fd in (*ours, null):
        os.close(fd)


def _is_memory(fd: int) -> bool:
    try:
        return "otel_celery_memory" in os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
    except OSError:
        return False


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_task_writes_over_a_ring_the_reader_lives_and_records_go_on(
    writer: RecordWriter, seed: int
) -> None:
    chance = random.Random(seed)
    whole = writer.rings.map_ring(0)
    reader = RingReader(whole)
    damaged = 0
    for _ in range(30):
        for number in range(chance.randrange(40)):
            writer.send(Goodbye(1, number))
        at = chance.choice((0, *(block.begin for block in ring_module.blocks_of(len(whole)))))
        at = min(at + chance.choice((0, 3, 16, chance.randrange(len(whole)))), len(whole) - 1)
        size = min(chance.choice((1, 20, 5_000, len(whole))), len(whole) - at)
        whole[at : at + size] = chance.choice((bytes(size), chance.randbytes(size)))
        damaged += read_ring(reader)[1]
    found: list[Record] = []
    for number in range(1_000, 2_000):
        writer.send(Goodbye(2, number))
        records, count = read_ring(reader)
        found += records
        damaged += count
    assert Goodbye(2, 1_999) in found
    assert damaged > 0
    whole.close()
