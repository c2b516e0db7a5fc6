"""Verdicts as they are read from outside: from events over OTLP, or from `inspect memory`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from demo.receiver import Event
from tests.truth.conclusions import place, short

EVENT = "celery.memory.leak"
_LEAK = f"{EVENT}."
SUSPECTED, LEAKING, ENDED = "suspected", "leaking", "ended"


@dataclass(frozen=True)
class Said:
    """One verdict as it was said once: ``task`` and ``line`` are short, empty where not known."""

    at_ns: int
    state: str
    kind: str
    where: str
    task: str
    line: str = ""
    holder: str = ""
    types: str = ""
    condition: str = ""
    rate: float | None = None
    words: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells one leak from another, as the verdict's own key."""
        return self.kind, self.where, self.task

    @property
    def stands(self) -> bool:
        """Whether it says that something grows."""
        return self.state in (SUSPECTED, LEAKING)


def said_in(events: Iterable[Event]) -> tuple[Said, ...]:
    """What events say, the oldest first."""
    told = [_of_event(event) for event in events if event.name == EVENT]
    return tuple(sorted(told, key=lambda said: said.at_ns))


def standing(said: Iterable[Said]) -> tuple[Said, ...]:
    """The last that was said of each leak, whatever its state, in the order that they began."""
    last: dict[tuple[str, str, str], Said] = {}
    for each in said:
        last[each.key] = each
    return tuple(last.values())


def inspected(verdicts: Iterable[Mapping[str, Any]], at_ns: int) -> tuple[Said, ...]:
    """What the ``verdicts`` of `inspect memory` say, in their order."""
    return tuple(_of_answer(verdict, at_ns) for verdict in verdicts)


def _of_event(event: Event) -> Said:
    of = event.attributes
    rate = of.get(f"{_LEAK}rate")
    return Said(
        event.time_ns,
        str(of.get(f"{_LEAK}state", "")),
        str(of.get(f"{_LEAK}kind", "")),
        str(of.get(f"{_LEAK}where", "")),
        short(of.get("celery.task.name")),
        place(of.get("celery.memory.site.name")),
        str(of.get(f"{_LEAK}holder", "")),
        str(of.get(f"{_LEAK}types", "")),
        str(of.get(f"{_LEAK}condition", "")),
        None if rate is None else float(rate),
        event.body,
    )


def _of_answer(verdict: Mapping[str, Any], at_ns: int) -> Said:
    return Said(
        at_ns,
        str(verdict["state"]),
        str(verdict["kind"]),
        str(verdict["where"]),
        short(verdict["task"]),
        place(verdict["site"]),
        verdict["holder"] or "",
        rate=verdict["rate"],
        words=str(verdict["text"]),
    )
