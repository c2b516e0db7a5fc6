"""What the dashboards ask a store of events, whichever it is.

A query is described here once. `logql` writes it for Loki, `logsql` for VictoriaLogs. All queries
are of the workers that are chosen on the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

EVENT_NAME = "event.name"
"""The attribute that the Collector copies the name of an event to."""

INSTANCE = "service.instance.id"
"""The resource attribute that names the worker; `instance` in Prometheus."""


class OfTask(Enum):
    """Which events a query takes, by the task that they name."""

    ANY = auto()
    SOME = auto()
    """Those that name a task."""
    CHOSEN = auto()
    """Those that name one of the tasks that are chosen on the page."""
    CHOSEN_OR_NONE = auto()
    """The same, and those that name no task."""


@dataclass(frozen=True)
class Events:
    """The events of these names."""

    names: tuple[str, ...]
    of_task: OfTask = OfTask.ANY


@dataclass(frozen=True)
class Count:
    """How many events there were in each step of a graph, by the value of an attribute."""

    events: Events
    by: str


EventQuery = Events | Count
