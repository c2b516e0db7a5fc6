"""What was read and not taken outlives the reporter that read it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from otel_celery_memory.ipc.journal import JOURNAL_BYTES, Journal, create_journal

HEADER_BYTES = 44


@dataclass
class Pipe:
    """A pipe and the memory beside it."""

    ends: tuple[int, int] = field(default_factory=os.pipe)
    memory: int = field(default_factory=create_journal)

    def write(self, data: bytes) -> None:
        os.write(self.ends[1], data)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    os.set_blocking(made.ends[0], False)
    yield made
    for fd in (*made.ends, made.memory):
        os.close(fd)


def test_what_is_read_is_left_to_the_next_until_it_is_taken(pipe: Pipe) -> None:
    journal = Journal(pipe.memory)
    pipe.write(b"one")
    assert journal.read(pipe.ends[0]) == b"one"
    mark = journal.read_to
    pipe.write(b"two")
    assert journal.read(pipe.ends[0]) == b"two"
    assert Journal(pipe.memory).unacknowledged() == b"onetwo"
    journal.acknowledge(mark)
    successor = Journal(pipe.memory)
    assert successor.unacknowledged() == b"two"
    pipe.write(b"three")
    assert successor.read(pipe.ends[0]) == b"three"
    assert (successor.read_to, Journal(pipe.memory).unacknowledged()) == (11, b"twothree")
    successor.acknowledge(successor.read_to)
    assert Journal(pipe.memory).unacknowledged() == b""


def test_an_empty_pipe_raises_and_one_that_has_ended_is_empty(pipe: Pipe) -> None:
    journal = Journal(pipe.memory)
    with pytest.raises(BlockingIOError):
        journal.read(pipe.ends[0])
    os.close(pipe.ends[1])
    assert journal.read(pipe.ends[0]) == b""
    pipe.ends = (pipe.ends[0], os.dup(pipe.ends[0]))


def test_a_mark_that_is_older_or_not_yet_read_changes_nothing(pipe: Pipe) -> None:
    journal = Journal(pipe.memory)
    pipe.write(b"0123456789")
    journal.read(pipe.ends[0])
    for mark, left in ((4, b"456789"), (2, b"456789"), (11, b"456789"), (10, b"")):
        journal.acknowledge(mark)
        assert journal.unacknowledged() == left


def test_however_much_is_read_the_next_finds_the_end_of_it_and_never_what_was_taken(
    pipe: Pipe,
) -> None:
    chance = random.Random(1)
    # An array: bytes would be copied whole at each turn.
    journal, stream, taken, given_up = Journal(pipe.memory), bytearray(), 0, 0
    for _ in range(1_500):
        data = chance.randbytes(chance.randrange(1, 60_000))
        pipe.write(data)
        stream += data
        assert journal.read(pipe.ends[0]) == data
        if chance.random() < 0.02:
            taken = chance.randrange(taken, len(stream) + 1)
            journal.acknowledge(taken)
        left = Journal(pipe.memory).unacknowledged()
        assert stream.endswith(left)
        assert len(left) <= len(stream) - taken
        given_up += len(left) < len(stream) - taken
    assert given_up > 0
    assert len(stream) > 5 * JOURNAL_BYTES


def test_what_is_exported_often_enough_is_never_given_up(pipe: Pipe) -> None:
    journal, stream, taken = Journal(pipe.memory), 0, 0
    for turn in range(2_000):
        pipe.write(bytes(50_000))
        journal.read(pipe.ends[0])
        stream += 50_000
        if turn % 20 == 0:
            # A turn before the last: something is always left.
            taken = stream - 50_000
            journal.acknowledge(taken)
        assert len(Journal(pipe.memory).unacknowledged()) == stream - taken


class Killed(BaseException):
    """Nothing that comes after it happens."""


@pytest.mark.parametrize("data", [b"two", b"longer than what stands there"])
@pytest.mark.parametrize("has_read", [False, True])
def test_whoever_is_killed_in_a_read_leaves_what_it_brought_and_no_more(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, data: bytes, has_read: bool
) -> None:
    def killed(fd: int, buffers: Sequence[memoryview]) -> int:
        if has_read:
            readv(fd, buffers)
        raise Killed

    readv = os.readv
    journal = Journal(pipe.memory)
    pipe.write(b"one")
    journal.read(pipe.ends[0])
    pipe.write(data)
    monkeypatch.setattr(os, "readv", killed)
    with pytest.raises(Killed):
        journal.read(pipe.ends[0])
    monkeypatch.setattr(os, "readv", readv)
    successor = Journal(pipe.memory)
    assert successor.unacknowledged() == (b"one" + data if has_read else b"one")
    pipe.write(b"three")
    assert successor.read(pipe.ends[0]) == (b"three" if has_read else data + b"three")


@pytest.mark.parametrize("copy", [0, 1])
def test_a_header_that_was_cut_in_its_writing_leaves_the_one_before_it(
    pipe: Pipe, copy: int
) -> None:
    journal = Journal(pipe.memory)
    for data in (b"one", b"two"):
        pipe.write(data)
        journal.read(pipe.ends[0])
    os.pwrite(pipe.memory, b"\xff" * 20, copy * HEADER_BYTES)
    # What was announced before it tells as much.
    assert Journal(pipe.memory).unacknowledged() == b"onetwo"


def test_garbage_leaves_nothing_and_reading_goes_on(pipe: Pipe) -> None:
    os.pwrite(pipe.memory, b"\xff" * 4096, 0)
    journal = Journal(pipe.memory)
    assert journal.unacknowledged() == b""
    pipe.write(b"one")
    assert (journal.read(pipe.ends[0]), Journal(pipe.memory).unacknowledged()) == (b"one", b"one")


def test_it_is_not_handed_to_programs_that_a_task_starts(pipe: Pipe) -> None:
    assert os.get_inheritable(pipe.memory) is False
