"""Reads profiles in pprof's format as far as the benchmarks need it: values by the line on top.

The format is protobuf (https://github.com/google/pprof/blob/main/proto/profile.proto), mostly
compressed. Its few messages are read here field by field.
"""

from __future__ import annotations

import gzip
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"

Place = tuple[str, int, str]
"""File, line and function."""


@dataclass(frozen=True)
class Sample:
    """Values of one stack, in the order of the profile's types; the innermost place first."""

    places: tuple[Place, ...]
    values: tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    """One profile, and when it was written or received."""

    at_s: float
    types: tuple[str, ...]
    all_samples: tuple[Sample, ...]
    process: str = ""
    """Of which process it is, as far as that is told."""

    def samples(self, kind: str) -> list[tuple[tuple[Place, ...], int]]:
        """Stacks with a value of this type."""
        if kind not in self.types:
            return []
        at = self.types.index(kind)
        return [(each.places, each.values[at]) for each in self.all_samples if each.values[at]]

    def total(self, kind: str) -> int:
        """All values of this type together."""
        return sum(value for _, value in self.samples(kind))


def read_file(path: Path) -> Profile:
    """The profile in a file that is named ``NAME.PID.NUMBER.pprof``."""
    return of_bytes(path.read_bytes(), path.stat().st_mtime, path.name.split(".")[1])


def of_bytes(data: bytes, at_s: float, process: str = "") -> Profile:
    """The profile in bytes, compressed or not."""
    data = _decompressed(data)
    texts: list[str] = []
    types: list[int] = []
    functions: dict[int, tuple[int, int]] = {}
    locations: dict[int, list[tuple[int, int]]] = {}
    samples: list[tuple[list[int], list[int]]] = []
    for number, value in _fields(data):
        if number == 6 and isinstance(value, bytes):
            texts.append(value.decode(errors="replace"))
        elif isinstance(value, bytes):
            parts = _collected(value)
            if number == 1:
                types.append(_one(parts, 1))
            elif number == 2:
                samples.append((_numbers(parts, 1), _numbers(parts, 2)))
            elif number == 4:
                lines = (_collected(each) for each in parts[4] if isinstance(each, bytes))
                locations[_one(parts, 1)] = [(_one(line, 1), _one(line, 2)) for line in lines]
            elif number == 5:
                functions[_one(parts, 1)] = (_one(parts, 2), _one(parts, 4))

    def places(ids: list[int]) -> Iterator[Place]:
        for location in ids:
            for function, line in locations.get(location, ()):
                name, file = functions.get(function, (0, 0))
                yield texts[file], line, texts[name]

    return Profile(
        at_s,
        tuple(texts[each] for each in types),
        tuple(Sample(tuple(places(ids)), tuple(values)) for ids, values in samples),
        process,
    )


def profiles_of_push(body: bytes, at_s: float) -> list[Profile]:
    """The profiles in a PushRequest of Pyroscope: series with samples with a profile each."""
    found: list[Profile] = []
    for series in _messages(_collected(_decompressed(body)), 1):
        labels = {
            bytes(name).decode(): bytes(value).decode()
            for label in _messages(series, 1)
            for name, value in zip(label[1], label[2], strict=True)
            if isinstance(name, bytes) and isinstance(value, bytes)
        }
        for sample in _messages(series, 2):
            raws = (raw for raw in sample[1] if isinstance(raw, bytes))
            found += [of_bytes(raw, at_s, labels.get("pid", "")) for raw in raws]
    return found


Message = defaultdict[int, list["int | bytes"]]


def _messages(parts: Message, number: int) -> Iterator[Message]:
    """The messages in a field."""
    yield from (_collected(value) for value in parts[number] if isinstance(value, bytes))


def _decompressed(data: bytes) -> bytes:
    if data.startswith(_GZIP):
        return gzip.decompress(data)
    if data.startswith(_ZSTD):
        import zstandard

        with zstandard.ZstdDecompressor().stream_reader(data) as reader:
            found: bytes = reader.read()
        return found
    return data


def _collected(data: bytes) -> defaultdict[int, list[int | bytes]]:
    found: defaultdict[int, list[int | bytes]] = defaultdict(list)
    for number, value in _fields(data):
        found[number].append(value)
    return found


def _one(parts: defaultdict[int, list[int | bytes]], number: int) -> int:
    """A number; what is not written is 0."""
    value = parts[number][-1] if parts[number] else 0
    if not isinstance(value, int):
        raise ValueError(f"field {number} is no number")
    return value


def _numbers(parts: defaultdict[int, list[int | bytes]], number: int) -> list[int]:
    """Repeated numbers, packed or one by one."""
    found: list[int] = []
    for value in parts[number]:
        if isinstance(value, int):
            found.append(value)
            continue
        at = 0
        while at < len(value):
            one, at = _varint(value, at)
            found.append(one)
    return [_signed(each) for each in found]


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field, in order."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
        elif kind in (1, 2, 5):
            size, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            if at + size > len(data):
                raise ValueError("a field reaches beyond the end")
            yield key >> 3, data[at : at + size]
            at += size
        else:
            raise ValueError(f"a field of kind {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data):
            raise ValueError("a number has no end")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
