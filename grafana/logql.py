"""Queries of events in Loki's language.

Loki turns resource attributes into labels and an event's attributes into structured metadata, and
dots into underscores.
"""

from __future__ import annotations

import json
import re

from grafana.event_queries import EVENT_NAME, INSTANCE, EventQuery, Events, OfTask
from grafana.names import TASK, label

_TASK_FILTERS = {
    OfTask.ANY: "",
    OfTask.SOME: f' | {TASK}!=""',
    OfTask.CHOSEN: f' | {TASK}=~"$task"',
    # To Loki a missing field is an empty text.
    OfTask.CHOSEN_OR_NONE: f' | {TASK}=~"$task|"',
}


def written(query: EventQuery) -> str:
    """A query in LogQL."""
    if isinstance(query, Events):
        return _events(query)
    return f"sum by ({label(query.by)}) (count_over_time({_events(query.events)} [$__auto]))"


def _events(events: Events) -> str:
    workers = f'{{{label(INSTANCE)}=~"$instance"}}'
    return f"{workers} | {label(EVENT_NAME)}{_one_of(events.names)}{_TASK_FILTERS[events.of_task]}"


def _one_of(names: tuple[str, ...]) -> str:
    if len(names) == 1:
        return f"={json.dumps(names[0])}"
    return f"=~{json.dumps('|'.join(map(re.escape, names)))}"
