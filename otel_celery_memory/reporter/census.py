"""The last census of objects: what the processes found, for the view and the events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from otel_celery_memory.captures.model import CapturedProcess
from otel_celery_memory.ipc.commands import Commands
from otel_celery_memory.ipc.records import ObjectsCounted, TypeGrown

GRACE_S = 30.0
"""How long after its time the processes may still look for what holds the objects."""
_TYPES_MAX = 20
_PROCESSES_MAX = 1_000


@dataclass(frozen=True)
class ProcessCensus:
    """What one process found; ``task``: whose runs were counted, empty for all."""

    process: CapturedProcess
    task: str
    grown: tuple[TypeGrown, ...]
    counted: ObjectsCounted


def added_up(rows: Sequence[TypeGrown]) -> TypeGrown:
    """Rows of one type in one place as one."""
    return rows[0]._replace(
        objects=sum(row.objects for row in rows),
        growth=sum(row.growth for row in rows),
        sampled=sum(row.sampled for row in rows),
        alike=sum(row.alike for row in rows),
    )


def together(rows: Iterable[TypeGrown]) -> tuple[TypeGrown, ...]:
    """The rows of one process, those of one type in the same places as one; most growth first.

    A process sends a row for each container of text and the like. The lists of one ``dict`` have
    the same chain of names: which of them grew nobody can tell, nor does it matter.
    """
    found: dict[tuple[str, str, int], list[TypeGrown]] = {}
    for row in rows:
        found.setdefault((row.type, row.holder, row.runs), []).append(row)
    return tuple(sorted(map(added_up, found.values()), key=lambda row: -row.growth))


@dataclass
class Censuses:
    """One census at a time, and the last one until the next begins."""

    clock_s: Callable[[], float] = time.monotonic
    read_orders: Callable[[], object] = lambda: None
    """Called if a record belongs to a census that is not known yet."""
    _commands: Commands = field(default_factory=Commands)
    _running: bool = False
    _grown: dict[int, list[TypeGrown]] = field(default_factory=dict)
    _found: dict[str, ProcessCensus] = field(default_factory=dict)

    def begin(self, commands: Commands) -> None:
        """Begins the census that ``commands`` ask for, if it is new."""
        if commands.census and commands.census != self._commands.census:
            self._commands, self._running = commands, True
            self._grown.clear()
            self._found.clear()

    def grown(self, record: TypeGrown) -> None:
        """A process has more objects of a type; that its census is complete follows."""
        self._read(record.census)
        rows = self._grown.get(record.pid, [])
        full = len(rows) >= _TYPES_MAX or len(self._grown) >= _PROCESSES_MAX
        if record.census == self._commands.census and not full:
            self._grown[record.pid] = [*rows, record]

    def counted(self, record: ObjectsCounted, process: CapturedProcess) -> ProcessCensus | None:
        """A process has completed its census; ``None`` if that is not the last one ordered."""
        self._read(record.census)
        known = record.census == self._commands.census and record.census > 0
        if not known or len(self._found) >= _PROCESSES_MAX:
            return None
        grown = together(self._grown.pop(record.pid, ()))
        found = ProcessCensus(process, self._commands.task, grown, record)
        self._found[process.slot] = found
        return found

    def update(self, running: Iterable[CapturedProcess], *, last: bool = False) -> None:
        """Notes whether a process that runs tasks now has still to complete it."""
        waited_for = {process.slot for process in running} - self._found.keys()
        late = self.clock_s() >= self._commands.until_s + GRACE_S
        if last or late or (self._found and not waited_for):
            self._running = False

    def view(self) -> list[dict[str, Any]]:
        """The census among the captures of the view; empty if there was none."""
        if not self._commands.census:
            return []
        counted = [found.counted for found in self._found.values()]
        return [
            {
                "number": self._commands.census,
                "state": "running" if self._running else "complete",
                "kind": "census",
                "runs": sum(each.runs for each in counted),
                "error": None if self._found or self._running else "no process had these runs",
            }
        ]

    def objects(self) -> list[dict[str, Any]]:
        """What has grown in each process, most first; then why others took no census."""
        rows = [(row, found) for found in self._found.values() for row in found.grown]
        rows.sort(key=lambda pair: -pair[0].growth)
        return [
            {
                "slot": found.process.slot,
                "type": row.type,
                "objects": row.objects,
                "growth": row.growth,
                "runs": row.runs,
                "holder": row.holder,
                "alike": row.alike,
                "sampled": row.sampled,
                "problem": None,
            }
            for row, found in rows
        ] + [
            {"slot": slot, "problem": found.counted.problem}
            for slot, found in sorted(self._found.items())
            if found.counted.problem
        ]

    def _read(self, census: int) -> None:
        if census > self._commands.census:
            self.read_orders()
