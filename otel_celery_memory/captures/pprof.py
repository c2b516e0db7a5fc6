"""A capture as a profile that ``go tool pprof``, speedscope and Pyroscope open.

The format is profile.proto of github.com/google/pprof, gzip-compressed: strings, functions and
locations are each written once and referred to by number. The three elements of the protobuf wire
format that it needs are written here. Protobuf's runtime is not used: the exporter decides which
version is installed, and a profile is only seven small messages.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from otel_celery_memory.captures.model import KINDS, Capture, CapturedSite, ShortNames

_VARINT = 0
_BYTES = 2
_UNSIGNED = (1 << 64) - 1


def varint(value: int) -> bytes:
    """An integer of 64 bits as a varint; negative ones in two's complement, as for int64."""
    value &= _UNSIGNED
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def number(field: int, value: int) -> bytes:
    """A field with an integer; empty for 0, which a missing field means."""
    return varint(field << 3 | _VARINT) + varint(value) if value else b""


def delimited(field: int, data: bytes) -> bytes:
    """A field with bytes, a string or a message."""
    return varint(field << 3 | _BYTES) + varint(len(data)) + data


def packed(field: int, values: Iterable[int]) -> bytes:
    """A repeated field of integers."""
    return delimited(field, b"".join(map(varint, values)))


OTHER = "(other sites)"
"""Name of the function that stands for the sites beyond the capture's bound."""

# Field numbers of the message Profile.
_SAMPLE_TYPE, _SAMPLE, _LOCATION, _FUNCTION, _STRING_TABLE = 1, 2, 4, 5, 6
_TIME_NANOS, _DURATION_NANOS, _PERIOD_TYPE, _PERIOD, _COMMENT, _DEFAULT_TYPE = range(9, 15)


def dump_pprof(capture: Capture) -> bytes:
    """The profile: bytes and blocks alive by stack, with the task as a label of each sample."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return packer.compress(_Profile(capture).encoded()) + packer.flush()


class _Profile:
    """The tables of one profile, and its samples."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._names = ShortNames(capture.sites)
        self._functions_known = {
            (site.path, site.line): site.function for site in capture.sites if site.function
        }
        self._strings = {"": 0}
        self._functions: dict[tuple[str, str], int] = {}
        self._locations: dict[tuple[int, int], int] = {}
        self._places: dict[tuple[str, int], int] = {}

    def encoded(self) -> bytes:
        capture = self._capture
        space = self._value_type("inuse_space", "bytes")
        parts = [
            # Tools that ignore the default type show the last one.
            delimited(_SAMPLE_TYPE, self._value_type("inuse_objects", "count")),
            delimited(_SAMPLE_TYPE, space),
            *(delimited(_SAMPLE, self._sample(site)) for site in capture.sites),
        ]
        if capture.other_bytes or capture.other_blocks:
            other = [self._location(OTHER, "", 0)]
            values = (capture.other_blocks, capture.other_bytes)
            parts.append(delimited(_SAMPLE, packed(1, other) + packed(2, values)))
        parts += [
            number(_TIME_NANOS, capture.taken_ns),
            number(_DURATION_NANOS, round(capture.duration_s * 1e9)),
            delimited(_PERIOD_TYPE, space),
            number(_PERIOD, 1),
            packed(_COMMENT, map(self._string, self._comments())),
            number(_DEFAULT_TYPE, self._string("inuse_space")),
        ]
        for (function, line), location in self._locations.items():
            at = delimited(4, number(1, function) + number(2, line))
            parts.append(delimited(_LOCATION, number(1, location) + at))
        for (name, path), function in self._functions.items():
            called = self._string(name)
            described = number(2, called) + number(3, called) + number(4, self._string(path))
            parts.append(delimited(_FUNCTION, number(1, function) + described))
        # Last: everything above may add strings.
        parts += [
            delimited(_STRING_TABLE, text.encode("utf-8", "replace")) for text in self._strings
        ]
        return b"".join(parts)

    def _comments(self) -> list[str]:
        capture = self._capture
        runs = (f"traced runs of {task}: {count}" for task, count in sorted(capture.runs.items()))
        return [
            *([f"worker: {capture.worker}"] if capture.worker else []),
            f"kind: {capture.kind} ({KINDS[capture.kind]})",
            f"reason: {capture.reason}",
            *runs,
        ]

    def _value_type(self, kind: str, unit: str) -> bytes:
        return number(1, self._string(kind)) + number(2, self._string(unit))

    def _sample(self, site: CapturedSite) -> bytes:
        stack = site.stack or ((site.path, site.line),)
        # The leaf first.
        locations = [self._places.get(at) or self._place(*at) for at in reversed(stack)]
        sample = packed(1, locations) + packed(2, (site.blocks, site.size_bytes))
        if site.task:
            label = number(1, self._string("task")) + number(2, self._string(site.task))
            sample += delimited(3, label)
        return sample

    def _place(self, path: str, line: int) -> int:
        """A location; a line without a known function stands for the function."""
        name = self._functions_known.get((path, line)) or self._names.place(path, line)
        location = self._location(name, path, line)
        self._places[path, line] = location
        return location

    def _location(self, name: str, path: str, line: int) -> int:
        function = self._functions.setdefault((name, path), len(self._functions) + 1)
        return self._locations.setdefault((function, line), len(self._locations) + 1)

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))
