"""The pipe: what fits is safe in the kernel, what does not is dropped and counted, at once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

import pytest

from otel_celery_memory.ipc.codec import FrameDecoder
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import Goodbye, Record, Site
from otel_celery_memory.worker.pipe import PipeWriter
from tests.unit.examples import EXAMPLES

BIG = Site(1, 0, 0, 2, 3, 4, "t" * 500, "p" * 1_000, "s" * 2_000)


@pytest.fixture
def pipe() -> Iterator[PipeWriter]:
    made = PipeWriter()
    yield made
    made.close()


def received(pipe: PipeWriter, decoder: FrameDecoder | None = None) -> list[Record]:
    """All that is in the pipe."""
    decoder = decoder or FrameDecoder()
    found: list[Record] = []
    while True:
        try:
            data = os.read(pipe.read_fd, 1 << 20)
        except BlockingIOError:
            return found
        found += decoder.feed(data)


def fill(pipe: PipeWriter) -> int:
    """Send until something is dropped; how many were taken."""
    for taken in range(10_000):
        pipe.send(BIG)
        if pipe.page.drop_counters.counts().total:
            return taken
    raise AssertionError("the pipe has no end")


def test_records_come_out_in_the_order_in_which_they_were_sent(pipe: PipeWriter) -> None:
    for record in EXAMPLES:
        pipe.send(record)
    assert received(pipe) == list(EXAMPLES)
    assert pipe.page.drop_counters.counts().total == 0


def test_neither_end_ever_waits(pipe: PipeWriter) -> None:
    assert [os.get_blocking(fd) for fd in (pipe.read_fd, pipe.write_fd)] == [False, False]


def test_the_pipe_is_larger_than_pipes_are_wont_to_be(pipe: PipeWriter) -> None:
    assert fcntl.fcntl(pipe.write_fd, fcntl.F_GETPIPE_SZ) >= 1 << 17


def test_a_size_that_is_refused_leaves_the_pipe_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_celery_memory.worker.pipe._PIPE_BYTES", (1 << 40,))
    pipe = PipeWriter()
    pipe.send(Goodbye(1, 2))
    assert received(pipe) == [Goodbye(1, 2)]
    pipe.close()


def test_a_full_pipe_drops_the_frame_counts_it_and_returns(pipe: PipeWriter) -> None:
    taken = fill(pipe)
    for _ in range(9):
        pipe.send(BIG)
    assert pipe.page.drop_counters.counts().total == 10
    decoder = FrameDecoder()
    assert received(pipe, decoder) == [BIG] * taken
    assert decoder.bad_frames == 0


def test_after_the_reader_has_caught_up_frames_are_taken_again(pipe: PipeWriter) -> None:
    fill(pipe)
    received(pipe)
    pipe.send(BIG)
    assert received(pipe) == [BIG]
    assert pipe.page.drop_counters.counts().total == 1


def test_frames_wait_where_nobody_reads_and_the_writer_gets_no_signal(pipe: PipeWriter) -> None:
    # The main process keeps the read end, so there is no EPIPE and no SIGPIPE.
    pipe.send(Goodbye(1, 2))
    assert received(pipe) == [Goodbye(1, 2)]


def test_a_descriptor_that_a_task_closed_costs_its_frames_and_no_error(pipe: PipeWriter) -> None:
    os.close(pipe.write_fd)
    pipe.send(Goodbye(1, 2))
    pipe.send(Goodbye(1, 2))
    assert pipe.page.drop_counters.counts().total == 2


def test_a_record_that_has_no_frame_is_dropped_and_counted(pipe: PipeWriter) -> None:
    pipe.send(Goodbye(1, 2**63))
    assert (received(pipe), pipe.page.drop_counters.counts().total) == ([], 1)


def test_nothing_is_sent_or_counted_after_the_end_and_an_end_may_come_twice() -> None:
    pipe = PipeWriter()
    pipe.close()
    pipe.close()
    pipe.send(Goodbye(1, 2))


def test_a_stranger_s_descriptor_under_an_old_number_is_left_alone() -> None:
    # As in a child of the pool, which gives its read end back before tasks open files.
    pipe = PipeWriter()
    pipe.close_read_end()
    stranger = os.open(os.devnull, os.O_RDONLY)
    assert stranger == pipe.read_fd or pipe.read_fd < 0
    pipe.close()
    os.fstat(stranger)
    os.close(stranger)


def test_where_there_is_no_page_there_is_no_pipe_either(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> ControlPage:
        raise OSError("no room")

    monkeypatch.setattr(ControlPage, "create", refuse)
    with pytest.raises(OSError, match="no room"):
        PipeWriter()


def test_two_writers_do_not_tear_each_other_s_frames(pipe: PipeWriter) -> None:
    count = 3_000
    writers = []
    for slot in (0, 1):
        pid = os.fork()
        if pid == 0:
            pipe.slot = slot
            for number in range(count):
                strings = "t" * (number % 500), "p", "s" * slot * 900
                pipe.send(Site(slot, 0, 0, number, 0, 0, *strings))
            os._exit(0)
        writers.append(pid)
    decoder = FrameDecoder()
    found: list[Record] = []
    while writers:
        found += received(pipe, decoder)
        writers = [pid for pid in writers if os.waitpid(pid, os.WNOHANG) == (0, 0)]
    found += received(pipe, decoder)

    assert (decoder.bad_frames, len(found) + pipe.page.drop_counters.counts().total) == (
        0,
        2 * count,
    )
    for slot in (0, 1):
        numbers = [site.size_bytes for site in found if isinstance(site, Site) and site.pid == slot]
        assert numbers == sorted(numbers)
        assert numbers
