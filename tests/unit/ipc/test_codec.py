"""Frames: every record is decoded as it was encoded, and other bytes are skipped."""

from __future__ import annotations

import struct
import typing
from typing import Any

import pytest

from otel_celery_memory.ipc.codec import (
    MAGIC,
    MAX_FRAME_BYTES,
    encode,
    read_frames,
    records_in,
)
from otel_celery_memory.ipc.records import (
    Goodbye,
    HeapSampled,
    ProcessUp,
    Record,
    Site,
    TaskFinished,
    TaskStarted,
)
from tests.unit.examples import EXAMPLES, finished, started
from tests.unit.ipc.frames import decode

_HEADER_BYTES = 10


def decoded(*frames: bytes) -> list[Record]:
    """All records of these frames, one behind the other."""
    return records_in(b"".join(frames))


def test_the_examples_are_one_record_of_every_kind() -> None:
    assert [type(record) for record in EXAMPLES] == list(typing.get_args(Record))


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_a_record_comes_out_of_its_frame_as_it_went_in(record: Record) -> None:
    assert decoded(encode(record)) == [record]


def test_what_could_not_be_measured_stays_apart_from_zero() -> None:
    absent: list[Record] = [started(retained_bytes=None), HeapSampled(1, 2, 3, None, None)]
    zero: list[Record] = [started(retained_bytes=0), HeapSampled(1, 2, 3, 0, 0)]
    assert decoded(*map(encode, absent + zero)) == absent + zero


def test_numbers_keep_all_their_bits() -> None:
    record = ProcessUp(2**31, 2**63 - 1, -(2**63), 2**62 + 1)
    assert decoded(encode(record)) == [record]


def test_names_in_any_script_come_back() -> None:
    record = started(task_id="ид-1", task="アプリ.タスク", previous_task="naïve.🧠")
    assert decoded(encode(record)) == [record]


def test_a_lone_surrogate_is_replaced_and_does_not_raise() -> None:
    assert decoded(encode(started(task="app.\udcff"))) == [started(task="app.?")]


def test_a_nul_inside_a_string_is_left_out_and_the_fields_stay_apart() -> None:
    record = started(task_id="a\0b", task="x\0", previous_task="\0y")
    assert decoded(encode(record)) == [started(task_id="ab", task="x", previous_task="y")]


def test_overlong_strings_are_clipped_at_their_limits() -> None:
    record = Site(1, 0, 0, 2, 3, 4, 0, "t" * 9_000, "p" * 9_000, "s" * 9_000)
    assert decoded(encode(record)) == [
        Site(1, 0, 0, 2, 3, 4, 0, "t" * 512, "p" * 1_024, "s" * 1_792),
    ]


def test_a_clip_in_the_middle_of_a_character_leaves_that_character_out() -> None:
    record = started(task="x" + "é" * 9_000)
    assert decoded(encode(record)) == [started(task="x" + "é" * 255)]


def test_no_record_makes_a_frame_that_is_longer_than_the_decoder_takes() -> None:
    long = "\U0001f9e0" * 5_000
    for record in EXAMPLES:
        strings: dict[str, Any] = {
            name: long for name in record._fields if isinstance(getattr(record, name), str)
        }
        assert len(encode(record._replace(**strings))) <= MAX_FRAME_BYTES


@pytest.mark.parametrize("length", [255, 256, 257, 300, 600])
def test_a_task_s_start_and_end_carry_the_same_id_however_long_it_is(length: int) -> None:
    records = decoded(
        encode(started(task_id="i" * length, previous_task="p" * 250)),
        encode(finished(task_id="i" * length)),
    )
    start, end = records
    assert isinstance(start, TaskStarted)
    assert isinstance(end, TaskFinished)
    assert start.task_id == end.task_id


def test_a_number_that_does_not_fit_is_the_writer_s_error() -> None:
    with pytest.raises(struct.error):
        encode(Goodbye(1, 2**63))


def test_a_payload_of_no_known_kind_is_no_record() -> None:
    assert [decode(kind, bytes(200)) for kind in (0, len(EXAMPLES) + 1, 255)] == [None] * 3


@pytest.mark.parametrize("kind", range(1, len(EXAMPLES) + 1))
def test_a_payload_with_too_little_or_too_much_in_it_is_no_record(kind: int) -> None:
    payload = encode(EXAMPLES[kind - 1])[_HEADER_BYTES:]
    assert decode(kind, b"") is None
    assert decode(kind, payload[:15]) is None
    assert decode(kind, payload + b"\0more") is None


def test_strings_that_are_not_utf8_are_no_record() -> None:
    payload = encode(started(task="app"))[_HEADER_BYTES:].replace(b"app", b"\xff\xfe\xfd")
    assert decode(3, payload) is None


def test_all_bytes_but_the_frames_are_skipped() -> None:
    first, second = EXAMPLES[:2]
    data = b"garbage " * 30 + encode(first) + b"\0" * 99 + encode(second) + encode(first)[:20]
    found = list(read_frames(data))
    assert [record for _, _, record in found] == [first, second]
    assert [data[begin:end] for begin, end, _ in found] == [encode(first), encode(second)]


def test_a_header_that_promises_more_than_a_frame_may_hold_is_garbage() -> None:
    frame = encode(EXAMPLES[0])
    long = MAGIC + frame[2:4] + struct.pack("<H", MAX_FRAME_BYTES) + frame[6:]
    assert decoded(long.ljust(2 * MAX_FRAME_BYTES, b"x"), frame) == [EXAMPLES[0]]


def test_a_frame_of_another_version_is_garbage() -> None:
    frame = encode(EXAMPLES[0])
    assert decoded(frame[:2] + b"\x7f" + frame[3:], encode(EXAMPLES[1])) == [EXAMPLES[1]]


@pytest.mark.parametrize("size", [1, 9, 10, 20])
def test_a_frame_that_is_torn_is_no_record_and_the_next_one_is(size: int) -> None:
    assert decoded(encode(EXAMPLES[0])[:size], encode(EXAMPLES[1])) == [EXAMPLES[1]]
