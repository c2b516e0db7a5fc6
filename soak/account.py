"""Compares the injected faults with the exported telemetry. Pure functions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demo.receiver import Event, Point
from soak.load import LOST, Sent
from soak.marks import END, START, Mark, Marks

_READ_LATE_NS = 300_000_000
"""Frames stay in the ring for a moment: an export contains the frames read before that."""
_IN_FLIGHT_NS = 500_000_000
"""A request may be received after its sender was killed; the successor's first comes later."""
_ANSWERED_NS = 2_000_000_000
"""By then a reporter has the response to its request, on a busy machine too."""


@dataclass(frozen=True)
class Deaths:
    """How the killed children were reported."""

    killed: int
    reported: int
    reported_rightly: int
    reported_twice: int
    reported_again: int
    """Reported twice, the first time in the last request of a reporter that was killed before the
    response."""
    with_task: int
    unreported_pids: tuple[int, ...]
    wrong: tuple[str, ...]

    @property
    def all_right(self) -> bool:
        """Whether each was reported once, with its task."""
        return self.reported_rightly == self.killed and not self.reported_twice


def deaths(
    killed: Collection[int], events: Sequence[Event], marks: Marks, kills_ns: Sequence[int] = ()
) -> Deaths:
    """Compares the events of lost processes with the marks that the killed processes left.

    ``kills_ns`` is when their reporters were killed.
    """
    reported: dict[int, list[Mapping[str, Any]]] = {}
    first_ns: dict[int, int] = {}
    for event in events:
        pid = event.attributes["process.pid"]
        reported.setdefault(pid, []).append(event.attributes)
        first_ns.setdefault(pid, event.received_ns)
    twice = [pid for pid in killed if len(reported.get(pid, ())) > 1]
    unacknowledged_ns = last_requests(kills_ns, events)
    again = [pid for pid in twice if len(reported[pid]) == 2 and first_ns[pid] in unacknowledged_ns]
    right, wrong = 0, []
    for pid in killed:
        if pid not in reported:
            continue
        task_ids = [attributes.get("celery.task.id") for attributes in reported[pid]]
        last = marks.last_of.get(pid)
        if all(is_right(task_id, last, marks.started) for task_id in task_ids):
            right += 1
        else:
            wrong.append(f"{pid}: reported {task_ids}, marked {last}")
    return Deaths(
        killed=len(killed),
        reported=sum(pid in reported for pid in killed),
        reported_rightly=right,
        reported_twice=len(twice) - len(again),
        reported_again=len(again),
        with_task=sum("celery.task.id" in reported[pid][0] for pid in killed if pid in reported),
        unreported_pids=tuple(pid for pid in killed if pid not in reported),
        wrong=tuple(wrong),
    )


def last_requests(kills_ns: Sequence[int], events: Sequence[Event]) -> set[int]:
    """When the last request of each reporter was received that was killed before the response.

    A reporter sends one request after another, so it has the responses to all earlier ones.
    """
    received_ns = sorted({event.received_ns for event in events})
    found = set()
    for kill_ns in kills_ns:
        place = bisect_right(received_ns, kill_ns + _IN_FLIGHT_NS)
        if place and received_ns[place - 1] > kill_ns - _ANSWERED_NS:
            found.add(received_ns[place - 1])
    return found


def is_right(task_id: str | None, last: Mark | None, started: Mapping[str, Mark]) -> bool:
    """Whether this is the task that was in flight, as far as the process's own marks show.

    Between two bodies a process ends one task and begins the next: if it was killed there, either
    task may have been in flight, or none.
    """
    if last is not None and last.kind == START:
        return task_id == last.task_id
    between = task_id is None or task_id not in started
    return between or (last is not None and task_id == last.task_id)


@dataclass(frozen=True)
class Balance:
    """Tasks of one phase, or of all."""

    name: str
    started: int
    measured: int
    lost: int
    dropped_ends: int
    """Ends of tasks that a full ring dropped."""
    dropped_others: int
    twice_max: int
    """Ends in a successful export whose reporter was killed before the response: the next repeats
    them."""

    @property
    def unaccounted(self) -> int:
        """Tasks that were neither reported nor counted; below zero if some were exported twice."""
        return self.started - self.measured - self.lost - self.dropped_ends

    @property
    def holds(self) -> bool:
        """Whether no task is missing, and at most `twice_max` were exported twice."""
        return -self.twice_max <= self.unaccounted <= 0


def begun(marks: Marks, events: Sequence[Event]) -> set[str]:
    """Tasks that began: those marked, and those whose process was killed before the mark."""
    named = {event.attributes.get("celery.task.id") for event in events}
    return set(marks.started) | {str(task_id) for task_id in named if task_id is not None}


def lost_in_flight(events: Sequence[Event]) -> set[str]:
    """Tasks that the events name."""
    named = {event.attributes.get("celery.task.id") for event in events}
    return {str(task_id) for task_id in named if task_id is not None}


def reported_twice_max(
    kills_ns: Sequence[int], points: Sequence[Point], ended: Mapping[str, Mark]
) -> int:
    """An upper bound of the tasks whose reporter was killed before the response to their export."""
    exported_ns = sorted({p.time_ns for p in points if p.metric == "celery.task.memory.measured"})
    ends_ns = sorted(mark.time_ns for mark in ended.values() if mark.kind == END)
    total = 0
    for kill_ns in kills_ns:
        at = bisect_left(exported_ns, kill_ns)
        # The tasks of the last export, and those that ended since.
        since_ns = exported_ns[at - 2] - _READ_LATE_NS if at > 1 else 0
        total += bisect_right(ends_ns, kill_ns) - bisect_left(ends_ns, since_ns)
    return total


def harmed(
    sent: Sequence[Sent],
    found: Mapping[str, tuple[str, Any]],
    marks: Marks,
    killed: Container[int],
) -> list[str]:
    """Tasks whose outcome differs from the one without instrumentation, with that outcome."""
    wrong = []
    for each in sent:
        outcome = found.get(each.task_id)
        if outcome == each.expected:
            continue
        mark = marks.started.get(each.task_id)
        lost = outcome is not None and outcome[0] == "FAILURE" and outcome[1][0] == LOST
        if lost and (mark is None or mark.pid in killed):
            continue  # by our kill
        wrong.append(f"{each.kind}({each.number}) {each.task_id}: {outcome}")
    return wrong
