"""Frames that were taken and not acknowledged outlive the reporter that took them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from otel_celery_memory.ipc.journal import JOURNAL_BYTES, TAKEN_BYTES_MAX, Journal, create_journal
from otel_celery_memory.ipc.ring import Place

HEADER_BYTES = 76
PLACES = [Place(number, 16 + number, 0, 0) for number in range(20)]


@pytest.fixture
def memory() -> Iterator[int]:
    made = create_journal()
    yield made
    os.close(made)


def test_frames_are_kept_until_they_are_acknowledged(memory: int) -> None:
    journal = Journal(memory)
    journal.take(b"one", 3, PLACES[1])
    mark = journal.read_to
    journal.take(b"two", 3, PLACES[2])
    assert Journal(memory).unacknowledged() == b"onetwo"
    journal.acknowledge(mark)
    successor = Journal(memory)
    assert successor.unacknowledged() == b"two"
    successor.take(b"three", 3, PLACES[3])
    assert (successor.read_to, Journal(memory).unacknowledged()) == (11, b"twothree")
    successor.acknowledge(successor.read_to)
    assert Journal(memory).unacknowledged() == b""


def test_a_successor_finds_how_far_each_ring_was_read(memory: int) -> None:
    journal = Journal(memory)
    journal.take(b"one", 3, PLACES[1])
    journal.take(b"two", 400, PLACES[2])
    journal.take(b"three", 3, PLACES[3])
    successor = Journal(memory)
    assert [successor.place(ring) for ring in (3, 400, 5)] == [*PLACES[3:1:-1], Place(0, 0, 0, 0)]


def test_an_older_position_or_one_not_taken_yet_acknowledges_nothing(memory: int) -> None:
    journal = Journal(memory)
    journal.take(b"0123456789", 0, PLACES[1])
    for mark, left in ((4, b"456789"), (2, b"456789"), (11, b"456789"), (10, b"")):
        journal.acknowledge(mark)
        assert journal.unacknowledged() == left


def test_a_successor_finds_the_last_frames_and_never_acknowledged_ones(memory: int) -> None:
    chance = random.Random(1)
    # An array: bytes would be copied whole at each turn.
    journal, stream, taken, given_up = Journal(memory), bytearray(), 0, 0
    for _ in range(1_500):
        data = chance.randbytes(chance.randrange(1, TAKEN_BYTES_MAX + 1))
        journal.take(data, 0, PLACES[1])
        stream += data
        if chance.random() < 0.02:
            taken = chance.randrange(taken, len(stream) + 1)
            journal.acknowledge(taken)
        left = Journal(memory).unacknowledged()
        assert stream.endswith(left)
        assert len(left) <= len(stream) - taken
        given_up += len(left) < len(stream) - taken
    assert given_up > 0
    assert len(stream) > 5 * JOURNAL_BYTES


def test_frames_that_are_acknowledged_often_enough_are_never_dropped(memory: int) -> None:
    journal, stream, taken = Journal(memory), 0, 0
    for turn in range(2_000):
        journal.take(bytes(50_000), 0, PLACES[1])
        stream += 50_000
        if turn % 20 == 0:
            # A turn before the last: something is always left.
            taken = stream - 50_000
            journal.acknowledge(taken)
        assert len(Journal(memory).unacknowledged()) == stream - taken


@pytest.mark.parametrize("copy", [0, 1])
def test_a_torn_header_leaves_the_one_before_it_with_its_place(memory: int, copy: int) -> None:
    journal = Journal(memory)
    journal.take(b"one", 3, PLACES[1])
    journal.take(b"two", 3, PLACES[2])
    last = journal._number % 2
    os.pwrite(memory, b"\xff" * 20, copy * HEADER_BYTES)
    successor = Journal(memory)
    if copy == last:
        assert (successor.unacknowledged(), successor.place(3)) == (b"one", PLACES[1])
    else:
        assert (successor.unacknowledged(), successor.place(3)) == (b"onetwo", PLACES[2])


def test_garbage_leaves_no_frames_and_taking_goes_on(memory: int) -> None:
    os.pwrite(memory, b"\xff" * 2 * HEADER_BYTES, 0)
    journal = Journal(memory)
    assert journal.unacknowledged() == b""
    journal.take(b"one", 0, PLACES[1])
    assert Journal(memory).unacknowledged() == b"one"


def test_programs_that_a_task_starts_do_not_inherit_it(memory: int) -> None:
    assert os.get_inheritable(memory) is False
