"""Reads what a writer wrote, as a reporter would."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from types import FrameType, TracebackType
from typing import Any

from otel_celery_memory.ipc.records import Record
from otel_celery_memory.ipc.ring import RingReader
from otel_celery_memory.worker.record_writer import RecordWriter


def read_ring(reader: RingReader, *, last: bool = False) -> tuple[list[Record], int]:
    """One round of reads: the records, and how many runs of bytes were none."""
    damaged = reader.begin_round()
    records: list[Record] = []
    while (batch := reader.read(last=last)) is not None:
        reader.release(batch.place)
        records += batch.records
        damaged += batch.damaged
    return records, damaged


class Rings:
    """What comes out of the rings of a worker."""

    def __init__(self, writer: RecordWriter) -> None:
        self._writer = writer
        self._maps: dict[int, mmap.mmap] = {}
        self._readers: dict[int, RingReader] = {}

    def read(self) -> list[Record]:
        """The records since the last time; none of them may be damaged."""
        found: list[Record] = []
        for number in self._writer.page.rings_used():
            if number not in self._readers:
                self._maps[number] = self._writer.rings.map_ring(number)
                self._readers[number] = RingReader(self._maps[number])
            records, damaged = read_ring(self._readers[number])
            assert damaged == 0
            found += records
        return found

    def close(self) -> None:
        for ring in self._maps.values():
            ring.close()


class Killed(BaseException):
    """Nothing of the process runs after it."""


class KilledAt:
    """Ends the code of some files at their so-and-so-manieth bytecode."""

    def __init__(self, number: int, files: tuple[str, ...]) -> None:
        self._left = number
        self._files = files

    @property
    def came(self) -> bool:
        """Whether there were so many."""
        return self._left <= 0

    def __enter__(self) -> KilledAt:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: object, traceback: TracebackType | None
    ) -> bool:
        sys.settrace(self._before)
        return kind is Killed

    def _trace(self, frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.endswith(self._files):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        if event == "opcode":
            self._left -= 1
            if self._left <= 0:  # in its `finally` too: a killed process runs none
                raise Killed
        return self._step


def at_every_step(files: tuple[str, ...], scenario: Callable[[KilledAt], None]) -> int:
    """Runs it once for each bytecode that it takes, killed there; how many there are."""

    def all_steps() -> int:
        for number in count(1):
            kill = KilledAt(number, files)
            scenario(kill)
            if not kill.came:
                return number - 1
        raise AssertionError

    # A kill inside `except` leaves that exception behind in the thread.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(all_steps).result()
