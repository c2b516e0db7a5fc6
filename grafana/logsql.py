"""Queries of events in LogsQL, the language of VictoriaLogs.

A field is named as its attribute, with dots. The data source turns ``in($task)`` into a list of
quoted values, and into ``in(*)`` if all are chosen, which also matches events without the field.
"""

from __future__ import annotations

import json

from grafana.event_queries import EVENT_NAME, INSTANCE, EventQuery, Events, OfTask
from otel_celery_memory import conventions as c

_TASK = json.dumps(c.TASK_NAME)
_TASK_FILTERS = {
    OfTask.ANY: "",
    OfTask.SOME: f" {_TASK}:*",
    OfTask.CHOSEN: f" {_TASK}:* {_TASK}:in($task)",
    OfTask.CHOSEN_OR_NONE: f' ({_TASK}:in($task) or {_TASK}:"")',
}
COUNT = "events"


def written(query: EventQuery) -> str:
    """A query in LogsQL."""
    if isinstance(query, Events):
        return _events(query)
    return f"{_events(query.events)} | stats by ({json.dumps(query.by)}) count() {COUNT}"


def _events(events: Events) -> str:
    names = ", ".join(map(json.dumps, events.names))
    return (
        f"{json.dumps(EVENT_NAME)}:in({names}) {json.dumps(INSTANCE)}:in($instance)"
        f"{_TASK_FILTERS[events.of_task]}"
    )
