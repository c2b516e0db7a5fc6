"""The three things of the protobuf wire format that a profile needs: varints, bytes, fields.

Our own and not protobuf's runtime: a profile is seven small messages written once, while which
runtime is installed, and in which version, is the exporter's business.
"""

from __future__ import annotations

from collections.abc import Iterable

_VARINT = 0
_BYTES = 2
_UNSIGNED = (1 << 64) - 1


def varint(value: int) -> bytes:
    """An integer of 64 bits; a negative one as its two's complement, as int64 is written."""
    value &= _UNSIGNED
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def number(field: int, value: int) -> bytes:
    """A field with an integer; nothing for 0, which is what a missing field means."""
    return varint(field << 3 | _VARINT) + varint(value) if value else b""


def delimited(field: int, data: bytes) -> bytes:
    """A field with bytes, a string or a message."""
    return varint(field << 3 | _BYTES) + varint(len(data)) + data


def packed(field: int, values: Iterable[int]) -> bytes:
    """A repeated field of integers."""
    return delimited(field, b"".join(map(varint, values)))
