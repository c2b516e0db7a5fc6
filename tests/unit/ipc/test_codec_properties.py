"""Properties of frames: any record survives; any bytes, in any pieces, are read within bounds."""

from __future__ import annotations

import struct
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_celery_memory.ipc.codec import (
    ABSENT,
    FINISHED,
    HEADER,
    MAGIC,
    MAX_FRAME_BYTES,
    encode,
    finished_record,
    frame_of,
)
from otel_celery_memory.ipc.records import Record, TaskFinished
from tests.unit.arbitrary import BEYOND_INT64, INT64, RECORDS, TEXT
from tests.unit.ipc.frames import begin_of, decode
from tests.unit.ipc.reading import read_all

KIB = 1 << 10
LIMITS_BYTES = {
    "task_id": 256,
    "via": 256,
    "where": 256,
    "stack": 1792,
    "path": 1024,
    "holder": 1024,
}


def as_sent(record: Record) -> Record:
    """The record that should be decoded: `ABSENT` becomes ``None``, and strings are clipped."""
    hints = typing.get_type_hints(type(record))
    values: dict[str, typing.Any] = {}
    for name, value in record._asdict().items():
        if isinstance(value, str):
            limit = LIMITS_BYTES.get(name, 512)
            values[name] = clipped(value.replace("\0", ""), limit, lines=name == "stack")
        else:
            absent = value == ABSENT and hints[name] == (int | None)
            values[name] = None if absent else value
    return type(record)(**values)


def clipped(text: str, limit_bytes: int, *, lines: bool) -> str:
    """As many whole characters as there is room for, or the last whole lines."""
    data = text.encode("utf-8", "replace")
    if len(data) > limit_bytes:
        if lines:
            end = data[-limit_bytes:]
            data = end[end.find(b"\n") + 1 :] or end
        else:
            data = data[:limit_bytes]
    return data.decode("utf-8", "ignore")


@given(RECORDS)
def test_any_record_is_decoded_as_it_was_encoded_except_for_clipped_strings(record: Record) -> None:
    frame = encode(record)
    assert len(frame) <= MAX_FRAME_BYTES
    assert read_all(frame) == ([as_sent(record)], 0)


@given(RECORDS, BEYOND_INT64, st.data())
def test_a_number_of_more_than_64_bits_makes_no_frame_wherever_it_stands(
    record: Record, number: int, data: st.DataObject
) -> None:
    names = [name for name, value in record._asdict().items() if isinstance(value, int)]
    fields: dict[str, typing.Any] = {data.draw(st.sampled_from(names)): number}
    with pytest.raises(struct.error):
        encode(record._replace(**fields))


@given(
    st.tuples(*[INT64] * 11),
    st.binary(min_size=25, max_size=25),
    st.tuples(TEXT, TEXT, TEXT, TEXT),
)
def test_a_frame_needs_no_record(
    numbers: tuple[int, ...], span: bytes, strings: tuple[str, ...]
) -> None:
    record = finished_record((*numbers, span), strings)
    assert isinstance(record, TaskFinished)
    assert frame_of(FINISHED, (*numbers, span), strings) == encode(record)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_and_counted(data: bytes) -> None:
    assert read_all(data) == ([], 1 if data else 0)


@given(st.integers(0, 255), st.binary(max_size=300))
def test_any_payload_of_any_kind_is_a_record_or_none(kind: int, payload: bytes) -> None:
    record = decode(kind, payload)
    # A decoded record can be encoded again, in no more bytes.
    assert record is None or len(encode(record)) <= HEADER.size + len(payload)


def _torn(frame: bytes, share: float) -> bytes:
    return frame[: max(int(len(frame) * share), 1)]


def _promising(kind: int, length: int, data: bytes, times: int = 1) -> bytes:
    return HEADER.pack(begin_of(kind), length, 0) + data * times


FRAMES = RECORDS.map(encode)
GARBAGE = st.one_of(
    st.binary(min_size=1, max_size=60),
    st.builds(_torn, FRAMES, st.floats(0, 0.99)),
    FRAMES.map(lambda frame: frame[1:]),
    st.builds(
        _promising,
        st.integers(0, 20),
        st.one_of(st.integers(0, 2**16 - 1), st.integers(MAX_FRAME_BYTES - 20, MAX_FRAME_BYTES)),
        st.binary(max_size=60),
        st.sampled_from([1, 1, 300]),
    ),
    st.integers(1, 40).map(lambda times: MAGIC * times),
)


@given(
    st.lists(st.tuples(GARBAGE, st.lists(RECORDS, min_size=1, max_size=3)), max_size=4),
    GARBAGE,
)
def test_between_whatever_garbage_whole_frames_are_found_and_each_run_of_it_is_counted(
    parts: list[tuple[bytes, list[Record]]], tail: bytes
) -> None:
    stream = b"".join(garbage + b"".join(map(encode, records)) for garbage, records in parts)
    wanted = [as_sent(record) for _, records in parts for record in records]
    assert read_all(stream + tail) == (wanted, len(parts) + 1)
