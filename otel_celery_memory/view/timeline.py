"""What happened in workers, in order: losses, pressure, recycling, captures. Bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from otel_celery_memory import conventions as c
from otel_celery_memory.view.otlp import LoggedEvent, Sender, Value

ITEMS_MAX = 500
LINES_MAX = 32
"""Processes of one pressure, or types of one census, that are told."""

LOST, PRESSURE, RECYCLED, CAPTURE, CENSUS, DESCENDANTS, LEAK, WORKER = (
    *("lost", "pressure", "recycled", "capture", "census", "descendants", "leak", "worker"),
)
_KINDS = {
    c.PROCESS_LOST.name: LOST,
    c.PRESSURE.name: PRESSURE,
    c.SNAPSHOT.name: CAPTURE,
    c.CENSUS.name: CENSUS,
    c.DESCENDANTS_LEFT.name: DESCENDANTS,
}
_TOGETHER_S = {PRESSURE: 2.0, CENSUS: 150.0, RECYCLED: 60.0}
"""Things of one kind, worker and subject that are one item where they are no further apart."""
_NAMED = (c.TASK_NAME, c.TASK_ID, c.SLOT, c.PROCESS_PID, c.EXIT_REASON, c.SNAPSHOT_FILE)


@dataclass(frozen=True)
class Grown:
    """Of a census: so many more objects of a type in one place, in these processes."""

    type: str
    holder: str
    growth: int
    slots: frozenset[str]

    def with_(self, other: Grown) -> Grown:
        """Both as one."""
        return replace(self, growth=self.growth + other.growth, slots=self.slots | other.slots)


@dataclass(frozen=True)
class Item:
    """One thing that happened. ``lines`` are sentences, ``count`` how many times."""

    time_s: float
    kind: str
    severity: str
    worker: Sender
    subject: str
    lines: tuple[str, ...]
    details: tuple[tuple[str, Value], ...] = ()
    count: int = 1
    grown: tuple[Grown, ...] = ()
    """What a census has found, most growth first; the processes of a worker agree mostly."""


class Timeline:
    """The newest items; what is older than the newest `ITEMS_MAX` is forgotten."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque(maxlen=ITEMS_MAX)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def take(self, sender: Sender, event: LoggedEvent) -> None:
        """Takes an event, if it is of a kind that belongs here."""
        kind = _KINDS.get(event.name)
        if kind is not None:
            of = event.attributes
            details = tuple((key, of[key]) for key in _NAMED if key in of)
            self.add(
                Item(
                    event.time_ns / 1e9,
                    kind,
                    event.severity,
                    sender,
                    _subject(kind, event),
                    (event.body,),
                    details,
                    grown=_grown(event),
                )
            )

    def add(self, item: Item) -> None:
        """Adds an item, or makes the one that it belongs to tell of both."""
        together_s = _TOGETHER_S.get(item.kind)
        if together_s is not None:
            for at, last in enumerate(reversed(self._items), start=1):
                if abs(item.time_s - last.time_s) > together_s:
                    break
                alike = (last.kind, last.worker, last.subject) == (
                    *(item.kind, item.worker, item.subject),
                )
                if alike and not _again(last.grown, item.grown):
                    lines = dict.fromkeys((*last.lines, *item.lines))
                    self._items[-at] = replace(
                        last,
                        lines=tuple(lines)[:LINES_MAX],
                        count=last.count + item.count,
                        grown=_together((*last.grown, *item.grown)),
                    )
                    return
        self._items.append(item)


def _subject(kind: str, event: LoggedEvent) -> str:
    """What makes several events one: the limit under pressure, the task of a census."""
    of = {PRESSURE: c.LIMIT_KIND, CENSUS: c.TASK_NAME}.get(kind, "")
    return str(event.attributes.get(of, ""))


def _grown(event: LoggedEvent) -> tuple[Grown, ...]:
    of = event.attributes
    growth, name = of.get(c.CENSUS_GROWTH), of.get(c.CENSUS_TYPE)
    if not isinstance(growth, int) or not name:
        return ()
    holder, slot = str(of.get(c.CENSUS_HOLDER, "")), str(of.get(c.SLOT, ""))
    return (Grown(str(name), holder, growth, frozenset((slot,))),)


def _again(before: Iterable[Grown], now: Iterable[Grown]) -> bool:
    """Whether a process tells of the same place once more: that is another census."""
    told = {(each.type, each.holder, slot) for each in before for slot in each.slots}
    return any((each.type, each.holder, slot) in told for each in now for slot in each.slots)


def _together(found: Iterable[Grown]) -> tuple[Grown, ...]:
    """Those of one type and place as one, most growth first."""
    by_place: dict[tuple[str, str], Grown] = {}
    for each in found:
        key = (each.type, each.holder)
        by_place[key] = by_place[key].with_(each) if key in by_place else each
    return tuple(sorted(by_place.values(), key=lambda each: -each.growth)[:LINES_MAX])
