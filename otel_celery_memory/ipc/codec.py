"""How a record becomes a frame in the pipe, and frames become records again.

A frame is at most ``PIPE_BUF`` bytes, so the kernel never interleaves two writers (pipe(7)):
magic, version, kind, length of the payload, CRC-32 of version, kind and
payload; then the payload: the
record's numbers packed little-endian, then its strings in UTF-8, separated by NUL. ``struct``
and not ``marshal``, which is as fast but may crash the reader on bytes it did not write
("never unmarshal data received from an untrusted source").

A reader finds whole frames among the bytes of the pipe; what is none is skipped and counted.
"""

from __future__ import annotations

import struct
import types
import typing
from typing import Protocol
from zlib import crc32

from otel_celery_memory.ipc import records
from otel_celery_memory.ipc.records import Record, TaskStarted

MAGIC = b"\xce\x4d"
VERSION = 2
MAX_FRAME_BYTES = 4096
"""Linux's ``PIPE_BUF``. POSIX asks for 512 only; macOS has 512 and may tear larger frames there,
which the decoder then skips and counts."""

HEADER = struct.Struct("<2sBBHI")
KIND_AT = 3
"""Which byte of a frame says what it is."""
_pack_header = HEADER.pack
_new = tuple.__new__
_ABSENT = -(2**63)
_STRING_LIMIT_BYTES = {"task_id": 256, "stack": 2048, "path": 1024}
_STRING_LIMIT_DEFAULT_BYTES = 512
_SMALLEST_LIMIT_BYTES = min(_STRING_LIMIT_BYTES.values())


class Layout:
    """Where a record type's numbers, bytes and strings lie."""

    def __init__(self, kind: int, record_type: type[Record]) -> None:
        self.kind = kind
        # The checksum covers what the header says of the payload too.
        self.seed = crc32(bytes((VERSION, kind)))
        self.type = record_type
        hints = typing.get_type_hints(record_type)
        fields: tuple[str, ...] = record_type._fields
        self.strings = tuple(name for name in fields if hints[name] is str)
        self.separators = max(len(self.strings) - 1, 0)
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


_LAYOUTS = [
    Layout(kind, record_type)
    for kind, record_type in enumerate(typing.get_args(records.Record), start=1)
]
_BY_TYPE = {layout.type: layout for layout in _LAYOUTS}
LAYOUTS = {layout.kind: layout for layout in _LAYOUTS}
"""By the kind that a header names."""
STARTED = _BY_TYPE[records.TaskStarted]
FINISHED = _BY_TYPE[records.TaskFinished]
ABSENT = _ABSENT
"""What stands for ``None`` in a frame."""


def encode(record: Record) -> bytes:
    """The frame of a record: never more than `MAX_FRAME_BYTES`, over-long strings are clipped."""
    layout = _BY_TYPE[type(record)]
    count = layout.number_count
    numbers: typing.Any = record[:count]
    if layout.optional:
        numbers = list(numbers)
        for index in layout.optional:
            if numbers[index] is None:
                numbers[index] = _ABSENT
    text: str = "\0".join(record[count:])  # type: ignore[arg-type]
    body = text.encode("utf-8", "replace")
    # Clipped or not must not depend on the other strings: a start and its end name one id.
    if len(body) > _SMALLEST_LIMIT_BYTES or text.count("\0") != layout.separators:
        body = _clipped(layout, typing.cast("tuple[str, ...]", record[count:]))
    payload = layout.pack(*numbers) + body
    return (
        _pack_header(MAGIC, VERSION, layout.kind, len(payload), crc32(payload, layout.seed))
        + payload
    )


def finished_record(numbers: tuple[int | bytes, ...], text: str) -> records.TaskFinished:
    """The record of such parts of a `TaskFinished`."""
    present: typing.Any = list(numbers)
    for index in FINISHED.optional:
        if present[index] == _ABSENT:
            present[index] = None
    # A name may hold a NUL; what is left over goes with the last string and is clipped there.
    strings = text.split("\0", FINISHED.separators)
    return records.TaskFinished(*present, *strings)


def plain_frame(layout: Layout, numbers: tuple[int | bytes, ...], text: str) -> bytes | None:
    """`encode` for hot paths, of a record's numbers, `ABSENT` for ``None``, and its joined strings.

    ``None`` where a string may have to be clipped: that is left to `encode`.
    """
    body = text.encode("utf-8", "replace")
    if len(body) > _SMALLEST_LIMIT_BYTES or text.count("\0") != layout.separators:
        return None
    payload = layout.pack(*numbers) + body
    return (
        _pack_header(MAGIC, VERSION, layout.kind, len(payload), crc32(payload, layout.seed))
        + payload
    )


def _clipped(layout: Layout, strings: tuple[str, ...]) -> bytes:
    parts = []
    for name, value in zip(layout.strings, strings, strict=True):
        limit = _STRING_LIMIT_BYTES.get(name, _STRING_LIMIT_DEFAULT_BYTES)
        encoded = value.replace("\0", "").encode("utf-8", "replace")
        if name == "stack" and len(encoded) > limit:
            # The most recent calls come last and say most; a place cut in two says nothing.
            encoded = encoded[-limit:].partition(b"\n")[2] or encoded[-limit:]
        encoded = encoded[:limit]
        # A cut in the middle of a character leaves bytes that are no UTF-8: drop them.
        parts.append(encoded.decode("utf-8", "ignore").encode())
    return b"\0".join(parts)


def decode(kind: int, payload: bytes) -> Record | None:
    """The record of one payload, or ``None`` where it is not one of ours."""
    layout = LAYOUTS.get(kind)
    if layout is None or len(payload) < layout.numbers.size:
        return None
    if not layout.strings and len(payload) > layout.numbers.size:
        return None
    numbers: typing.Any = layout.numbers.unpack_from(payload)
    if layout.optional and _ABSENT in numbers:
        numbers = list(numbers)
        for index in layout.optional:
            if numbers[index] == _ABSENT:
                numbers[index] = None
    strings: list[str] = []
    if layout.strings:
        try:
            strings = payload[layout.numbers.size :].decode("utf-8").split("\0")
        except UnicodeDecodeError:
            return None
    if len(strings) != len(layout.strings):
        return None
    # As the type's own constructor, which is a function around this, with three checks of its own.
    return _new(layout.type, (*numbers, *strings))


class FrameDecoder:
    """Turns the bytes of a pipe into records; skips and counts what is not a frame.

    ``bad_frames`` counts runs of bytes that were skipped, not the bytes. Never raises, and keeps
    less than one frame between calls.
    """

    def __init__(self) -> None:
        self.bad_frames = 0
        self._rest = b""
        self._in_garbage = False

    def feed(self, data: bytes) -> list[Record]:
        """Records that are complete with `data` appended to what came before."""
        buffer = self._rest + data if self._rest else data
        found: list[Record] = []
        at, end = 0, len(buffer)
        while end - at >= HEADER.size:
            magic, version, kind, length, checksum = HEADER.unpack_from(buffer, at)
            stop = at + HEADER.size + length
            if magic != MAGIC or version != VERSION or stop - at > MAX_FRAME_BYTES:
                at = self._skip(buffer, at)
                continue
            if stop > end:
                break
            payload = buffer[at + HEADER.size : stop]
            layout = LAYOUTS.get(kind)
            intact = layout is not None and crc32(payload, layout.seed) == checksum
            record = decode(kind, payload) if intact else None
            if record is None:
                at = self._skip(buffer, at)
                continue
            self._in_garbage = False
            found.append(record)
            at = stop
        self._rest = buffer[at:]
        return found

    @property
    def incomplete_bytes(self) -> int:
        """How much of what was fed is no whole frame yet."""
        return len(self._rest)

    def finish(self) -> list[Record]:
        """The stream has ended: what is left is no frame's beginning, but may hide whole ones."""
        found: list[Record] = []
        while len(self._rest) >= HEADER.size:
            at = self._skip(self._rest, 0)
            rest, self._rest = self._rest[at:], b""
            found += self.feed(rest)
        if self._rest and not self._in_garbage:
            self.bad_frames += 1
        self._rest = b""
        return found

    def _skip(self, buffer: bytes, at: int) -> int:
        """The next place where a frame may begin; counts a run of garbage once."""
        if not self._in_garbage:
            self._in_garbage = True
            self.bad_frames += 1
        following = buffer.find(MAGIC, at + 1)
        if following >= 0:
            return following
        # The last byte may be the first half of the magic.
        return max(at + 1, len(buffer) - len(MAGIC) + 1)


class InFlightTable(Protocol):
    """Where processes say what they run: the control page."""

    def in_flight(self, slot: int) -> bytes:
        """What the process in this slot holds; empty where it holds nothing."""

    def idle(self, slot: int, pid: int) -> bool:
        """Whether this process says that all that it ran has ended."""


def task_in_flight(table: InFlightTable, slot: int, pid: int) -> TaskStarted | None:
    """The start that this process holds; another one may have its slot by now."""
    held = decode_in_flight(table.in_flight(slot))
    return held if held is not None and held.pid == pid else None


def decode_in_flight(held: bytes) -> TaskStarted | None:
    """The start that a process holds in the control page; ``None`` where there is no whole one."""
    found = FrameDecoder().feed(held)
    return next((record for record in found if isinstance(record, TaskStarted)), None)
