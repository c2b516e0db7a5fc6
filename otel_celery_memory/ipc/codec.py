"""Encodes records as frames, and decodes frames to records.

A frame is at most 4 KiB. Its header is magic, version, kind, length of the payload, and CRC-32 of
version, kind and payload. The payload is the record's numbers, packed little-endian, then its
strings in UTF-8, separated by NUL. The codec uses ``struct`` and not ``marshal``: ``marshal`` is as
fast, but bytes that it did not write may crash the reader ("never unmarshal data received from an
untrusted source").

The decoder finds complete frames among the bytes of a ring (`ring.py`), and skips other bytes.
"""

from __future__ import annotations

import struct
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Protocol
from zlib import crc32

from otel_celery_memory.ipc import records
from otel_celery_memory.ipc.records import Record, TaskStarted

MAGIC = b"\xce\x4d"
VERSION = 3
MAX_FRAME_BYTES = 4096

HEADER = struct.Struct("<IHI")
"""What it begins with (`Layout.begin`), length of the payload, checksum."""
KIND_AT = 3
"""Offset of the byte that gives a frame's kind."""
_pack_header = HEADER.pack
_new = tuple.__new__
ABSENT = -(2**63)
"""What stands for ``None`` in a frame."""
_NONE_IF_ABSENT: dict[int, int | None] = {ABSENT: None}
_STRING_LIMIT_BYTES = {
    **{"task_id": 256, "via": 256, "where": 256},
    **{"stack": 1792, "path": 1024, "holder": 1024},
}
_STRING_LIMIT_DEFAULT_BYTES = 512
_SMALLEST_LIMIT_BYTES = min(_STRING_LIMIT_BYTES.values())


class Layout:
    """The layout of one record type: its numbers and bytes, then its strings."""

    def __init__(self, kind: int, record_type: type[Record]) -> None:
        self.kind = kind
        # Magic, version and kind as one number: a frame is made, and found, for each run.
        self.begin = int.from_bytes(MAGIC + bytes((VERSION, kind)), "little")
        # The checksum covers the header's version and kind too.
        self.seed = crc32(bytes((VERSION, kind)))
        self.type = record_type
        hints = typing.get_type_hints(record_type)
        fields: tuple[str, ...] = record_type._fields
        self.strings = tuple(name for name in fields if hints[name] is str)
        self.number_count = len(fields) - len(self.strings)
        # The numbers come first in every record, so that both parts are slices.
        assert fields[self.number_count :] == self.strings, record_type
        numbers = fields[: self.number_count]
        self.numbers = struct.Struct(
            "<" + "".join("25s" if hints[name] is bytes else "q" for name in numbers)
        )
        self.pack = self.numbers.pack
        self.optional = tuple(
            index for index, name in enumerate(numbers) if hints[name] == (int | types.NoneType)
        )
        self._optional_parts = tuple(
            slice(part[0], part[-1] + 1) for part in _adjacent(self.optional)
        )

    def record(self, payload: bytes) -> Record | None:
        """The record of a payload; ``None`` if it does not fit."""
        size = self.numbers.size
        if len(payload) < size or (not self.strings and len(payload) > size):
            return None
        found: typing.Any = self.numbers.unpack_from(payload)
        if self.optional and ABSENT in found:
            found = list(found)
            for part in self._optional_parts:
                numbers = found[part]
                found[part] = map(_NONE_IF_ABSENT.get, numbers, numbers)
        if self.strings:
            try:
                strings = payload[size:].decode().split("\0")
            except UnicodeDecodeError:
                return None
            if len(strings) != len(self.strings):
                return None
            found = (*found, *strings)
        # Faster than the type's own constructor, which wraps this call with three checks.
        return _new(self.type, found)


def _adjacent(indexes: Sequence[int]) -> list[list[int]]:
    parts: list[list[int]] = []
    for index in indexes:
        if parts and index == parts[-1][-1] + 1:
            parts[-1].append(index)
        else:
            parts.append([index])
    return parts


_LAYOUTS = [
    Layout(kind, record_type)
    for kind, record_type in enumerate(typing.get_args(records.Record), start=1)
]
_BY_TYPE = {layout.type: layout for layout in _LAYOUTS}
_BY_BEGIN = {layout.begin: layout for layout in _LAYOUTS}
STARTED = _BY_TYPE[records.TaskStarted]
FINISHED = _BY_TYPE[records.TaskFinished]


Fields = tuple[Layout, "Sequence[int | bytes]", tuple[str, ...]]
"""A record's layout, its numbers with `ABSENT` for ``None``, and its strings."""


def encode(record: Record) -> bytes:
    """The frame of a record, at most `MAX_FRAME_BYTES` long; clips strings that are too long."""
    return frame_of(*fields_of(record))


def fields_of(record: Record) -> Fields:
    """What `frame_of` takes for this record."""
    layout = _BY_TYPE[type(record)]
    count = layout.number_count
    numbers: typing.Any = record[:count]
    if layout.optional:
        numbers = list(numbers)
        for index in layout.optional:
            if numbers[index] is None:
                numbers[index] = ABSENT
    return layout, numbers, typing.cast("tuple[str, ...]", record[count:])


def frame_of(layout: Layout, numbers: Sequence[int | bytes], strings: tuple[str, ...]) -> bytes:
    """`encode` for a record that need not be made: its numbers, `ABSENT` for ``None``, and strings.

    Raises `struct.error` where a number has more than 64 bits.
    """
    text = "\0".join(strings)
    try:
        body = text.encode()  # half the cost of naming what is to be done about surrogates
    except UnicodeEncodeError:
        body = text.encode("utf-8", "replace")
    # Whether a string is clipped must not depend on the others: a start and its end carry one id.
    # Searching what is joined takes half of what counting the separators does.
    if len(body) > _SMALLEST_LIMIT_BYTES or "\0" in "".join(strings):
        body = _clipped(layout, strings)
    payload = layout.pack(*numbers) + body
    return _pack_header(layout.begin, len(payload), crc32(payload, layout.seed)) + payload


def finished_record(
    numbers: Sequence[int | bytes], strings: tuple[str, ...]
) -> records.TaskFinished:
    """The record whose frame `frame_of` makes of the same numbers and strings."""
    present: typing.Any = list(numbers)
    for index in FINISHED.optional:
        if present[index] == ABSENT:
            present[index] = None
    return records.TaskFinished(*present, *strings)


def _clipped(layout: Layout, strings: tuple[str, ...]) -> bytes:
    parts = []
    for name, value in zip(layout.strings, strings, strict=True):
        limit = _STRING_LIMIT_BYTES.get(name, _STRING_LIMIT_DEFAULT_BYTES)
        encoded = value.replace("\0", "").encode("utf-8", "replace")
        if name == "stack" and len(encoded) > limit:
            # The most recent calls come last and are the most useful; half a line is of no use.
            encoded = encoded[-limit:].partition(b"\n")[2] or encoded[-limit:]
        encoded = encoded[:limit]
        # A cut inside a character leaves bytes that are not UTF-8: drop them.
        parts.append(encoded.decode("utf-8", "ignore").encode())
    return b"\0".join(parts)


def read_frames(data: bytes, at: int = 0) -> Iterator[tuple[int, int, Record]]:
    """Where each complete frame begins and ends, and its record; skips all other bytes."""
    end, header_bytes = len(data), HEADER.size
    while end - at >= header_bytes:
        begin, length, checksum = HEADER.unpack_from(data, at)
        layout = _BY_BEGIN.get(begin)
        payload_at = at + header_bytes
        stop = payload_at + length
        if layout is not None and stop <= end and stop - at <= MAX_FRAME_BYTES:
            payload = data[payload_at:stop]
            if crc32(payload, layout.seed) == checksum:
                record = layout.record(payload)
                if record is not None:
                    yield at, stop, record
                    at = stop
                    continue
        at = data.find(MAGIC, at + 1)
        if at < 0:
            return


def records_in(data: bytes) -> list[Record]:
    """The records of all complete frames."""
    return [record for _, _, record in read_frames(data)]


class InFlightTable(Protocol):
    """Where each process writes its task in flight: the control page."""

    def in_flight(self, slot: int) -> bytes:
        """The frame of the task in flight in this slot; empty if there is none."""

    def idle(self, slot: int, pid: int) -> bool:
        """Whether this process has written that all its tasks have ended."""


def task_in_flight(table: InFlightTable, slot: int, pid: int) -> TaskStarted | None:
    """The start of this process's task in flight; another process may have its slot by now."""
    started = decode_in_flight(table.in_flight(slot))
    return started if started is not None and started.pid == pid else None


def decode_in_flight(frame: bytes) -> TaskStarted | None:
    """The start in a slot's area of the control page; ``None`` if it has no complete frame."""
    return next((found for found in records_in(frame) if isinstance(found, TaskStarted)), None)
