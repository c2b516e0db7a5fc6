"""Queries for events, independent of the store.

A query is described here once. `logql` writes it for Loki, `logsql` for VictoriaLogs. All queries
select the workers that are chosen on the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

EVENT_NAME = "event.name"
"""The attribute to which the Collector copies an event's name."""

INSTANCE = "service.instance.id"
"""The resource attribute that names the worker; `instance` in Prometheus."""


class OfTask(Enum):
    """Which events a query selects, by the task that they name."""

    ANY = auto()
    SOME = auto()
    """Those that name a task."""
    CHOSEN = auto()
    """Those that name one of the tasks chosen on the page."""
    CHOSEN_OR_NONE = auto()
    """Those of `CHOSEN`, and those that name no task."""


@dataclass(frozen=True)
class Events:
    """Events with these names."""

    names: tuple[str, ...]
    of_task: OfTask = OfTask.ANY


@dataclass(frozen=True)
class Count:
    """Number of events in each step of a graph, by the value of an attribute."""

    events: Events
    by: str


EventQuery = Events | Count
