"""The pipe: what fits is safe in the kernel, what does not is dropped and counted, at once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

import pytest

from otel_celery_memory.ipc.codec import FrameDecoder
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import Goodbye, Record, Site
from otel_celery_memory.worker.pipe import Channel
from tests.unit.examples import EXAMPLES

BIG = Site(1, 0, 0, 2, 3, 4, "t" * 500, "p" * 1_000, "s" * 2_000)


@pytest.fixture
def channel() -> Iterator[Channel]:
    made = Channel()
    yield made
    made.close()


def received(channel: Channel, decoder: FrameDecoder | None = None) -> list[Record]:
    """All that is in the pipe."""
    decoder = decoder or FrameDecoder()
    found: list[Record] = []
    while True:
        try:
            data = os.read(channel.read_fd, 1 << 20)
        except BlockingIOError:
            return found
        found += decoder.feed(data)


def fill(channel: Channel) -> int:
    """Send until something is dropped; how many were taken."""
    for taken in range(10_000):
        channel.send(BIG)
        if channel.page.dropped.counts().total:
            return taken
    raise AssertionError("the pipe has no end")


def test_records_come_out_in_the_order_in_which_they_were_sent(channel: Channel) -> None:
    for record in EXAMPLES:
        channel.send(record)
    assert received(channel) == list(EXAMPLES)
    assert channel.page.dropped.counts().total == 0


def test_neither_end_ever_waits(channel: Channel) -> None:
    assert [os.get_blocking(fd) for fd in (channel.read_fd, channel.write_fd)] == [False, False]


def test_the_pipe_is_larger_than_pipes_are_wont_to_be(channel: Channel) -> None:
    assert fcntl.fcntl(channel.write_fd, fcntl.F_GETPIPE_SZ) >= 1 << 17


def test_a_size_that_is_refused_leaves_the_pipe_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_celery_memory.worker.pipe._PIPE_BYTES", (1 << 40,))
    channel = Channel()
    channel.send(Goodbye(1, 2))
    assert received(channel) == [Goodbye(1, 2)]
    channel.close()


def test_a_full_pipe_drops_the_frame_counts_it_and_returns(channel: Channel) -> None:
    taken = fill(channel)
    for _ in range(9):
        channel.send(BIG)
    assert channel.page.dropped.counts().total == 10
    decoder = FrameDecoder()
    assert received(channel, decoder) == [BIG] * taken
    assert decoder.bad_frames == 0


def test_after_the_reader_has_caught_up_frames_are_taken_again(channel: Channel) -> None:
    fill(channel)
    received(channel)
    channel.send(BIG)
    assert received(channel) == [BIG]
    assert channel.page.dropped.counts().total == 1


def test_frames_wait_where_nobody_reads_and_the_writer_gets_no_signal(channel: Channel) -> None:
    # The main process keeps the read end, so there is no EPIPE and no SIGPIPE.
    channel.send(Goodbye(1, 2))
    assert received(channel) == [Goodbye(1, 2)]


def test_a_descriptor_that_a_task_closed_costs_its_frames_and_no_error(channel: Channel) -> None:
    os.close(channel.write_fd)
    channel.send(Goodbye(1, 2))
    channel.send(Goodbye(1, 2))
    assert channel.page.dropped.counts().total == 2


def test_a_record_that_has_no_frame_is_dropped_and_counted(channel: Channel) -> None:
    channel.send(Goodbye(1, 2**63))
    assert (received(channel), channel.page.dropped.counts().total) == ([], 1)


def test_nothing_is_sent_or_counted_after_the_end_and_an_end_may_come_twice() -> None:
    channel = Channel()
    channel.close()
    channel.close()
    channel.send(Goodbye(1, 2))


def test_a_stranger_s_descriptor_under_an_old_number_is_left_alone() -> None:
    # As in a child of the pool, which gives its read end back before tasks open files.
    channel = Channel()
    channel.close_read_end()
    stranger = os.open(os.devnull, os.O_RDONLY)
    assert stranger == channel.read_fd or channel.read_fd < 0
    channel.close()
    os.fstat(stranger)
    os.close(stranger)


def test_where_there_is_no_page_there_is_no_pipe_either(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> ControlPage:
        raise OSError("no room")

    monkeypatch.setattr(ControlPage, "create", refuse)
    with pytest.raises(OSError, match="no room"):
        Channel()


def test_two_writers_do_not_tear_each_other_s_frames(channel: Channel) -> None:
    count = 3_000
    writers = []
    for slot in (0, 1):
        pid = os.fork()
        if pid == 0:
            channel.slot = slot
            for number in range(count):
                strings = "t" * (number % 500), "p", "s" * slot * 900
                channel.send(Site(slot, 0, 0, number, 0, 0, *strings))
            os._exit(0)
        writers.append(pid)
    decoder = FrameDecoder()
    found: list[Record] = []
    while writers:
        found += received(channel, decoder)
        writers = [pid for pid in writers if os.waitpid(pid, os.WNOHANG) == (0, 0)]
    found += received(channel, decoder)

    assert (decoder.bad_frames, len(found) + channel.page.dropped.counts().total) == (0, 2 * count)
    for slot in (0, 1):
        numbers = [site.size_bytes for site in found if isinstance(site, Site) and site.pid == slot]
        assert numbers == sorted(numbers)
        assert numbers
