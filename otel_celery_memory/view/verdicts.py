"""Verdicts as they arrive: one for each leak of a worker, from its begin to its end. Bounded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from otel_celery_memory import conventions as c
from otel_celery_memory.leaks.verdict import State
from otel_celery_memory.view.otlp import Attributes, LoggedEvent, Sender

VERDICTS_MAX = 200
_OWN_RESOURCE = frozenset({"file_descriptors", "threads", "processes", "messages"})
"""Kinds that are no memory: a task may leak both. Kinds of memory may become known later."""


@dataclass(frozen=True)
class Verdict:
    """What is said of one leak. ``text`` is for people; ``None`` is what was not said."""

    worker: Sender
    state: str
    kind: str
    where: str
    task: str
    began_s: float
    changed_s: float
    text: str = ""
    rate: float | None = None
    rate_low: float | None = None
    rate_high: float | None = None
    runs: float | None = None
    processes: float | None = None
    explained: float | None = None
    site: str = ""
    site_share: float | None = None
    path: str = ""
    line: int = 0
    function: str = ""
    holder: str = ""
    types: str = ""
    exhaustion_s: float | None = None
    max_tasks: float | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Verdicts with the same key are one leak at different times."""
        resource = self.kind if self.kind in _OWN_RESOURCE else "memory"
        return (self.worker, self.task, self.where, resource)


def verdict_of(sender: Sender, of: Attributes, time_s: float, text: str) -> Verdict:
    """The verdict that attributes of an event or of a gauge describe."""
    return Verdict(
        worker=sender,
        state=str(of.get(c.LEAK_STATE, State.SUSPECTED.value)),
        kind=str(of.get(c.LEAK_KIND, "")),
        where=str(of.get(c.LEAK_WHERE, "")),
        task=str(of.get(c.TASK_NAME, "")),
        began_s=time_s,
        changed_s=time_s,
        text=text,
        rate=_number(of, c.LEAK_RATE),
        rate_low=_number(of, c.LEAK_RATE_LOW),
        rate_high=_number(of, c.LEAK_RATE_HIGH),
        runs=_number(of, c.LEAK_RUNS),
        processes=_number(of, c.LEAK_PROCESSES),
        explained=_number(of, c.LEAK_EXPLAINED),
        site=str(of.get(c.SITE_NAME, "")),
        site_share=_number(of, c.SITE_SHARE),
        path=str(of.get(c.CODE_FILE, "")),
        line=int(_number(of, c.CODE_LINE) or 0),
        function=str(of.get(c.CODE_FUNCTION, "")),
        holder=str(of.get(c.LEAK_HOLDER, "")),
        types=str(of.get(c.LEAK_TYPES, "")),
        exhaustion_s=_number(of, c.EXHAUSTION_TIME),
        max_tasks=_number(of, c.MAX_TASKS_PER_CHILD),
    )


class Verdicts:
    """The newest verdict of each leak. Where there is no room the one changed longest ago goes."""

    def __init__(self) -> None:
        self._verdicts: dict[tuple[object, ...], Verdict] = {}

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self._verdicts.values())

    def take(self, sender: Sender, event: LoggedEvent) -> Verdict:
        """Takes an event of a leak, and returns the verdict as it stands now."""
        verdict = verdict_of(sender, event.attributes, event.time_ns / 1e9, event.body)
        before = self._verdicts.pop(verdict.key, None)
        if before is not None and before.changed_s > verdict.changed_s:
            verdict = before
        elif before is not None and before.state != State.ENDED.value:
            verdict = replace(verdict, began_s=before.began_s)
        self._verdicts[verdict.key] = verdict
        while len(self._verdicts) > VERDICTS_MAX:
            del self._verdicts[next(iter(self._verdicts))]
        return verdict

    def end(self, sender: Sender, now_s: float) -> None:
        """The worker that these verdicts are of is gone."""
        for key, verdict in self._verdicts.items():
            if verdict.worker == sender and verdict.state != State.ENDED.value:
                self._verdicts[key] = replace(
                    verdict,
                    state=State.ENDED.value,
                    changed_s=now_s,
                    text=f"Of the worker before this one: {verdict.text}",
                    exhaustion_s=None,
                )


def _number(of: Attributes, name: str) -> float | None:
    value = of.get(name)
    return value if isinstance(value, (int, float)) else None
