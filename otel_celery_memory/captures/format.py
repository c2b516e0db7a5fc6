"""The file format of a capture: versioned JSON, gzip-compressed.

It is described in docs/site/reference/capture-format.md.

JSON and not pickle: captures are passed around, and loading a pickle runs code from the file. The
reader checks each value and refuses the file if one is not as the format says.

Files of ``tracemalloc.Snapshot.dump`` are read as captures of the whole heap. They are pickles, and
are loaded only if the caller says that the file is trusted.
"""

from __future__ import annotations

import json
import math
import os
import stat
import tracemalloc
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from otel_celery_memory.captures.model import (
    HEAP,
    KINDS,
    Capture,
    CapturedProcess,
    CapturedSite,
    CaptureError,
    short_path,
)

INT64_MAX = 2**63 - 1
_SECONDS_MAX = 10**9
"""Thirty years: as nanoseconds still an integer of 64 bits."""
_QUOTED_MAX = 40
FORMAT = "otel_celery_memory.capture"
VERSION = 1
GZIP_MAGIC = b"\x1f\x8b"
MAX_BYTES = 1 << 26
"""Limit for the JSON and for the compressed file. 20,000 sites of 25 frames are 60 MiB."""
MAX_PARTS = 1 << 21
"""Limit for the number of lists, objects and commas; 20,000 such sites have 1.7 million. A parsed
list or object may take 50 times its bytes in the file: without this limit three gigabytes."""

_GZIP = 16 + zlib.MAX_WBITS
_CHUNK_BYTES = 1 << 16
_FOLLOWED = "is damaged: something follows its compressed data"
_DIGITS_MAX = 20
"""More digits than any integer of 64 bits has; the time to parse grows with their square."""
PICKLE_MAGIC = b"\x80"
"""First byte of a pickle of protocol 2 and later, as `dump` writes it."""
REFUSAL = (
    "is no capture but a pickle, perhaps of tracemalloc.Snapshot.dump(): loading one runs code "
    "that the file brings; pass --trust-pickle if you know who wrote it"
)


class Values:
    """The values of one JSON object; ``where`` names it in errors."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise CaptureError(f"{where} should be an object")
        self._values = value
        self._where = where

    def text(self, name: str) -> str:
        """A string."""
        value = self._get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def optional_text(self, name: str) -> str | None:
        """A string or null."""
        return None if self._get(name) is None else self.text(name)

    def integer(self, name: str, low: int = -INT64_MAX) -> int:
        """An integer of 64 bits, not below `low`."""
        value = self._get(name)
        if not is_integer(value, low):
            raise self._wrong(name, f"an integer from {low}" if low >= 0 else "an integer")
        return value

    def optional_integer(self, name: str, low: int = -INT64_MAX) -> int | None:
        """An integer or null."""
        return None if self._get(name) is None else self.integer(name, low)

    def seconds(self, name: str) -> float:
        """A finite number, not negative."""
        value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(name, "a number")
        if not (math.isfinite(value) and 0 <= value <= _SECONDS_MAX):
            raise self._wrong(name, "a number of seconds")
        return float(value)

    def list(self, name: str) -> Sequence[object]:
        """A list of anything."""
        value = self._get(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        return value

    def counts(self, name: str) -> Mapping[str, int]:
        """An object whose values are integers from 0."""
        value = self._get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "an object")
        for count in value.values():
            if not is_integer(count, 0):
                raise self._wrong(name, "an object of integers from 0")
        return value

    def _get(self, name: str) -> object:
        try:
            return self._values[name]
        except KeyError:
            raise CaptureError(f"{self._where} has no {name!r}") from None

    def _wrong(self, name: str, wanted: str) -> CaptureError:
        return CaptureError(
            f"{self._where}: {name!r} should be {wanted}, not {quoted(self._get(name))}"
        )


def is_integer(value: object, low: int) -> TypeGuard[int]:
    """Whether a value is an integer of 64 bits, not below ``low``; ``true`` is not one."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= INT64_MAX


def quoted(value: object) -> str:
    """A value from a file, escaped and cut so that it fits an error's one line."""
    if isinstance(value, (dict, list)):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, str) and len(value) > _QUOTED_MAX:
        value = value[:_QUOTED_MAX] + "..."
    return ascii(value)


def dump_capture(capture: Capture) -> bytes:
    """The bytes of a capture's file: always the same for the same capture.

    Raises `CaptureError` if the file would be too large to be read again.
    """
    values = {
        "format": FORMAT,
        "version": VERSION,
        **vars(capture),
        "processes": [vars(process) for process in capture.processes],
        "runs": dict(capture.runs),
        "sites": [vars(site) for site in capture.sites],
    }
    text = json.dumps(values, sort_keys=True, allow_nan=False, separators=(",", ":")).encode(
        "ascii"
    )
    if len(text) > MAX_BYTES:
        raise CaptureError(f"a capture of {len(text):,} bytes is too large: at most {MAX_BYTES:,}")
    if _parts(text) > MAX_PARTS:
        raise CaptureError(
            f"a capture of {_parts(text):,} parts is too large: at most {MAX_PARTS:,}"
        )
    # Not gzip.compress(): its header differs from one Python to the next.
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    return packer.compress(text) + packer.flush()


def _parts(text: bytes) -> int:
    return sum(map(text.count, (b"[", b"{", b",")))


def read_bytes(path: Path) -> bytes:
    """Content of a regular file of at most `MAX_BYTES`. Raises `CaptureError`."""
    try:
        # Non-blocking: if this is a FIFO, opening it would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise CaptureError("is not a regular file")
            with os.fdopen(fd, "rb", closefd=False) as file:
                data = file.read(MAX_BYTES + 1)
        finally:
            os.close(fd)
    except OSError as error:
        raise CaptureError(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise CaptureError("cannot be read: no file can have this path") from None
    if len(data) > MAX_BYTES:
        raise CaptureError(f"is larger than {MAX_BYTES:,} bytes")
    return data


def load_capture(data: bytes) -> Capture:
    """The capture in a file's bytes. Raises `CaptureError` and nothing else, for any bytes."""
    try:
        return _capture(_parsed(_decompressed(data)))
    except (RecursionError, MemoryError):
        raise CaptureError("is nested too deeply or too large to be a capture") from None


def _decompressed(data: bytes) -> bytes:
    if not data.startswith(GZIP_MAGIC):
        raise CaptureError("is no capture: not gzip-compressed")
    unpacker = zlib.decompressobj(_GZIP)
    parts: list[bytes] = []
    left = MAX_BYTES
    try:
        for at in range(0, len(data), _CHUNK_BYTES):
            if unpacker.eof:
                raise CaptureError(_FOLLOWED)
            # Bounded: a kilobyte of gzip may unpack to a megabyte.
            parts.append(unpacker.decompress(data[at : at + _CHUNK_BYTES], left + 1))
            left -= len(parts[-1])
            if left < 0:
                raise CaptureError(f"is larger than {MAX_BYTES:,} bytes when unpacked")
    except zlib.error:
        raise CaptureError("is damaged: its compressed data are not valid") from None
    if not unpacker.eof:
        raise CaptureError("is truncated: its compressed data end too early")
    if unpacker.unused_data:
        raise CaptureError(_FOLLOWED)
    return b"".join(parts)


def _parsed(text: bytes) -> Any:
    if _parts(text) > MAX_PARTS:
        raise CaptureError(f"is no capture: it has more than {MAX_PARTS:,} parts")
    try:
        return json.loads(text.decode("utf-8"), parse_constant=_no_number, parse_int=_integer)
    except ValueError:
        raise CaptureError("is no capture: not JSON") from None


def _no_number(name: str) -> NoReturn:
    raise CaptureError(f"is no capture: {name} is no number")


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS_MAX:
        raise CaptureError("is no capture: an integer is too large")
    return int(digits)


def _capture(parsed: object) -> Capture:
    if not isinstance(parsed, dict) or parsed.get("format") != FORMAT:
        raise CaptureError(f"is no capture: its format is not {FORMAT}")
    version = parsed.get("version")
    if not is_integer(version, 1):
        raise CaptureError(f"is no capture: version {quoted(version)} is none")
    if version > VERSION:
        raise CaptureError(
            f"has version {version} of the format, this release reads up to {VERSION}: "
            "use a newer otel-celery-memory"
        )
    values = Values(parsed, "the capture")
    kind = values.text("kind")
    if kind not in KINDS:
        raise CaptureError(f"the capture's kind is {quoted(kind)}, not one of {', '.join(KINDS)}")
    return Capture(
        kind=kind,
        worker=values.text("worker"),
        reason=values.text("reason"),
        taken_ns=values.integer("taken_ns", 0),
        duration_s=values.seconds("duration_s"),
        frames=values.integer("frames", 1),
        tracing=values.text("tracing"),
        processes=tuple(
            _process(Values(each, f"process {number}"))
            for number, each in enumerate(values.list("processes"))
        ),
        runs=values.counts("runs"),
        sites=tuple(
            _site(Values(each, f"site {number}"), f"site {number}")
            for number, each in enumerate(values.list("sites"))
        ),
        other_bytes=values.integer("other_bytes"),
        other_blocks=values.integer("other_blocks"),
    )


def _process(values: Values) -> CapturedProcess:
    return CapturedProcess(
        values.text("slot"), values.integer("pid", 0), values.optional_integer("rss_bytes", 0)
    )


def _site(values: Values, where: str) -> CapturedSite:
    return CapturedSite(
        task=values.text("task"),
        path=values.text("path"),
        line=values.integer("line", 0),
        function=values.optional_text("function"),
        name=values.text("name"),
        stack=tuple(_frame(frame, where) for frame in values.list("stack")),
        size_bytes=values.integer("size_bytes"),
        blocks=values.integer("blocks"),
    )


def _frame(frame: object, where: str) -> tuple[str, int]:
    if isinstance(frame, list) and len(frame) == 2:
        path, line = frame
        if isinstance(path, str) and is_integer(line, 0):
            return path, line
    raise CaptureError(f"{where}: each frame of 'stack' should be [file, line]")


def read_snapshot(path: Path, roots: Sequence[str] = (), *, trust: bool) -> Capture:
    """A tracemalloc snapshot as a capture; files are named relative to ``roots``.

    Raises `CaptureError` if the file is not trusted or is no snapshot.
    """
    if not trust:
        raise CaptureError(REFUSAL)
    try:
        snapshot = tracemalloc.Snapshot.load(str(path))
        if not isinstance(snapshot, tracemalloc.Snapshot):
            raise TypeError("another object")
        return _whole_heap(snapshot, round(path.stat().st_mtime * 1e9), roots)
    # A broken pickle may raise anything.
    except Exception as error:
        raise CaptureError(f"is no tracemalloc snapshot: {type(error).__name__}") from None


def _whole_heap(snapshot: tracemalloc.Snapshot, written_ns: int, roots: Sequence[str]) -> Capture:
    sites = []
    for found in snapshot.statistics("traceback"):
        stack = tuple((str(frame.filename), int(frame.lineno)) for frame in found.traceback)
        path, line = stack[-1]
        sites.append(
            CapturedSite(
                task="",
                path=path,
                line=line,
                function=None,
                name=f"{short_path(path, roots)}:{line}",
                stack=stack if len(stack) > 1 else (),
                size_bytes=int(found.size),
                blocks=int(found.count),
            )
        )
    return Capture(
        kind=HEAP,
        worker="",
        reason="a tracemalloc snapshot",
        taken_ns=written_ns,
        duration_s=0.0,
        frames=int(snapshot.traceback_limit),
        tracing="tracemalloc",
        processes=(),
        runs={},
        sites=tuple(sites),
        other_bytes=0,
        other_blocks=0,
    )
