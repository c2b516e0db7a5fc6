"""What recycling costs and brings: an empty place in the pool, and memory given back. Pure.

A child's end is judged after its successor may be up, so the two are matched by their times.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from otel_celery_memory.ipc.records import SLOTS_MAX, ExitReason, ProcessUp
from otel_celery_memory.reporter.state.exits import ProcessEnd

_UPS_MAX = 32
"""Children of one place that may come up before the first of their predecessors is judged."""
_NOT_REPLACED = (ExitReason.SHUTDOWN, ExitReason.AUTOSCALE)


@dataclass(frozen=True)
class Life:
    """One child's life: how many tasks it ran, for how long, and why it ended."""

    reason: str
    tasks: int
    lifetime_s: float


@dataclass(frozen=True)
class Replacement:
    """From one child's end to its successor's readiness.

    ``freed_bytes`` is RSS at the end less the successor's at its start; ``None`` if unknown.
    """

    reason: str
    gap_s: float
    freed_bytes: int | None


@dataclass(frozen=True)
class _Vacancy:
    reason: str
    since_ns: int
    rss_bytes: int | None


class Recycling:
    """Follows the children of each place in the pool."""

    def __init__(self) -> None:
        self._ups: dict[int, deque[ProcessUp]] = {}
        self._vacant: dict[int, _Vacancy] = {}

    def up(self, record: ProcessUp) -> Replacement | None:
        """A child is ready; whose place it takes, if that one's end was judged already."""
        # A roll call tells no size, and is no beginning.
        if not record.rss_bytes or not 0 <= record.slot < SLOTS_MAX:
            return None
        vacancy = self._vacant.get(record.slot)
        if vacancy is not None and record.time_ns >= vacancy.since_ns:
            del self._vacant[record.slot]
            return _replacement(vacancy, record)
        self._ups.setdefault(record.slot, deque(maxlen=_UPS_MAX)).append(record)
        return None

    def ended(self, end: ProcessEnd) -> tuple[Life | None, Replacement | None]:
        """A process's end was judged: its life, and who took its place, if that one is up."""
        process = end.process
        if process.slot is None or not 0 <= process.slot < SLOTS_MAX:
            return None, None
        down = process.down
        ended_ns = end.time_ns if down is None else down.time_ns
        life = None
        if process.up_ns is not None:
            # Who was met by a reporter that was started again has a past that is not known.
            lifetime_s = max(ended_ns - process.up_ns, 0) / 1e9
            life = Life(end.reason.value, process.tasks, lifetime_s)
        if end.reason in _NOT_REPLACED:
            return life, None
        vacancy = _Vacancy(end.reason.value, ended_ns, process.rss_bytes)
        ups = self._ups.get(process.slot, ())
        successors = [record for record in ups if record.time_ns >= ended_ns]
        if not successors:
            self._vacant[process.slot] = vacancy
            return life, None
        return life, _replacement(vacancy, successors[0])


def _replacement(vacancy: _Vacancy, successor: ProcessUp) -> Replacement:
    freed = None
    if vacancy.rss_bytes is not None:
        freed = max(vacancy.rss_bytes - successor.rss_bytes, 0)
    return Replacement(vacancy.reason, (successor.time_ns - vacancy.since_ns) / 1e9, freed)
